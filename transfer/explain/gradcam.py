"""Grad-CAM.  Source: Selvaraju et al. 2017 (arXiv:1610.02391), eq. 1 and 2."""

from torch import Tensor

from transfer.explain.contract import EvidenceMaps, Method, enlarge_maps
from transfer.explain.feature_map import FeatureMap, differentiate_map
from transfer.protocols.finetune_network import FinetuneNetwork


def weigh_by_mean_gradient(features: FeatureMap) -> Tensor:
    """(B, h, w): the maps summed with the mean of their gradient as weight, before the ReLU.  features: (B, D, h, w) each."""
    weight = features.gradient.mean((2, 3), keepdim=True)
    return (weight * features.activation).sum(1)


def explain_gradcam(network: FinetuneNetwork, x: Tensor, label: Tensor) -> EvidenceMaps:
    """See the contract."""
    return enlarge_maps(weigh_by_mean_gradient(differentiate_map(network, x, label)), x.shape[-1])


GRADCAM = Method("gradcam", "Grad-CAM", "Selvaraju et al. 2017, arXiv:1610.02391", "map", explain_gradcam)
