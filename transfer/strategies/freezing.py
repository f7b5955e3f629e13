"""What a phase freezes: parameters without gradients, and modules that stay in evaluation mode while the others train."""

from collections.abc import Iterator

from torch import nn

from encoders.zoo.batchnorm import list_statistics_layers
from transfer.strategies.contract import Phase


def set_trainable(backbone: nn.Module, phase: Phase) -> list[nn.Module]:
    """Sets which parameters have gradients, and returns the modules that `set_training_mode` keeps in evaluation mode.

    A module whose parameters are all frozen is kept whole: its BatchNorm keeps its statistics, and neither its dropout nor its drop path
    is active."""
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(name in phase.trained)
    frozen = list(_find_frozen(backbone))
    return frozen if phase.statistics else [*frozen, *list_statistics_layers(backbone)]


def _find_frozen(module: nn.Module) -> Iterator[nn.Module]:
    """The largest modules that have parameters, and none that is trained; what has none follows the module that contains it."""
    trained = [parameter.requires_grad for parameter in module.parameters()]
    if trained and not any(trained):
        yield module
    elif trained:
        for child in module.children():
            yield from _find_frozen(child)


def set_training_mode(network: nn.Module, kept: list[nn.Module]) -> None:
    """The network in training mode, except the modules that are kept in evaluation mode."""
    network.train()
    for module in kept:
        module.eval()


def count_trained(network: nn.Module) -> int:
    """The number of values in parameters with gradients."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
