"""Grad-CAM++.  Source: Chattopadhyay et al. 2018 (arXiv:1710.11063), eq. 9 and 19, for the exponential of the logit.

Its derivatives are powers of the gradient times the exponential, which is one positive factor per image and is left out.
"""

import torch
from torch import Tensor

from transfer.explain.contract import EvidenceMaps, Method, enlarge_maps
from transfer.explain.feature_map import FeatureMap, differentiate_map
from transfer.protocols.finetune_network import FinetuneNetwork


def weigh_by_positive_gradient(features: FeatureMap) -> Tensor:
    """(B, h, w): the maps summed with weights from their positive gradients, before the ReLU.  features: (B, D, h, w) each."""
    a, g = features
    square, cube = g**2, g**3
    below = 2 * square + cube * a.sum((2, 3), keepdim=True)
    alpha = torch.where(below != 0, square / torch.where(below != 0, below, 1.0), 0.0)  # (B, D, h, w); 0 where the gradient is 0
    weight = (alpha * g.clamp(min=0)).sum((2, 3), keepdim=True)
    return (weight * a).sum(1)


def explain_gradcam_plus_plus(network: FinetuneNetwork, x: Tensor, label: Tensor) -> EvidenceMaps:
    """See the contract."""
    return enlarge_maps(weigh_by_positive_gradient(differentiate_map(network, x, label)), x.shape[-1])


GRADCAM_PLUS_PLUS = Method("gradcam++", "Grad-CAM++", "Chattopadhyay et al. 2018, arXiv:1710.11063", "map", explain_gradcam_plus_plus)
