"""`linear`: the head alone, on augmented images. The network is frozen whole: weights, BatchNorm statistics, drop path."""

from torch import nn

from transfer.strategies.contract import Phase, Strategy


class HeadOnly(Strategy):
    """head_lr: learning rate of the head, as a multiple of the base rate."""

    def __init__(self, head_lr: float):
        self.head_lr = head_lr

    def phases(self, backbone: nn.Module, unused: frozenset[str]) -> list[Phase]:
        return [head_phase(1.0, self.head_lr)]


def head_phase(end: float, head_lr: float) -> Phase:
    """The phase in which only the head is trained, up to `end`."""
    return Phase("head" if end < 1 else "", end, frozenset(), head_lr=head_lr)
