"""Focal loss: images that are already right count less.  Source: Lin et al. 2017, arXiv:1708.02002, eq. 4 and 5.

FL = -alpha_t (1 - p_t)^gamma log(p_t), where p_t is the probability of the true class: a sigmoid for each label, a softmax over classes.

Shapes: B images, C labels or classes.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from transfer.losses.supervised import mean_known, split_known


def focal_loss(logits: Tensor, y: Tensor, kind: str, gamma: float, alpha: float | None) -> Tensor:
    """The mean over known labels (nats). logits, y: (B, C), NaN = unknown.  alpha: of positives, for labels only."""
    logits, y, known = split_known(logits, y)
    if kind == "multiclass":
        log_p = F.log_softmax(logits, dim=1).gather(1, y.argmax(dim=1, keepdim=True)).squeeze(1)  # (B,)
        wrong = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)  # 1 - p_t
        return mean_known(-(wrong**gamma) * log_p, known.all(dim=1))
    sign = 2 * y - 1
    loss = -torch.exp(gamma * F.logsigmoid(-sign * logits)) * F.logsigmoid(sign * logits)  # (B, C)
    if alpha is not None:
        loss = loss * (alpha * y + (1 - alpha) * (1 - y))
    return mean_known(loss, known)
