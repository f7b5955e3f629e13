"""SimSiam: predict the projection of another view, with a stopped gradient; no negatives, no slow copy.

Source: Chen and He 2020 (arXiv:2011.10566), algorithm 1, section 4 and appendix A.

Departures: none. Weight decay on all parameters and a predictor without schedule, as published.

Shapes: B images, C channels, H height, W width, D width of the projection.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from encoders.augment.masks import Masks
from encoders.runtime.config import Config
from encoders.zoo.backbone import feature_dim
from pretrain.methods.method import DataShape, Method, Traits
from pretrain.methods.networks import mlp
from pretrain.methods.param_groups import ParamGroup, build_param_groups
from pretrain.methods.precision import full_precision, l2_normalize


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
    cfg: SimSiamConfig
    summary = "SimSiam: predict the projection of another view, with a stopped gradient; no negatives, no slow copy."
    traits = Traits(
        networks="CNN, ViT",
        passes_with_grad=2,
        passes_without_grad=0,
        needs="BatchNorm in its heads, so 32 or more images per micro-batch; monitor `spread`",
        when_to_choose="least memory without negatives; short runs on a CNN",
    )

    def __init__(self, cfg: SimSiamConfig, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data)
        self.backbone = backbone
        self.projector = mlp([feature_dim(backbone), cfg.dim, cfg.dim, cfg.dim], last_norm=True)
        self.predictor = mlp([cfg.dim, cfg.bottleneck, cfg.dim])

    @property
    def loss_head(self) -> nn.Module:
        return self.projector

    def forward(
        self, views: list[Tensor], masks: list[Masks] | None, progress: float, patient_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """views: two (B, C, H, W) batches, two crops of the same B images."""
        a, b = (self.projector(self.backbone(v)) for v in views)  # (B, D) each
        loss = (negative_cosine_similarity(self.predictor(a), b) + negative_cosine_similarity(self.predictor(b), a)) / 2
        with torch.no_grad():  # 1 if the directions cover the sphere evenly, 0 if they have collapsed: figure 2 of the paper
            spread = l2_normalize(a).std(dim=0).mean() * a.shape[1] ** 0.5
        return {"loss": loss, "spread": spread}

    def param_groups(self) -> list[ParamGroup]:
        """The predictor keeps its peak learning rate."""
        return build_param_groups(self.backbone, self.projector, decay="all", name="encoder") + build_param_groups(
            self.predictor, decay="all", name="predictor", fixed_lr=True
        )

    def encoder(self) -> nn.Module:
        return self.backbone
