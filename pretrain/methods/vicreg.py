"""VICReg: views agree, each feature varies, no two features covary.

Source: Bardes et al. 2021 (arXiv:2105.04906), equations 1 to 6, algorithm 1.

Departure from the paper, with the authors' code: the variance term is the mean, not the sum, over the two views.

Shapes: B images, D width of the embedding.
"""

from typing import Any

from einops import einsum
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.augment.config import Augment
from encoders.augment.presets import byol_views
from encoders.runtime import dist
from encoders.runtime.config import Config
from pretrain.methods.common import DataShape, Method, Traits, feature_dim, full_precision, mlp

STD_EPS = 1e-4  # in the standard deviation, published: its gradient stays finite for a constant feature


class VICRegConfig(Config):
    """VICReg, published values."""

    dim: int = Field(8192, gt=1, description="width of the expander's three layers")
    invariance: float = Field(25.0, ge=0, description="weight lambda of the distance between views")
    variance: float = Field(25.0, ge=0, description="weight mu of the hinge on standard deviations")
    covariance: float = Field(1.0, ge=0, description="weight nu of the off-diagonal covariances")


@full_precision
def vicreg_terms(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Invariance, variance and covariance terms, unweighted.  a, b: (B, D), two views of the same rows.  Returns three scalars."""
    invariance = F.mse_loss(a, b)
    variance = sum(F.relu(1 - (x.var(dim=0) + STD_EPS).sqrt()).mean() for x in (a, b)) / 2
    return invariance, variance, covariance_loss(a) + covariance_loss(b)  # type: ignore[return-value]


def covariance_loss(x: Tensor) -> Tensor:
    """Sum of the squared off-diagonal covariances (with B - 1), divided by D."""
    centred = x - x.mean(dim=0)
    c = einsum(centred, centred, "n i, n j -> i j") / (len(x) - 1)  # (D, D)
    return (c.square().sum() - c.diagonal().square().sum()) / x.shape[1]


class VICReg(Method):
    """Encoder (exported) and a wide expander."""

    Config = VICRegConfig
    traits = Traits(
        takes="CNN, ViT",
        trained=2,
        untrained=0,
        needs="128 and more images a micro-batch (a covariance over them); an expander of 8192 x 3 has 150 M weights: lower `dim`",
        choose="as Barlow Twins; its three terms in the log say what collapses",
    )

    def __init__(self, cfg: VICRegConfig, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data)
        self.backbone = backbone
        self.expander = mlp([feature_dim(backbone), cfg.dim, cfg.dim, cfg.dim], last_bias=False)

    def views(self, augment: Augment) -> list[Augment]:
        """BYOL's two unlike views."""
        return byol_views(augment)

    def forward(self, views: list[Tensor], masks: Any, progress: float) -> dict[str, Tensor]:
        """views: two (B, C, H, W) batches, two crops of the same B images."""
        a, b = (dist.gather(self.expander(self.backbone(v))) for v in views)  # (B, D) each
        agree, vary, covary = vicreg_terms(a, b)
        loss = self.cfg.invariance * agree + self.cfg.variance * vary + self.cfg.covariance * covary
        return {"loss": loss, "invariance": agree, "variance": vary, "covariance": covary}

    def encoder(self) -> nn.Module:
        return self.backbone
