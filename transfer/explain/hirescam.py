"""HiResCAM.  Source: Draelos and Carin 2020 (arXiv:2011.08891), eq. 3.

With mean pooling and one linear layer the gradient is the same in every cell, and the map is that of Grad-CAM.
"""

from torch import Tensor

from transfer.explain.contract import EvidenceMaps, Method, enlarge_maps
from transfer.explain.feature_map import FeatureMap, differentiate_map
from transfer.protocols.finetune_network import FinetuneNetwork


def multiply_by_gradient(features: FeatureMap) -> Tensor:
    """(B, h, w): gradient times activation, summed over the maps, before the ReLU.  features: (B, D, h, w) each."""
    return (features.gradient * features.activation).sum(1)


def explain_hirescam(network: FinetuneNetwork, x: Tensor, label: Tensor) -> EvidenceMaps:
    """See the contract."""
    return enlarge_maps(multiply_by_gradient(differentiate_map(network, x, label)), x.shape[-1])


HIRESCAM = Method("hirescam", "HiResCAM", "Draelos and Carin 2020, arXiv:2011.08891", "map", explain_hirescam)
