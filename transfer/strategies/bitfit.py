"""`bitfit`: the head and all biases, those of norms included.  Source: Ben Zaken et al. 2022, arXiv:2106.10199, sec. 3.

BatchNorm statistics are kept. The paper trains transformers; in a CNN without biases in its convolutions, the shifts of BatchNorm are
trained.
"""

from torch import nn

from transfer.strategies.contract import Phase, Strategy, list_trainable


class BiasOnly(Strategy):
    """Parameters called `bias` or `..._bias` are trained."""

    def phases(self, backbone: nn.Module, unused: frozenset[str]) -> list[Phase]:
        biases = frozenset(name for name in list_trainable(backbone) if name.rpartition(".")[2].endswith("bias"))
        return [Phase("", 1.0, biases, statistics=False)]
