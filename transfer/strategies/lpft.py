"""`lpft`: the head alone, then everything from the best weights of the head.  Source: Kumar et al. 2022, arXiv:2202.10054, sec. 3.4.

The first phase is the strategy `linear` with its share of the steps and validations. Departure: the paper chooses the learning rate of each
phase by a grid; here both follow from the settings, and the weights are the best of all validations, those of the first phase included.
"""

from torch import nn

from transfer.strategies.contract import Phase, Strategy, list_trainable
from transfer.strategies.linear import head_phase


class ProbeThenTune(Strategy):
    """share: of the steps in which only the head is trained.  head_lr: as in `HeadOnly`, in these steps."""

    def __init__(self, share: float, head_lr: float):
        self.share, self.head_lr = share, head_lr

    def phases(self, backbone: nn.Module, unused: frozenset[str]) -> list[Phase]:
        return [head_phase(self.share, self.head_lr), Phase("all", 1.0, list_trainable(backbone), restarts=True)]
