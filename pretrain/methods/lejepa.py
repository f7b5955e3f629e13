"""LeJEPA: views agree with the mean of the global ones, and the embeddings of each view are a standard normal cloud.

Source: Balestriero and LeCun 2025 (arXiv:2511.08544), algorithms 1 and 2, equation 10 (Epps-Pulley); galilai-group/lejepa README.md and
MINIMAL.md for the values.

The second term (SIGReg) looks at the embeddings along random directions, the slices. Along each it compares the empirical characteristic
function with that of N(0, 1); nothing else keeps the embeddings from collapsing: no teacher, no queue, no stopped gradient.

Departures:
- The integral runs over [-3, 3] (the authors' later code; the paper's algorithm has [-5, 5]); it is even, so half of it is taken twice.
- The slices are a function of (a number drawn with the weights, progress): equal on all ranks and micro-batches, and after a resume.
- Local crops keep the published proportion, 98 to 224 pixels, rounded to whole patches. The default is none: two global views.

Shapes: B images, V views, D width of the embedding, S slices, T knots.
"""

from typing import Any

import torch
from einops import einsum
from pydantic import Field
from torch import Tensor, nn

from encoders.augment.config import Augment
from encoders.augment.presets import local_view
from encoders.runtime import dist
from encoders.runtime.config import Config
from encoders.runtime.random import Purpose, generator
from pretrain.methods.common import (
    DataShape,
    Method,
    Traits,
    feature_dim,
    full_precision,
    local_crop_pixels,
    mlp,
    require_dynamic_image_size,
)


class LeJEPAConfig(Config):
    """LeJEPA, published values."""

    dim: int = Field(64, gt=1, description="width of the embedding (16 to 512 in the paper; hardly matters)")
    hidden: int = Field(2048, gt=0, description="width of the projector's two hidden layers")
    weight: float = Field(0.05, gt=0, lt=1, description="lambda: weight of SIGReg; 1 - lambda is that of agreement (0.01 to 0.1 work)")
    slices: int = Field(1024, gt=0, description="random directions a step")
    knots: int = Field(17, gt=1, description="points of the integral over [0, t_max]")
    t_max: float = Field(3.0, gt=0, description="end of the integral: higher looks at finer detail, and is noisier")
    n_local: int = Field(0, ge=0, description="local crops an image (6 for ImageNet)")
    local_size: int | None = Field(None, gt=0, description="pixels a side of a local crop; null: 98 / 224 of the view")
    local_crop: tuple[float, float] = Field((0.05, 0.3), description="area of a local crop as a share of the image")


@full_precision
def invariance_loss(views: Tensor, n_global: int) -> Tensor:
    """Mean squared distance of all views from the mean of the first `n_global`.  views: (V, B, D).  Returns a scalar."""
    return (views - views[:n_global].mean(dim=0)).square().mean()


@full_precision
def sigreg(x: Tensor, directions: Tensor, knots: int, t_max: float) -> Tensor:
    """Epps-Pulley distance of B embeddings from N(0, I), mean over the directions:

    B times the integral of |mean exp(i t x) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) over [-t_max, t_max], by trapezoids.

    x: (B, D).  directions: (D, S), columns of length 1.  Returns a scalar."""
    t = torch.linspace(0, t_max, knots, dtype=x.dtype, device=x.device)
    normal = torch.exp(-t.square() / 2)  # both the characteristic function of N(0, 1) and the weight
    angle = einsum(x, directions.to(x.dtype), "b d, d s -> b s")[..., None] * t  # (B, S, T)
    error = (angle.cos().mean(dim=0) - normal).square() + angle.sin().mean(dim=0).square()  # (S, T)
    return 2 * len(x) * torch.trapezoid(error * normal, t, dim=-1).mean()


class LeJEPA(Method):
    """Encoder (exported) and projector."""

    Config = LeJEPAConfig
    traits = Traits(
        takes="CNN, ViT",
        trained=2,
        untrained=0,
        needs="128 and more images a micro-batch (SIGReg compares distributions); local crops add small trained passes",
        choose="one weight to tune, no second encoder; a collapse shows in the loss itself",
    )

    def __init__(self, cfg: LeJEPAConfig, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data)
        if cfg.n_local:
            require_dynamic_image_size(backbone, "lejepa")
        self.backbone = backbone
        self.projector = mlp([feature_dim(backbone), cfg.hidden, cfg.hidden, cfg.dim])
        self.salt = int(torch.randint(2**62, ()))  # equal on all ranks, as the weights are

    def views(self, augment: Augment) -> list[Augment]:
        """Two global views alike, then the local ones."""
        side = local_crop_pixels(self.backbone, self.cfg.local_size or self.data.size * 98 / 224)
        return [augment, augment] + [local_view(augment, side, self.cfg.local_crop)] * self.cfg.n_local

    def forward(self, views: list[Tensor], masks: Any, progress: float) -> dict[str, Tensor]:
        """views: two global (B, C, H, W) batches, then local ones (B, C, h, w)."""
        parts = [self.projector(self.backbone(torch.cat(part))) for part in (views[:2], views[2:]) if part]
        z = torch.stack([dist.gather(one) for one in torch.cat(parts).chunk(len(views))])  # (V, B * ranks, D)
        near = invariance_loss(z, n_global=2)
        directions = self.directions(progress).to(z.device, non_blocking=True)
        normal = torch.stack([sigreg(one, directions, self.cfg.knots, self.cfg.t_max) for one in z]).mean()
        return {"loss": (1 - self.cfg.weight) * near + self.cfg.weight * normal, "agreement": near, "sigreg": normal}

    def directions(self, progress: float) -> Tensor:
        """The slices of a step: (D, S), columns of length 1, on the CPU."""
        drawn = generator(self.salt, Purpose.SLICES, *progress.as_integer_ratio()).standard_normal((self.cfg.dim, self.cfg.slices))
        columns = torch.from_numpy(drawn).float()
        return columns / columns.norm(dim=0)

    def get_extra_state(self) -> Tensor:
        """What a buffer would hold, but that reading it would make the host wait for the device."""
        return torch.tensor(self.salt)

    def set_extra_state(self, state: Tensor) -> None:
        self.salt = int(state)

    def encoder(self) -> nn.Module:
        return self.backbone

    def notes(self, data: DataShape) -> list[str]:
        together = data.batch // data.accumulate
        return [f"{together} images at once: SIGReg compares distributions, 128 or more are advised"] if together < 128 else []
