"""What every method is made of, and the contract between a method and the training loop.

A method is an `nn.Module` in a file of its own:

    traits                                  what it takes, costs and needs, and when to choose it
    Config                                  beside it: frozen, one description a field; recipes hold it under `method:`
    __init__(cfg, backbone, data)           backbone: a timm module with num_classes=0; data: DataShape
    views(augment) -> list[Augment]         one augmentation for each view it wants
    mask_spec() -> MaskSpec | None          which tokens are to be hidden; None for most
    forward(views, masks, progress) -> {"loss": ..., scalars}      views: (B, C, H, W) each; masks: None, or
                                            one (keep, masked) a view; progress in [0, 1)
    param_groups() -> list[Group]           every trainable tensor once
    after_backward(progress)                once a step, before clipping; also when the step is then rejected
    after_step(progress)                    EMA, queue: once per optimizer step really taken
    encoder() -> nn.Module                  what is exported, in timm's names
    embed(images) -> (B, D) | None          what the loss compares, for who watches: it can collapse while the encoder does not
    outcomes(images, progress) -> (B, K) | None     what a teacher says of images (B, C, H, W), rows that sum to 1; None: there is none
    notes(data) -> list[str]                what small-data rules changed, in sentences for a person
    asks_patients() -> bool                 whether `forward` is to be told whose images these are: patients=(B,) int64

A method knows no rank, logger or file. All it must remember is in `state_dict()`. What it draws itself comes from torch's
generator, which the loop seeds from (seed, step, micro-batch, rank).

Shapes: B images of a micro-batch, C channels, H height, W width, D width of the features.
"""

import math
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import dataclass
from functools import wraps
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypedDict, TypeVar, cast

import torch
from pydantic import BaseModel
from timm.layers import DropPath
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.runtime.errors import InputError

if TYPE_CHECKING:
    from encoders.augment.config import Augment

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class DataShape:
    """What a method may know of the data."""

    n_images: int  # in the corpus
    size: int  # pixels a side of a full view
    channels: int
    batch: int  # global: over ranks and micro-batches
    pretrained: bool = False  # the backbone comes with weights worth keeping
    accumulate: int = 1  # micro-batches that a batch comes in


@dataclass(frozen=True)
class Traits:
    """What a person weighs when choosing a method: `pretrain methods` shows it."""

    takes: str  # networks
    trained: int  # passes of an image through the encoder with gradients, a step
    untrained: int  # passes without: teacher, key encoder
    needs: str  # batch, normalisation, memory
    choose: str  # when

    @property
    def cost(self) -> str:
        return f"{self.trained} forward and backward" + (f", {self.untrained} forward" if self.untrained else "")


class _RequiredParamGroupKeys(TypedDict):
    name: str
    params: list[nn.Parameter]


class ParamGroup(_RequiredParamGroupKeys, total=False):
    """Parameters that are optimised alike. An absent `weight_decay` means the recipe's; absent lr_scale 1; absent fixed_lr no."""

    weight_decay: float
    lr_scale: float
    fixed_lr: bool  # no schedule: the peak rate from the first step to the last


