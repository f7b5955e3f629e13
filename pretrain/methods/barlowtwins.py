"""Barlow Twins: make each feature of two views correlate with itself and with no other feature.

Source: Zbontar et al. 2021 (arXiv:2103.03230), equation 1, algorithm 1, appendix A.

Departures: none in one process. With several ranks the correlation is over all rows at once (the authors average the matrices of the
ranks).

Shapes: B images, C channels, H height, W width, D width of the embedding.
"""

from einops import einsum
from pydantic import Field
from torch import Tensor, nn

from encoders.augment.config import Augment
from encoders.augment.masks import Masks
from encoders.augment.presets import byol_views
from encoders.runtime import dist
from encoders.runtime.config import Config
from encoders.zoo.backbone import feature_dim
from pretrain.methods.method import DataShape, Method, Traits
from pretrain.methods.networks import mlp
from pretrain.methods.param_groups import ParamGroup, build_param_groups
from pretrain.methods.precision import full_precision

STANDARDISE_EPS = 1e-5  # that of BatchNorm, with which the authors standardise


class BarlowTwinsConfig(Config):
    """Barlow Twins, published values."""

    dim: int = Field(8192, gt=1, description="width of the projector's three layers; wide is better, also for small encoders")
    redundancy: float = Field(0.0051, gt=0, description="weight lambda of the off-diagonal terms")
    vector_lr: float = Field(0.024, gt=0, description="learning rate of biases and norms, relative to that of the weights (.0048 / .2)")


@full_precision
def barlow_twins_loss(a: Tensor, b: Tensor, redundancy: float) -> Tensor:
    """Squared distance of the cross-correlation matrix from the identity, off-diagonal terms times `redundancy`.

    a, b: (B, D), two views of the same rows.  Returns a scalar."""
    c = einsum(standardise_columns(a), standardise_columns(b), "n i, n j -> i j") / len(a)  # (D, D)
    on = c.diagonal()
    return (1 - on).square().sum() + redundancy * (c.square().sum() - on.square().sum())


def standardise_columns(x: Tensor) -> Tensor:
    """Columns with mean 0 and variance 1 over the batch."""
    return (x - x.mean(dim=0)) / (x.var(dim=0, unbiased=False) + STANDARDISE_EPS).sqrt()


class BarlowTwins(Method):
    """Encoder (exported) and a wide projector."""

    Config = BarlowTwinsConfig
    cfg: BarlowTwinsConfig
    summary = "Barlow Twins: make each feature of two views correlate with itself and with no other feature."
    traits = Traits(
        networks="CNN, ViT",
        passes_with_grad=2,
        passes_without_grad=0,
        needs="128 or more images per micro-batch (a correlation over them); a projector of 8192 x 3 has 150 M weights: lower `dim`",
        when_to_choose="no negatives, no second encoder, no temperature; batches of 256",
    )

    def __init__(self, cfg: BarlowTwinsConfig, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data)
        self.backbone = backbone
        self.projector = mlp([feature_dim(backbone), cfg.dim, cfg.dim, cfg.dim], last_bias=False)

    @property
    def loss_head(self) -> nn.Module:
        return self.projector

    def views(self, augment: Augment) -> list[Augment]:
        """BYOL's two different views."""
        return byol_views(augment)

    def forward(
        self, views: list[Tensor], masks: list[Masks] | None, progress: float, patient_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """views: two (B, C, H, W) batches, two crops of the same B images."""
        a, b = (dist.gather(self.projector(self.backbone(v))) for v in views)  # (B, D) each
        return {"loss": barlow_twins_loss(a, b, self.cfg.redundancy)}

    def param_groups(self) -> list[ParamGroup]:
        """Biases and norms learn more slowly, without weight decay (and without LARS's rescaling)."""
        return build_param_groups(self.backbone, self.projector, vector_lr_scale=self.cfg.vector_lr)

    def encoder(self) -> nn.Module:
        return self.backbone

    def notes(self, data: DataShape) -> list[str]:
        return [f"batch {data.batch}: a correlation over so few images is noisy; 256 or more are advised"] if data.batch < 128 else []
