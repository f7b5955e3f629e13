"""The network that fine-tuning trains, its averaged weights, and its scores.

Shapes: B images of a step, M images to score, C labels or classes.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from encoders.runtime.arithmetic import without_tf32
from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.moving_average import move_average
from encoders.zoo import backbone
from encoders.zoo.encoder import EncoderInput
from encoders.zoo.tta_settings import TtaSettings
from transfer.protocols.common import ImageSet
from transfer.protocols.logistic import logits_to_probabilities
from transfer.protocols.predict_images import predict_logits


class FinetuneNetwork(nn.Module):
    """Backbone and linear head: maps images (B, K, S, S), or one input per part, to logits (B, C)."""

    def __init__(self, model: nn.Module, width: int, outputs: int, normalised: int = 0, dropout: float = 0.0):
        """normalised: the features consist of that many vectors of norm 1; they are scaled to a mean square of 1 for the head.

        dropout: share of the features that are zero in training, before the head."""
        super().__init__()
        self.dropout = dropout  # no module: a strategy that freezes the backbone keeps it
        self.backbone, self.head = model, nn.Linear(width, outputs)
        self.scale = math.sqrt(width / normalised) if normalised else 1.0
        nn.init.trunc_normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: EncoderInput) -> Tensor:
        features: Tensor = self.backbone(x) if isinstance(x, tuple) else backbone.pooled_features(self.backbone, x)
        features = F.dropout(features, self.dropout, self.training) if self.dropout else features
        logits: Tensor = self.head(features * self.scale if self.scale != 1 else features)
        return logits


def update_ema(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Moves the averaged weights and BatchNorm statistics towards those of the model; counters are copied."""
    move_average(average.state_dict(), model.state_dict(), decay)


def copy_state(network: nn.Module) -> dict[str, Tensor]:
    """A copy of all tensors. `.cpu()` alone would alias the live weights on a CPU."""
    return {name: value.detach().clone() for name, value in network.state_dict().items()}


def predict_images(
    network: FinetuneNetwork, images: ImageSet, class_offset: Array, kind: str, workers: int = 0, tta: TtaSettings | None = None
) -> FloatArray:
    """(M, C) probabilities with the deterministic preprocessing of the card, of the views of `tta`; the network computes in fp32."""
    network.eval()
    with without_tf32():
        logits = predict_logits(network, images, workers, tta)
    return logits_to_probabilities(logits.numpy() - class_offset, kind)
