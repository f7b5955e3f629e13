"""SimSiam: predict one's own projection of another view, with a stopped gradient; no negatives, no slow copy.

Source: Chen and He 2020 (arXiv:2011.10566), algorithm 1, section 4 and appendix A.

Departures: none. Weight decay on all parameters and a predictor without schedule, as published.

Shapes: B images, D width of the projection.
"""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from encoders.runtime.config import Config
from pretrain.methods.common import (
    DataShape,
    Method,
    ParamGroup,
    Traits,
    build_param_groups,
    feature_dim,
    full_precision,
    l2_normalize,
    mlp,
)


class SimSiamConfig(Config):
    """SimSiam, published values."""

    dim: int = Field(2048, gt=1, description="width of the projection")
    bottleneck: int = Field(512, gt=0, description="hidden width of the predictor, a quarter of `dim`")


@full_precision
def negative_cosine_similarity(prediction: Tensor, projection: Tensor) -> Tensor:
    """Negative cosine, mean over the batch, in [-1, 1]; no gradient into `projection`.  Both (B, D), any length.  Returns a scalar."""
    return -(l2_normalize(prediction) * l2_normalize(projection.detach())).sum(dim=-1).mean()


class SimSiam(Method):
    """Encoder (exported), projector, predictor."""

    Config = SimSiamConfig
    traits = Traits(
        takes="CNN, ViT",
        trained=2,
        untrained=0,
        needs="BatchNorm in its heads, so 32 and more images a micro-batch; watch `spread`",
        choose="least memory without negatives; short runs on a CNN",
    )

    def __init__(self, cfg: SimSiamConfig, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data)
        self.backbone = backbone
        self.projector = mlp([feature_dim(backbone), cfg.dim, cfg.dim, cfg.dim], last_norm=True)
        self.predictor = mlp([cfg.dim, cfg.bottleneck, cfg.dim])

    def forward(self, views: list[Tensor], masks: Any, progress: float) -> dict[str, Tensor]:
        """views: two (B, C, H, W) batches, two crops of the same B images."""
        a, b = (self.projector(self.backbone(v)) for v in views)  # (B, D) each
        loss = (negative_cosine_similarity(self.predictor(a), b) + negative_cosine_similarity(self.predictor(b), a)) / 2
        with torch.no_grad():  # 1 when the directions spread over the sphere, 0 when they have collapsed: the paper's figure 2
            spread = l2_normalize(a).std(dim=0).mean() * a.shape[1] ** 0.5
        return {"loss": loss, "spread": spread}

    def param_groups(self) -> list[ParamGroup]:
        """The predictor keeps its peak learning rate."""
        return build_param_groups(self.backbone, self.projector, decay="all", name="encoder") + build_param_groups(
            self.predictor, decay="all", name="predictor", fixed_lr=True
        )

    def encoder(self) -> nn.Module:
        return self.backbone
