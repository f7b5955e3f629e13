"""`gradual`: the head, then one more block or stage at a time, from the top; at last everything.

Source: Howard and Ruder 2018 (ULMFiT), arXiv:1801.06146, sec. 3.3: the last layer for an epoch, then the next lower one as well, until all
layers are trained to convergence at the last iteration. Departure: phases are shares of the steps, as thirty labeled images have no useful
epochs; one learning rate schedule covers all phases, as the slanted triangular one does there.
"""

from torch import nn

from transfer.strategies.contract import Phase, Strategy, list_trainable
from transfer.strategies.units import list_units


class GradualUnfreezing(Strategy):
    """share: of the steps before everything is trained."""

    def __init__(self, share: float):
        self.share = share

    def phases(self, backbone: nn.Module, unused: frozenset[str]) -> list[Phase]:
        units, trainable = list_units(backbone, unused), list_trainable(backbone)
        partial = len(units)  # the head, and one phase for each unit but the last, which is the stem
        opened = [frozenset[str]().union(*units[:i]) & trainable for i in range(partial)]
        phases = [Phase(f"last {i}" if i else "head", self.share * (i + 1) / partial, names) for i, names in enumerate(opened)]
        return [*phases, Phase("all", 1.0, trainable)]
