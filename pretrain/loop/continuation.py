"""What a run can add to its method, most of it for a start from pretrained weights. Each part is off by default, and then absent.

layer_decay, anchor.l2_sp   the optimizer's groups (pretrain/methods/backbone_groups.py)
anchor                      terms of the loss (pretrain/loop/anchor.py)
auxiliary                   supervised terms of the loss (pretrain/loop/auxiliary.py); also without pretrained weights
head_warmup_steps           a frozen backbone at first (pretrain/loop/head_warmup.py)
ema                         averaged weights (pretrain/loop/weight_average.py)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from encoders.runtime.errors import InputError
from encoders.zoo.encoder import Encoder
from pretrain.loop.anchor import AnchoredMethod
from pretrain.loop.auxiliary import AuxiliaryMethod, build_auxiliary, summarise_terms
from pretrain.loop.head_warmup import HeadWarmup
from pretrain.loop.usable_labels import UsedLabel
from pretrain.loop.weight_average import WeightAverage
from pretrain.methods import Method
from pretrain.methods.backbone_groups import split_backbone
from pretrain.methods.networks import frozen_copy
from pretrain.methods.param_groups import ParamGroup
from pretrain.recipe.config import Recipe


@dataclass
class Continuation:
    """The parts that are on."""

    anchor: AnchoredMethod | None = None
    head_warmup: HeadWarmup | None = None
    average: WeightAverage | None = None
    auxiliary: AuxiliaryMethod | None = None

    def outermost(self, method: Method) -> nn.Module:
        """The module that the loop calls in place of the method: with the terms that are on."""
        return self.auxiliary or self.anchor or method

    def summarise(self, scalars: dict[str, Tensor]) -> dict[str, Tensor]:
        """The scalars of a step as they are logged."""
        return summarise_terms(scalars) if self.auxiliary else scalars


def copy_start(recipe: Recipe, network: nn.Module) -> nn.Module | None:
    """A frozen copy of the backbone at its start; None if no setting needs it."""
    return frozen_copy(network).eval() if recipe.anchor.active else None


def build_groups(recipe: Recipe, method: Method, network: nn.Module) -> list[ParamGroup]:
    """The parameter groups of `method`; those of the backbone are apart if a setting treats them differently."""
    if recipe.layer_decay == 1 and not recipe.head_warmup_steps and not recipe.anchor.l2_sp:
        return method.param_groups()
    return split_backbone(method.param_groups(), network, recipe.layer_decay, 0.0 if recipe.anchor.l2_sp else None)


def build_continuation(
    recipe: Recipe,
    method: Method,
    network: nn.Module,
    start: nn.Module | None,
    warmup: int,
    steps: int,
    labels: Sequence[UsedLabel] = (),
) -> Continuation:
    """The parts that the recipe asks for.  start: of `copy_start`, on the method's device.  labels: of `auxiliary`.

    Raises InputError for settings that do not go together."""
    parts = Continuation()
    if start is not None:
        if recipe.compile and recipe.anchor.relational:
            raise InputError("anchor.relational reads the backbone's features, which compile=true hides; leave out one of them")
        parts.anchor = AnchoredMethod(method, network, start, recipe.anchor)
    parts.auxiliary = build_auxiliary(method, parts.anchor or method, network, labels)
    if recipe.head_warmup_steps:
        if recipe.head_warmup_steps + warmup >= steps:
            raise InputError(
                f"head_warmup_steps={recipe.head_warmup_steps} and the backbone's warm-up of {warmup} steps after it are not shorter than "
                f"the run ({steps} steps); lower one of them"
            )
        parts.head_warmup = HeadWarmup(network, method.encoder(), recipe.head_warmup_steps, warmup)
    if recipe.ema:
        parts.average = WeightAverage(method.encoder(), recipe.ema)
    return parts


def reload_start(recipe: Recipe, card: Mapping[str, object]) -> Encoder:
    """The encoder `init` once more, for a run that is resumed.  card: that of its checkpoint.

    Raises InputError if it is no longer available, or not the encoder that the run started from."""
    from encoders.zoo import zoo

    lineage = card["lineage"]
    assert isinstance(lineage, Mapping)
    encoder = zoo.load_encoder(str(recipe.init))
    if encoder.sha256 != lineage.get("init_sha256"):
        raise InputError(
            f"init={recipe.init} has sha256 {encoder.sha256[:16]}..., and the run started from {str(lineage.get('init_sha256'))[:16]}...: "
            "the encoder was replaced or changed; restore it, or start a new run"
        )
    return encoder


def describe_continuation(recipe: Recipe) -> list[str]:
    """Sentences on the parts that are on."""
    notes = []
    if recipe.layer_decay != 1:
        notes.append(f"layer decay: each layer of the backbone has {recipe.layer_decay:g} times the learning rate of the one above it")
    if recipe.head_warmup_steps:
        notes.append(f"the backbone is frozen for {recipe.head_warmup_steps} steps, and then has a warm-up of its own")
    if recipe.anchor.relational:
        notes.append(f"relational distillation from {recipe.init} with weight {recipe.anchor.relational:g}")
    if recipe.anchor.l2_sp:
        notes.append(f"L2-SP: the backbone's weights decay towards {recipe.init} (coefficient {recipe.anchor.l2_sp:g}), not towards zero")
    if recipe.ema:
        notes.append(f"averaged weights (EMA {recipe.ema:g}) are exported beside the last ones")
    return notes
