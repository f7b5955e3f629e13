"""`last=N`: the head and the last N blocks of a transformer, or stages of a CNN, with the norm after them."""

from torch import nn

from encoders.runtime.errors import InputError
from transfer.strategies.contract import Phase, Strategy, list_trainable
from transfer.strategies.units import list_units


class LastBlocks(Strategy):
    """count: how many blocks or stages are trained."""

    def __init__(self, count: int):
        self.count = count

    def phases(self, backbone: nn.Module, unused: frozenset[str]) -> list[Phase]:
        """One phase. Raises InputError if the network has no more blocks than `count`, so that none would be frozen."""
        units = list_units(backbone, unused)
        if self.count >= len(units):
            raise InputError(
                f"finetune.last.count is {self.count}, and the network has {len(units) - 1} blocks or stages above its stem; choose at "
                f"most {len(units) - 1}, or strategy full"
            )
        return [Phase("", 1.0, frozenset[str]().union(*units[: self.count]) & list_trainable(backbone))]
