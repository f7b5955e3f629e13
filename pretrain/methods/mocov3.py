"""MoCo v3: tell the other view of an image from the other images of the batch, with a slow copy and a predictor; for CNN and ViT.

Source: Chen, Xie, He 2021 (arXiv:2104.02057), algorithm 1 and section 4; facebookresearch/moco-v3 for the heads.

A ViT's patch embedding stays as it starts (their cure for unstable training) and its position table is the fixed sine-cosine one.

Departures: the EMA momentum is scaled to the batch, m ** (B / 4096), so that the slow copy lags by as many images. A ViT that comes with
weights worth keeping keeps its position table too. A fresh one starts as timm makes it.

Shapes: B images, D width of the embedding.
"""

from typing import Any

import torch
from einops import einsum
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.augment.config import Augment
from encoders.augment.presets import byol_views
from encoders.runtime import dist
from encoders.runtime.config import Config
from pretrain.methods.common import (
    DataShape,
    Method,
    Traits,
    cosine_momentum,
    ema_,
    feature_dim,
    frozen_copy,
    full_precision,
    l2_normalize,
    mask_same_patient,
    mlp,
    scaled_momentum,
)
from pretrain.methods.positions import freeze_sincos_positions

MOCOV3_PUBLISHED_BATCH = 4096


class MoCoV3Config(Config):
    """MoCo v3, published values."""

    dim: int = Field(256, gt=1, description="width of the embedding")
    hidden: int = Field(4096, gt=0, description="hidden width of projector and predictor")
    momentum: float = Field(0.99, ge=0, le=1, description="EMA at the start, at batch 4096; 1 at the end (0.996 for 1000 epochs)")
    scale_momentum: bool = Field(True, description="use momentum ** (batch / 4096)")
    temperature: float | None = Field(None, gt=0, description="the similarities are divided by it; null: 0.2 for a ViT, 1.0 for a CNN")
    exclude_same_patient: bool = Field(False, description="other images of the same patient are no negatives (by `patient` of the store)")


@full_precision
def contrastive_loss(q: Tensor, k: Tensor, temperature: float, patients: Tensor | None = None) -> Tensor:
    """2 T times the cross-entropy (nats) of picking `k[i]` for `q[i]` among all keys.

    q, k: (B, D) unit rows.  patients: (B,) whose; keys of one are then no negatives of each other.  Returns a scalar."""
    similar = einsum(q, k, "b d, n d -> b n") / temperature
    own = torch.arange(len(q), device=q.device)
    return 2 * temperature * F.cross_entropy(mask_same_patient(similar, patients, patients, own), own)


class MoCoV3(Method):
    """Query encoder (exported) with projector and predictor; key encoder with projector."""

    Config = MoCoV3Config
    traits = Traits(
        takes="CNN, ViT",
        trained=2,
        untrained=2,
        needs="a batch of 256 and more, in one piece: its keys are the negatives; a second encoder in memory",
        choose="a ViT, when all of a large batch fits into the GPUs",
    )

    def __init__(self, cfg: MoCoV3Config, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data)
        is_vit = isinstance(backbone, VisionTransformer)
        if isinstance(backbone, VisionTransformer):
            backbone.patch_embed.requires_grad_(False)
            if not data.pretrained:
                freeze_sincos_positions(backbone)
        self.backbone = backbone
        self.temperature = cfg.temperature or (0.2 if is_vit else 1.0)
        self.projector = mlp([feature_dim(backbone), *[cfg.hidden] * (2 if is_vit else 1), cfg.dim], last_norm=True)
        self.predictor = mlp([cfg.dim, cfg.hidden, cfg.dim], last_norm=is_vit, last_bias=False)
        self.key = frozen_copy(nn.Sequential(backbone, self.projector))

    def views(self, augment: Augment) -> list[Augment]:
        """BYOL's two unlike views."""
        return byol_views(augment)

    def forward(self, views: list[Tensor], masks: Any, progress: float, patients: Tensor | None = None) -> dict[str, Tensor]:
        """views: two (B, C, H, W) batches, two crops of the same B images."""
        qa, qb = (dist.gather(l2_normalize(self.predictor(self.projector(self.backbone(v))))) for v in views)  # (B, D) each
        with torch.no_grad():
            ka, kb = (dist.gather(l2_normalize(self.key(v))) for v in views)  # (B, D) each
        who = None if patients is None else dist.gather(patients)
        return {"loss": contrastive_loss(qa, kb, self.temperature, who) + contrastive_loss(qb, ka, self.temperature, who)}

    def after_step(self, progress: float) -> None:
        """The key encoder follows the query encoder."""
        ema_(self.key, nn.Sequential(self.backbone, self.projector), self.momentum(progress))

    def momentum(self, progress: float) -> float:
        m = cosine_momentum(self.cfg.momentum, progress)
        return scaled_momentum(m, self.data.batch, MOCOV3_PUBLISHED_BATCH) if self.cfg.scale_momentum else m

    def encoder(self) -> nn.Module:
        return self.backbone

    def notes(self, data: DataShape) -> list[str]:
        if self.momentum(0.0) == self.cfg.momentum:
            return []
        return [f"EMA momentum {self.cfg.momentum} -> {self.momentum(0.0):.6f} at batch {data.batch}: the lag in images of batch 4096"]
