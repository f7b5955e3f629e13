"""The network of an encoder with its head, as it is kept: images to logits.

Shapes: M images, C classes.
"""

import torch
from torch import nn

from encoders.runtime.arithmetic import without_tf32
from encoders.runtime.arrays import FloatArray
from encoders.zoo.card import Card
from encoders.zoo.head import HeadWeights
from encoders.zoo.tta_settings import TtaSettings
from transfer.protocols.common import ImageSet
from transfer.protocols.finetune_network import FinetuneNetwork
from transfer.protocols.predict_images import predict_logits


def build_head_network(backbone: nn.Module, card: Card, head: HeadWeights) -> FinetuneNetwork:
    """The backbone with the head, in evaluation mode. The head takes features as they are: it was folded."""
    network = FinetuneNetwork(backbone, card.dim, len(head.bias))
    with torch.no_grad():
        network.head.weight.copy_(head.weight)
        network.head.bias.copy_(head.bias)
    return network.eval()


def predict_with_head(network: FinetuneNetwork, images: ImageSet, workers: int = 0, tta: TtaSettings | None = None) -> FloatArray:
    """(M, C) logits, computed in fp32: their mean over the views of `tta`, if there are any."""
    with without_tf32():
        logits: FloatArray = predict_logits(network.eval(), images, workers, tta).numpy()
    return logits
