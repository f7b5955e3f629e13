"""Each strategy changes exactly the tensors that it says, BatchNorm's buffers included."""

from itertools import pairwise

import pytest
import torch

from encoders.runtime.errors import InputError
from encoders.runtime.optim_config import Optim
from encoders.zoo import zoo
from tests.transfer import toys
from tests.transfer.strategies.tiny import NETWORKS, changed, config, encoder, fit

# The names of the last block or stage, of the one before it, and of the stem, as timm writes them.
LAST = {
    "resnet": ("layer4.",),
    "bottleneck": ("layer4.",),
    "mobilenet": ("blocks.6.", "conv_head.", "bn2."),
    "densenet": ("features.denseblock4.", "features.norm5."),
    "convnext": ("stages.3.", "head.norm."),
    "vit": ("blocks.2.", "norm."),
}
BEFORE = {
    "resnet": ("layer3.",),
    "bottleneck": ("layer3.",),
    "mobilenet": ("blocks.5.",),
    "densenet": ("features.denseblock3.", "features.transition3."),
    "convnext": ("stages.2.",),
    "vit": ("blocks.1.",),
}
STEADY = Optim(kind="adamw", lr=3e-3, lr_rule="none", schedule="constant")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toys.store(tmp_path_factory.mktemp("toy") / "toy.h5", patients=9)


def trained_by(kind, own, strategy):
    """The names that a strategy should change."""
    names = set(own.model.state_dict())
    prefixes = {"last1": LAST[kind], "last2": LAST[kind] + BEFORE[kind]}
    if strategy in prefixes:
        return {name for name in names if name.startswith(prefixes[strategy])}
    if strategy == "bitfit":
        return {name for name in names if name.endswith("bias")}
    if strategy == "lora":
        weights = dict(own.model.named_parameters())
        named = {name for name in weights if name.endswith(("qkv.weight", "fc1.weight", "fc2.weight"))}
        pointwise = {name for name, p in weights.items() if p.ndim == 4 and p.shape[2:] == (1, 1) and p.shape[1] > 1}
        return named or pointwise
    return set() if strategy == "linear" else names


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("strategy", ["linear", "last1", "last2", "bitfit", "lora", "full", "l2sp"])
def test_a_strategy_changes_exactly_what_it_says(kind, strategy, images):
    own = encoder(kind)
    settings = {"last1": {"strategy": "last"}, "last2": {"strategy": "last", "last": {"count": 2}}}.get(strategy, {"strategy": strategy})
    fitted = fit(images, own, config(**settings, evaluations=1, max_steps=2, min_steps=2))
    assert changed(own, fitted) == trained_by(kind, own, strategy)
    parameters = dict(own.model.named_parameters())
    head = sum(p.numel() for p in fitted.network.head.parameters())
    if strategy != "lora":
        assert fitted.cost["trained_parameters"] == head + sum(parameters[n].numel() for n in changed(own, fitted) if n in parameters)
    assert fitted.cost["parameters"] == head + sum(p.numel() for p in parameters.values())


@pytest.mark.parametrize("strategy", ["linear", "bitfit", "lora", "last"])
def test_frozen_batchnorm_is_in_evaluation_mode_while_the_rest_trains(strategy, images, monkeypatch):
    seen = []
    own = encoder("resnet")
    kind = type(own.model.layer1[0].bn1)
    real = kind.forward

    def forward(self, x):
        seen.append((self, self.training))
        return real(self, x)

    monkeypatch.setattr(kind, "forward", forward)
    fit(images, own, config(strategy, evaluations=1, max_steps=1, min_steps=1))
    training = sum(mode for _, mode in seen)
    in_last = sum(isinstance(m, kind) for m in own.model.layer4.modules())
    assert training == (in_last if strategy == "last" else 0)


def test_drop_path_of_frozen_blocks_is_not_active(images):
    """The features of a frozen network do not depend on the draw, so two rates of drop path give the same head."""
    heads = [fit(images, encoder("vit"), config("linear", drop_path=rate)).network.head.weight for rate in (0.4, 0.9)]
    assert heads[0].equal(heads[1])
    one, other = (fit(images, encoder("vit"), config("last", drop_path=rate)).network.head.weight for rate in (0.4, 0.9))
    assert not one.equal(other)


@pytest.mark.parametrize("kind", NETWORKS)
def test_gradual_unfreezing_opens_one_stage_at_a_time_from_the_top(kind, images, monkeypatch):
    from transfer.protocols import finetune_training

    own, opened = encoder(kind), []
    real = finetune_training.training_step

    def step(network, *rest):
        before = {name: value.clone() for name, value in network.backbone.state_dict().items()}
        loss = real(network, *rest)
        after = network.backbone.state_dict()
        opened.append({name for name, value in before.items() if not value.equal(after[name])})
        return loss

    monkeypatch.setattr(finetune_training, "training_step", step)
    fitted = fit(images, own, config("gradual", max_steps=24, min_steps=24, gradual={"share": 0.75}, optim=STEADY))
    distinct = [s for i, s in enumerate(opened) if i == 0 or s != opened[i - 1]]
    everything = set(own.model.state_dict())
    assert distinct[0] == set()
    assert distinct[1] == {name for name in everything if name.startswith(LAST[kind])}
    assert distinct[2] == {name for name in everything if name.startswith(LAST[kind] + BEFORE[kind])}
    assert distinct[-1] == everything
    assert all(a < b for a, b in pairwise(distinct))
    assert [row["phase"] for row in fitted.selection["table"]][-1] == "all"


def test_parts_and_stages_are_frozen_as_whole_networks_are(images):
    parts = zoo.load_encoder(
        "random_resnet10t:size=32,channels=1+random_vit_tiny_patch16_224:size=32,model.depth=2,model.embed_dim=48,model.num_heads=3"
    )
    moved = changed(parts, fit(images, parts, config("last")))
    assert {name.split(".")[2] for name in moved if name.startswith("parts.0.")} == {"layer4"}
    assert {".".join(name.split(".")[2:4]) for name in moved if name.startswith("parts.1.")} == {"blocks.1", "norm.weight", "norm.bias"}
    stages = zoo.load_encoder("random_resnet10t:size=32,channels=1,stages=1/3")
    moved = changed(stages, fit(images, stages, config("last")))
    assert {name.split(".")[1] for name in moved} == {"layer3"}
    vit = zoo.load_encoder("random_vit_tiny_patch16_224:size=32,model.depth=3,model.embed_dim=48,model.num_heads=3,stages=0/1")
    moved = changed(vit, fit(images, vit, config("last")))
    assert {".".join(name.split(".")[1:3]) for name in moved} == {"blocks.1", "norm.weight", "norm.bias"}
    assert not any(p.requires_grad is False for p in stages.model.parameters())  # the encoder itself is as it was


def test_more_blocks_than_a_network_has_are_refused(images):
    with pytest.raises(InputError, match="last.count is 4, and the network has 3 blocks"):
        fit(images, encoder("vit"), config("last", last={"count": 4}))


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_averaged_weights_of_frozen_tensors_are_the_same_bit_for_bit(kind, images):
    own = encoder(kind)
    fitted = fit(images, own, config("last", ema=0.9, evaluations=1))
    assert changed(own, fitted) == trained_by(kind, own, "last1")
    assert not torch.is_inference(fitted.network.head.weight)
