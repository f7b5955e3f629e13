"""VICReg: views agree, each feature varies, no two features covary.

Source: Bardes et al. 2021 (arXiv:2105.04906), equations 1 to 6, algorithm 1.

Departure from the paper, as in the authors' code: the variance term is the mean, not the sum, over the two views.

Shapes: B images, C channels, H height, W width, D width of the embedding.
"""

from einops import einsum
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from encoders.augment.config import Augment
from encoders.augment.masks import Masks
from encoders.augment.presets import byol_views
from encoders.runtime import dist
from encoders.runtime.config import Config
from encoders.zoo.backbone import feature_dim
from pretrain.methods.method import DataShape, Method, Traits
from pretrain.methods.networks import mlp
from pretrain.methods.precision import full_precision

STD_EPS = 1e-4  # added to the variance, published: the gradient of its root stays finite for a constant feature


class VICRegConfig(Config):
    """VICReg, published values."""

    dim: int = Field(8192, gt=1, description="width of the expander's three layers")
    invariance: float = Field(25.0, ge=0, description="weight lambda of the distance between views")
    variance: float = Field(25.0, ge=0, description="weight mu of the hinge on standard deviations")
    covariance: float = Field(1.0, ge=0, description="weight nu of the off-diagonal covariances")


@full_precision
def vicreg_terms(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Invariance, variance and covariance terms, unweighted.  a, b: (B, D), two views of the same rows.  Returns three scalars."""
    return F.mse_loss(a, b), (variance_loss(a) + variance_loss(b)) / 2, covariance_loss(a) + covariance_loss(b)


def variance_loss(x: Tensor) -> Tensor:
    """Mean over features of how far the standard deviation (with B - 1) falls below 1."""
    return F.relu(1 - (x.var(dim=0) + STD_EPS).sqrt()).mean()


def covariance_loss(x: Tensor) -> Tensor:
    """Sum of the squared off-diagonal covariances (with B - 1), divided by D."""
    centred = x - x.mean(dim=0)
    c = einsum(centred, centred, "n i, n j -> i j") / (len(x) - 1)  # (D, D)
    return (c.square().sum() - c.diagonal().square().sum()) / x.shape[1]


class VICReg(Method):
    """Encoder (exported) and a wide expander."""

    Config = VICRegConfig
    cfg: VICRegConfig
    summary = "VICReg: views agree, each feature varies, no two features covary."
    traits = Traits(
        networks="CNN, ViT",
        passes_with_grad=2,
        passes_without_grad=0,
        needs="128 or more images per micro-batch (a covariance over them); an expander of 8192 x 3 has 150 M weights: lower `dim`",
        when_to_choose="as Barlow Twins; its three terms in the log tell what collapses",
    )

    def __init__(self, cfg: VICRegConfig, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data)
        self.backbone = backbone
        self.expander = mlp([feature_dim(backbone), cfg.dim, cfg.dim, cfg.dim], last_bias=False)

    @property
    def loss_head(self) -> nn.Module:
        return self.expander

    def views(self, augment: Augment) -> list[Augment]:
        """BYOL's two different views."""
        return byol_views(augment)

    def forward(
        self, views: list[Tensor], masks: list[Masks] | None, progress: float, patient_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """views: two (B, C, H, W) batches, two crops of the same B images."""
        a, b = (dist.gather(self.expander(self.backbone(v))) for v in views)  # (B, D) each
        invariance, variance, covariance = vicreg_terms(a, b)
        loss = self.cfg.invariance * invariance + self.cfg.variance * variance + self.cfg.covariance * covariance
        return {"loss": loss, "invariance": invariance, "variance": variance, "covariance": covariance}

    def encoder(self) -> nn.Module:
        return self.backbone
