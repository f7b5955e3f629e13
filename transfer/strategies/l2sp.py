"""`l2sp=W`: everything, with the penalty W / 2 |w - w_start|^2 on the backbone in place of its weight decay.

Source: Li et al. 2018, arXiv:1802.01483, eq. 2. The head keeps the weight decay of the optimizer, which stands for their second term.
"""

import torch
from torch import Tensor, nn

from transfer.strategies.contract import Strategy


class DecayToStart(Strategy):
    """weight: alpha of the paper."""

    decays_to_zero = False

    def __init__(self, weight: float):
        self.weight, self.start = weight, list[Tensor]()

    def prepare(self, backbone: nn.Module) -> None:
        """Keeps a copy of the trainable weights."""
        self.start = [p.detach().clone() for p in backbone.parameters() if p.requires_grad]

    def penalty(self, backbone: nn.Module) -> Tensor:
        moved = torch._foreach_sub([p for p in backbone.parameters() if p.requires_grad], self.start)
        return 0.5 * self.weight * torch.stack([step.float().square().sum() for step in moved]).sum()
