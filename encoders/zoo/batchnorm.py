"""Running statistics of BatchNorm: which layers of a network keep them, and how they are frozen.

A frozen layer normalises with its running mean and variance in every mode and never changes them. Its scale and shift stay trainable, and
the dropout and activation that timm puts inside a norm (`BatchNormAct2d.drop`, `.act`) keep the mode of the network.

Departure from detection (He et al. 2017, arXiv:1703.06870, and torchvision's `FrozenBatchNorm2d`), where scale and shift are fixed too:
there a frozen layer serves batches of one or two images, here it keeps the statistics that the pretrained weights were fitted to.

A layer is found by its buffers, not by its class, so that every variant counts: `nn.BatchNorm1d/2d/3d`, `nn.SyncBatchNorm`, timm's
`BatchNormAct2d`, `SyncBatchNormAct`, `SplitBatchNorm2d`, `InplaceAbn`, and `EvoNorm2dB0`, `B1`, `B2`, which keep a running variance only.
`FrozenBatchNorm2d` and `FrozenBatchNormAct2d` are frozen as built. GroupNorm, LayerNorm, `EvoNorm2dS*` and weight standardisation keep no
statistics.
"""

from collections.abc import Iterator
from typing import Self

from timm.layers import FrozenBatchNormAct2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torchvision.ops import FrozenBatchNorm2d

STATISTICS = ("running_mean", "running_var")


class FrozenStatistics(nn.Module):
    """Mixed into the class of a norm: the norm stays in evaluation mode whatever mode its network is set to."""

    def train(self, mode: bool = True) -> Self:
        super().train(mode)  # for the layers inside the norm
        self.training = False
        return self


def freeze_statistics(network: nn.Module) -> None:
    """Freezes the running statistics of every layer of `network`, in place. Weights, buffers and their names stay the same.

    The class of a layer changes to a subclass, as in `torch.nn.utils.parametrize`, so that copies of the network are frozen as well."""
    for layer in list_statistics_layers(network):
        if not is_frozen(layer):
            layer.__class__ = _frozen_class(type(layer))
            layer.training = False


def list_statistics_layers(network: nn.Module) -> list[nn.Module]:
    """The layers of `network` that have running statistics."""
    return list(_find_statistics_layers(network))


def is_frozen(layer: nn.Module) -> bool:
    """Whether the layer never changes its running statistics."""
    return isinstance(layer, FrozenStatistics | FrozenBatchNorm2d | FrozenBatchNormAct2d)


def uses_batch_statistics(network: nn.Module) -> bool:
    """Whether an image's features depend on the other images of its batch in training mode: some BatchNorm is not frozen."""
    return bool(list_batch_statistics_layers(network))


def list_batch_statistics_layers(network: nn.Module) -> list[nn.Module]:
    """The layers of `network` that use statistics of the batch in training mode."""
    layers = [m for m in network.modules() if isinstance(m, _BatchNorm) or _has_statistics(m)]
    return [layer for layer in layers if not is_frozen(layer) and not isinstance(layer, _InstanceNorm)]


def has_trained_statistics(network: nn.Module) -> bool:
    """Whether some running mean is not 0 or some running variance not 1, their values in a new network."""
    return any(
        bool((buffer != (1.0 if name == "running_var" else 0.0)).any())
        for layer in _find_statistics_layers(network)
        for name, buffer in layer.named_buffers(recurse=False)
        if name in STATISTICS
    )


def _find_statistics_layers(network: nn.Module) -> Iterator[nn.Module]:
    return (module for module in network.modules() if _has_statistics(module))


def _has_statistics(module: nn.Module) -> bool:
    return any(name in STATISTICS for name, _ in module.named_buffers(recurse=False))


def _frozen_class(kind: type[nn.Module]) -> type[nn.Module]:
    """`kind` with frozen statistics; one class for all layers of a kind."""
    if kind not in _FROZEN_CLASSES:
        _FROZEN_CLASSES[kind] = type(f"{kind.__name__}WithFrozenStatistics", (FrozenStatistics, kind), {"__module__": __name__})
    return _FROZEN_CLASSES[kind]


_FROZEN_CLASSES: dict[type[nn.Module], type[nn.Module]] = {}
