"""Training a network of any timm family whose BatchNorm statistics are frozen, and what changed in it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from unittest import mock

import timm
import torch
from torch import nn

from encoders.runtime.errors import InputError
from encoders.zoo import backbone
from encoders.zoo.batchnorm import STATISTICS, freeze_statistics, list_statistics_layers
from tests.pretrain import tiny

SIZES = (64, 96, 224, 256)  # pixels, the first that a network accepts
BATCH = 4


@dataclass
class Trained:
    """What two steps of MoCo changed in a network."""

    layers: int  # with running statistics
    statistics_changed: list[str]  # in the trained network and in its EMA copy
    others_changed: list[str]  # further buffers of the trained network
    weights_changed: int  # tensors
    weights: int
    affine_changed: int  # scales and shifts of the frozen layers
    affine: int


def family(arch: str) -> tuple[str, str]:
    """A network's module in timm and the letters that its name begins with: finer than a module, coarser than a name."""
    return timm.model_entrypoint(arch).__module__.rpartition(".")[2], re.match(r"[a-z]+", arch).group()


def has_statistics(network: nn.Module) -> bool:
    """Whether the network has running statistics, found by the names of its tensors only."""
    return any(name.rpartition(".")[2] in STATISTICS for name in network.state_dict())


def smallest_members() -> Iterator[tuple[tuple[str, str], str]]:
    """Yields each family that has running statistics, and its network with the fewest weights. Networks are built without memory."""
    for _, archs in groupby(timm.list_models(), key=lambda arch: family(arch)[1]):
        best: dict[tuple[str, str], tuple[int, str]] = {}
        for arch in archs:
            # timm draws the numbers of its initialisation even where there is no memory for them, which takes most of the time
            with torch.device("meta"), mock.patch("timm.layers.weight_init._trunc_normal_", lambda tensor, *_: tensor):
                network = timm.create_model(arch, num_classes=0)
            if has_statistics(network):
                own = (sum(p.numel() for p in network.parameters()), arch)
                best[family(arch)] = min(best.get(family(arch), own), own)
        yield from ((key, arch) for key, (_, arch) in best.items())


def build(arch: str) -> tuple[nn.Module, int]:
    """The network in training mode with statistics as if it had been trained, and a size of images that it accepts."""
    for size in SIZES:
        try:
            network = backbone.build_backbone(arch, {}, 3, size, seed=0)
            with torch.no_grad():
                backbone.pooled_features(network.eval(), torch.zeros(2, 3, size, size))
        except (RuntimeError, AssertionError, ValueError, InputError):
            continue
        generator = torch.Generator().manual_seed(0)
        for name, buffer in network.named_buffers():
            if name.rpartition(".")[2] == "running_mean":
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
            elif name.rpartition(".")[2] == "running_var":
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
        return network.train(), size
    raise AssertionError(f"{arch} accepts none of the sizes {SIZES}")


def train(arch: str, frozen: bool = True, steps: int = 2) -> Trained:
    """Two steps of MoCo, whose key encoder is an EMA copy; `.train()` is called before each."""
    network, size = build(arch)
    layers = list_statistics_layers(network)
    assert bool(layers) == has_statistics(network)
    if frozen:
        freeze_statistics(network)
    method = tiny.method("moco", network, n_images=64, batch=BATCH, size=size, channels=3, dim=16, hidden=32, momentum=0.5)
    before = tiny.snapshot(network)
    for i in range(steps):
        method.train()
        tiny.step(method, [tiny.images(BATCH, 3, size, seed=2 * i + v) for v in range(2)], lr=1e-2)
    after, copy = network.state_dict(), method.key[0].state_dict()
    names = {name for name, _ in network.named_parameters()}
    statistics = [name for name in before if name.rpartition(".")[2] in (*STATISTICS, "num_batches_tracked")]
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    in_copy = [f"copy: {name}" for name in statistics if not torch.equal(before[name], copy[name])]
    affine = [p for layer in layers for p in layer.parameters(recurse=False)]
    own = {id(p) for p in affine}
    moved = [name for name, p in network.named_parameters() if id(p) in own and name in changed]
    return Trained(
        layers=len(layers),
        statistics_changed=[name for name in statistics if name in changed] + in_copy,
        others_changed=sorted(changed - names - set(statistics)),
        weights_changed=len(changed & names),
        weights=len(names),
        affine_changed=len(moved),
        affine=len(affine),
    )
