"""MoCo v3: distinguish the other view of an image from the other images of the batch, with a slow copy and a predictor.

Source: Chen, Xie, He 2021 (arXiv:2104.02057), algorithm 1 and section 4; facebookresearch/moco-v3 for the heads.

A ViT's patch embedding stays at its initial weights (the authors' remedy for unstable training) and its position table is the fixed
sine-cosine one.

Departures: the EMA momentum is scaled to the batch, m ** (B / 4096), so that the slow copy lags behind by the same number of images. A
ViT with pretrained weights keeps its position table. A new one is initialised as timm does.

Shapes: B images, C channels, H height, W width, D width of the embedding.
"""

import torch
from einops import einsum
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.augment.config import Augment
from encoders.augment.masks import Masks
from encoders.augment.presets import byol_views
from encoders.runtime import dist
from encoders.runtime.config import Config
from encoders.zoo.backbone import feature_dim
from pretrain.methods.ema import cosine_momentum, ema_, scaled_momentum
from pretrain.methods.method import DataShape, Method, Traits
from pretrain.methods.negatives import mask_same_patient
from pretrain.methods.networks import frozen_copy, mlp
from pretrain.methods.positions import freeze_sincos_positions
from pretrain.methods.precision import full_precision, l2_normalize

MOCOV3_PUBLISHED_BATCH = 4096


class MoCoV3Config(Config):
    """MoCo v3, published values."""

    dim: int = Field(256, gt=1, description="width of the embedding")
    hidden: int = Field(4096, gt=0, description="hidden width of projector and predictor")
    momentum: float = Field(0.99, ge=0, le=1, description="EMA momentum at the start, at batch 4096; 1 at the end (0.996 for 1000 epochs)")
    scale_momentum: bool = Field(True, description="use momentum ** (batch / 4096)")
    temperature: float | None = Field(None, gt=0, description="the similarities are divided by it; null: 0.2 for a ViT, 1.0 for a CNN")
    exclude_same_patient: bool = Field(
        False, description="do not use other images of the same patient as negatives (column `patient` of the store)"
    )


@full_precision
def contrastive_loss(q: Tensor, k: Tensor, temperature: float, patient_ids: Tensor | None = None) -> Tensor:
    """2 T times the cross-entropy (nats) of picking `k[i]` for `q[i]` among all keys.

    q, k: (B, D) unit rows.  patient_ids: (B,); other keys of the query's own patient are then left out.  Returns a scalar."""
    similarities = einsum(q, k, "b d, n d -> b n") / temperature
    own = torch.arange(len(q), device=q.device)
    return 2 * temperature * F.cross_entropy(mask_same_patient(similarities, patient_ids, patient_ids, own), own)


class MoCoV3(Method):
    """Query encoder (exported) with projector and predictor; key encoder with projector."""

    Config = MoCoV3Config
    cfg: MoCoV3Config
    summary = "MoCo v3: distinguish the other view of an image from the other images of the batch, with a slow copy and a predictor."
    traits = Traits(
        networks="CNN, ViT",
        passes_with_grad=2,
        passes_without_grad=2,
        needs="a batch of 256 or more, in one piece: its keys are the negatives; a second encoder in memory",
        when_to_choose="a ViT, when all of a large batch fits into the GPUs",
    )
    has_negatives = True

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

    @property
    def loss_head(self) -> nn.Module:
        return self.projector

    @property
    def slow_network(self) -> nn.Module:
        return self.key

    def needs_patients(self) -> bool:
        return self.cfg.exclude_same_patient

    def views(self, augment: Augment) -> list[Augment]:
        """BYOL's two different views."""
        return byol_views(augment)

    def forward(
        self, views: list[Tensor], masks: list[Masks] | None, progress: float, patient_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """views: two (B, C, H, W) batches, two crops of the same B images."""
        qa, qb = (dist.gather(l2_normalize(self.predictor(self.projector(self.backbone(v))))) for v in views)  # (B, D) each
        with torch.no_grad():
            ka, kb = (dist.gather(l2_normalize(self.key(v))) for v in views)  # (B, D) each
        all_ids = None if patient_ids is None else dist.gather(patient_ids)
        return {"loss": contrastive_loss(qa, kb, self.temperature, all_ids) + contrastive_loss(qb, ka, self.temperature, all_ids)}

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