class Method(nn.Module):
    """The parts of the contract that most methods share."""

    Config: ClassVar[type[BaseModel]]
    traits: ClassVar[Traits]
    sync_batchnorm: ClassVar[bool] = True  # with several ranks its BatchNorms are meant to see all of them

    def __init__(self, cfg: BaseModel, backbone: nn.Module, data: DataShape):
        super().__init__()
        self.cfg: Any = cfg
        self.data = data

    def views(self, augment: "Augment") -> list["Augment"]:
        """Two views alike."""
        return [augment, augment]

    def mask_spec(self) -> Any:
        return None

    def forward(self, views: list[Tensor], masks: Any, progress: float) -> dict[str, Tensor]:
        raise NotImplementedError

    def param_groups(self) -> list[ParamGroup]:
        return build_param_groups(self)

    def after_backward(self, progress: float) -> None:
        pass

    def after_step(self, progress: float) -> None:
        pass

    def encoder(self) -> nn.Module:
        raise NotImplementedError

    def embed(self, images: Tensor, features: Tensor) -> Tensor | None:
        """(B, K) what the loss compares, by whichever of the two usual names the method has given its head; None without one.

        features: (B, D) what `encoder()` makes of the images, which is not computed twice."""
        head = getattr(self, "projector", getattr(self, "head", None))
        if head is None:
            return None
        return head(features if self.encoder() is self.backbone else self.backbone(images))  # type: ignore[operator, no-any-return]

    def outcomes(self, features: Tensor, progress: float) -> Tensor | None:
        """(B, K) a teacher's distribution over outcomes, from what `encoder()` gave; None without a teacher that has some."""
        return None

    def notes(self, data: DataShape) -> list[str]:
        return []

    def asks_patients(self) -> bool:
        return bool(getattr(self.cfg, "exclude_same_patient", False))


def build_param_groups(*modules: nn.Module, decay: str = "matrices", name: str = "", **more: Any) -> list[ParamGroup]:
    """The trainable parameters of `modules` as groups: all in one (`decay="all"`), or without weight decay on vectors (`"matrices"`).

    Vectors are biases, norms and single tokens such as (1, 1, D), and what a timm model itself exempts (position tables). `more` goes
    into every group."""
    exempt = {id(p) for m in modules for p in _iter_undecayed_parameters(m)}
    params = [p for m in modules for p in m.parameters() if p.requires_grad]
    if decay == "all":
        made = [ParamGroup(name=name or "all", params=params)]
    else:
        vectors = [p for p in params if is_vector(p) or id(p) in exempt]
        matrices = [p for p in params if not (is_vector(p) or id(p) in exempt)]
        made = [ParamGroup(name=f"{name}weights", params=matrices), ParamGroup(name=f"{name}vectors", params=vectors, weight_decay=0.0)]
    return [cast(ParamGroup, {**group, **more}) for group in made if group["params"]]


def _iter_undecayed_parameters(module: nn.Module) -> Iterable[nn.Parameter]:
    for m in module.modules():
        names: Iterable[str] = m.no_weight_decay() if hasattr(m, "no_weight_decay") else ()  # type: ignore[operator]
        for name in names:
            if (p := getattr(m, name, None)) is not None:
                yield p


def is_vector(p: Tensor) -> bool:
    """Whether at most one axis is longer than 1."""
    return sum(n > 1 for n in p.shape) <= 1


def l2_normalize(x: Tensor) -> Tensor:
    """Rows of length 1, in float32 at least; float64 stays, so that gradients can be compared in it."""
    return F.normalize(at_least_float32(x), dim=-1)


def mask_same_patient(similar: Tensor, mine: Tensor | None, theirs: Tensor | None, own: Tensor) -> Tensor:
    """Similarities (B, K) with -inf where row and column are of one patient, except at each row's own column.

    mine: (B,), theirs: (K,) patients, None to spare nobody.  own: (B,) column of the row's positive."""
    if mine is None or theirs is None:
        return similar
    same = mine[:, None] == theirs[None]
    return similar.masked_fill(same.scatter(1, own[:, None], False), -torch.inf)


def at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """A loss that is computed in float32 at least, whatever autocast says: half-precision arguments are raised, autocast is off inside."""

    @wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        args = tuple(_upcast_argument(a) for a in args)  # type: ignore[assignment]
        device = next((a.device.type for a in _iter_tensors(args)), "cpu")
        with torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return inner


def _upcast_argument(x: Any) -> Any:
    if isinstance(x, list):
        return [_upcast_argument(a) for a in x]
    return at_least_float32(x) if isinstance(x, Tensor) else x


