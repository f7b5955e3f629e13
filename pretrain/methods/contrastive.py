"""What methods share that compare the views of a batch by a projection head: SimCLR and SupCon. Settings and losses are their own.

Shapes: B images, C channels, H height, W width, D width of the embedding.
"""

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from encoders.zoo.backbone import feature_dim
from pretrain.methods.method import DataShape, Method
from pretrain.methods.networks import mlp
from pretrain.methods.precision import l2_normalize


class ContrastiveMethod(Method):
    """Encoder (exported) and a head that is discarded. The negatives are the other images of the micro-batch (of all ranks)."""

    has_negatives = True

    def __init__(
        self, cfg: BaseModel, backbone: nn.Module, data: DataShape, dim: int, hidden: int | None, layers: int, exclude_same_patient: bool
    ):
        """dim: D.  hidden: width of the hidden layers of the head, None: that of the features.  layers: of the head."""
        super().__init__(cfg, backbone, data)
        self.backbone, self.exclude_same_patient = backbone, exclude_same_patient
        width = feature_dim(backbone)
        self.head = mlp([width, *[hidden or width] * (layers - 1), dim], last_norm=True)

    @property
    def loss_head(self) -> nn.Module:
        return self.head

    def needs_patients(self) -> bool:
        return self.exclude_same_patient

    def embed_views(self, views: list[Tensor]) -> tuple[Tensor, Tensor]:
        """(B, D) unit rows of each of two views.

        views: two (B, C, H, W) batches; they share BatchNorm statistics, as in SimCLR's code."""
        a, b = l2_normalize(self.head(self.backbone(torch.cat(views)))).chunk(2)
        return a, b

    def encoder(self) -> nn.Module:
        return self.backbone
