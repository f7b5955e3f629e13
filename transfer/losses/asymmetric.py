"""Asymmetric loss for labels: easy negatives count less than easy positives.  Source: Ridnik et al. 2021, arXiv:2009.14119, eq. 4 to 7.

L+ = (1 - p)^gamma+ log(p) for positives, L- = p_m^gamma- log(1 - p_m) for negatives, with p_m = max(p - margin, 0).

Shapes: B images, C labels.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from transfer.losses.supervised import mean_known, split_known

LEAST_PROBABILITY = 1e-8  # in logarithms, as in the authors' code


def asymmetric_loss(logits: Tensor, y: Tensor, positive_gamma: float, negative_gamma: float, margin: float) -> Tensor:
    """The mean over known labels (nats). logits, y: (B, C), NaN = unknown."""
    logits, y, known = split_known(logits, y)
    positive = torch.exp(positive_gamma * F.logsigmoid(-logits)) * F.logsigmoid(logits)
    shifted = (torch.sigmoid(logits) - margin).clamp(min=0)
    negative = shifted**negative_gamma * torch.log((1 - shifted).clamp(min=LEAST_PROBABILITY))
    return mean_known(-(y * positive + (1 - y) * negative), known)