def _iter_tensors(args: Iterable[Any]) -> Iterable[Tensor]:
    for a in args:
        if isinstance(a, Tensor):
            yield a
        elif isinstance(a, list):
            yield from _iter_tensors(a)


def mlp(widths: list[int], norm: bool = True, last_norm: bool = False, last_bias: bool = True) -> nn.Sequential:
    """Linear layers with ReLU between; with `norm`, BatchNorm before each ReLU; `last_norm` adds one without scale or shift."""
    layers: list[nn.Module] = []
    for i, (a, b) in enumerate(pairwise(widths)):
        last = i == len(widths) - 2
        normed = last_norm if last else norm
        layers.append(nn.Linear(a, b, bias=not normed and (last_bias or not last)))  # a norm's shift makes a bias idle
        if normed:
            layers.append(nn.BatchNorm1d(b, affine=not last))
        if not last:
            layers.append(nn.ReLU(inplace=True))
    return nn.Sequential(*layers)


def feature_dim(backbone: nn.Module) -> int:
    """D: length of the pooled feature. timm's `num_features` is not always what comes out (MobileNetV3 has a head before pooling)."""
    return int(getattr(backbone, "head_hidden_size", None) or backbone.num_features)  # type: ignore[arg-type]


def local_crop_pixels(backbone: nn.Module, pixels: float) -> int:
    """Side of a local crop of about so many pixels: whole patches of a ViT, at least one."""
    patch = backbone.patch_embed.patch_size[0] if isinstance(backbone, VisionTransformer) else 1
    return max(round(pixels / patch), 1) * patch


def require_dynamic_image_size(backbone: nn.Module, method: str) -> None:
    """Raises InputError for a ViT that takes images of one size only."""
    if isinstance(backbone, VisionTransformer) and not backbone.dynamic_img_size:
        raise InputError(
            f"method {method} shows a ViT crops of two sizes: add model_args.dynamic_img_size=true to the recipe, or set method.n_local=0"
        )


def frozen_copy(module: nn.Module) -> nn.Module:
    """An equal module without gradients, drop path or dropout: the teacher or key encoder at step 0."""
    copy = deepcopy(module).requires_grad_(False)
    for m in copy.modules():
        if isinstance(m, DropPath):
            m.drop_prob = 0.0
        elif isinstance(m, nn.Dropout):
            m.p = 0.0
    return copy


class StepBuffer:
    """What a step's micro-batches leave for `after_step`; what a rejected step left is forgotten with the next step's first.

    Nothing is kept without gradients: then somebody only looks."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []
        self.ended = False

    def add(self, x: Tensor) -> None:
        if not torch.is_grad_enabled():
            return
        if self.ended:
            self.kept, self.ended = [], False
        self.kept.append(x)

    def end(self) -> None:
        """The step's last backward pass is done."""
        self.ended = True

    def take(self) -> Tensor:
        """All rows of this step, and none are left."""
        rows, self.kept = torch.cat(self.kept), []
        return rows


@torch.no_grad()
def ema_(slow: nn.Module, fast: nn.Module, momentum: float) -> None:
    """Parameters of `slow` move to those of `fast`: slow = momentum * slow + (1 - momentum) * fast, in place.

    Buffers stay: a slow module that runs in train mode keeps BatchNorm statistics of its own, as in the authors' code."""
    torch._foreach_lerp_(list(slow.parameters()), [p.detach() for p in fast.parameters()], 1.0 - momentum)


def scaled_momentum(momentum: float, batch: int, published_batch: int) -> float:
    """The EMA momentum with the same half-life in images: m ** (B / B_published). Source: Busbridge et al. 2023 (arXiv:2307.13813)."""
    return momentum ** (batch / published_batch)


def cosine_momentum(start: float, progress: float) -> float:
    """EMA momentum that rises from `start` to 1 along half a cosine.  progress: share of the steps behind us."""
    return 1.0 - (1.0 - start) * (math.cos(math.pi * progress) + 1.0) / 2.0
