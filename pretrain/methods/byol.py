"""BYOL: predict a slow copy's projection of another view; no negatives.

Source: Grill et al. 2020 (arXiv:2006.07733), equations 2 and 3, appendices B and J.

An online network (encoder, projector, predictor) predicts the projection of a target network (encoder, projector) that follows it by EMA.

Departure: the published EMA momentum, 1 - (1 - m)(cos(pi t) + 1) / 2, is then scaled to the batch, ** (B / 4096), so that the target lags
behind by the same number of images. The target runs in train mode with BatchNorm statistics of its own, as published.

Shapes: B images, C channels, H height, W width, D width of the projection.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from encoders.augment.config import Augment
from encoders.augment.masks import Masks
from encoders.augment.presets import byol_views
from encoders.runtime.config import Config
from encoders.zoo.backbone import feature_dim
from pretrain.methods.ema import cosine_momentum, ema_, scaled_momentum
from pretrain.methods.method import DataShape, Method, Traits
from pretrain.methods.networks import frozen_copy, mlp
from pretrain.methods.precision import full_precision, l2_normalize

BYOL_PUBLISHED_BATCH = 4096


class BYOLConfig(Config):
    """BYOL, published values."""

    dim: int = Field(256, gt=1, description="width of projection and prediction")
    hidden: int = Field(4096, gt=0, description="hidden width of projector and predictor")
    momentum: float = Field(0.996, ge=0, le=1, description="EMA momentum at the start, at batch 4096; 1 at the end (0.99 for 300 epochs)")
    scale_momentum: bool = Field(True, description="use momentum ** (batch / 4096)")


@full_precision
def byol_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared distance of unit vectors, 2 - 2 cosine, in [0, 4].  prediction, target: (B, D), any length.  Returns a scalar."""
    return (l2_normalize(prediction) - l2_normalize(target)).square().sum(dim=-1).mean()


class BYOL(Method):
    """Online encoder (exported), target network."""

    Config = BYOLConfig
    cfg: BYOLConfig
    summary = "BYOL: predict a slow copy's projection of another view; no negatives."
    traits = Traits(
        networks="CNN, ViT",
        passes_with_grad=2,
        passes_without_grad=2,
        needs="BatchNorm in its heads, so 32 or more images per micro-batch; a second encoder in memory",
        when_to_choose="images that resemble each other (one patient, one organ): no image is pushed away as a negative",
    )

    def __init__(self, cfg: BYOLConfig, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data)
        self.backbone = backbone
        self.projector = mlp([feature_dim(backbone), cfg.hidden, cfg.dim], last_bias=False)
        self.predictor = mlp([cfg.dim, cfg.hidden, cfg.dim], last_bias=False)
        self.target = frozen_copy(nn.Sequential(backbone, self.projector))

    @property
    def loss_head(self) -> nn.Module:
        return self.projector

    @property
    def slow_network(self) -> nn.Module:
        return self.target

    def views(self, augment: Augment) -> list[Augment]:
        """Two different views: one always blurred; one seldom blurred and sometimes solarised."""
        return byol_views(augment)

    def forward(
        self, views: list[Tensor], masks: list[Masks] | None, progress: float, patient_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """views: two (B, C, H, W) batches, two crops of the same B images."""
        a, b = (self.predictor(self.projector(self.backbone(v))) for v in views)  # (B, D) each
        with torch.no_grad():
            target_a, target_b = (self.target(v) for v in views)  # (B, D) each
        return {"loss": byol_loss(a, target_b) + byol_loss(b, target_a)}

    def after_step(self, progress: float) -> None:
        """The target follows the online network."""
        ema_(self.target, nn.Sequential(self.backbone, self.projector), self.momentum(progress))

    def momentum(self, progress: float) -> float:
        m = cosine_momentum(self.cfg.momentum, progress)
        return scaled_momentum(m, self.data.batch, BYOL_PUBLISHED_BATCH) if self.cfg.scale_momentum else m

    def encoder(self) -> nn.Module:
        return self.backbone

    def notes(self, data: DataShape) -> list[str]:
        if self.momentum(0.0) == self.cfg.momentum:
            return []
        return [f"EMA momentum {self.cfg.momentum} -> {self.momentum(0.0):.6f} at batch {data.batch}: the lag in images of batch 4096"]
