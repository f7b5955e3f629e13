"""LeJEPA: views agree with the mean of the global ones, and the embeddings of each view follow a standard normal distribution.

Source: Balestriero and LeCun 2025 (arXiv:2511.08544), algorithms 1 and 2, equation 10 (Epps-Pulley); galilai-group/lejepa README.md and
MINIMAL.md for the values.

The second term (SIGReg) projects the embeddings on random directions, the slices. For each it compares the empirical characteristic
function with that of N(0, 1). Nothing else prevents collapse: there is no teacher, no queue and no stopped gradient.

Departures:
- The integral runs over [-3, 3] (the authors' later code; the paper's algorithm has [-5, 5]); it is even, so half of it is counted twice.
- The slices are a function of (a number drawn with the weights, progress): equal on all ranks and micro-batches, and after a resume.
- Local crops keep the published proportion, 98 to 224 pixels, rounded to whole patches. The default is none: two global views.

Shapes: B images, C channels, H height, W width, V views, D width of the embedding, S slices, T knots.
"""

import torch
from einops import einsum
from pydantic import Field
from torch import Tensor, nn

from encoders.augment.config import Augment
from encoders.augment.masks import Masks
from encoders.augment.presets import local_view
from encoders.runtime import dist
from encoders.runtime.config import Config
from encoders.zoo.backbone import feature_dim
from pretrain.methods.method import DataShape, Method, Traits
from pretrain.methods.networks import local_crop_pixels, mlp, require_dynamic_image_size
from pretrain.methods.precision import full_precision
from pretrain.methods.slices import draw_slices


class LeJEPAConfig(Config):
    """LeJEPA, published values."""

    dim: int = Field(64, gt=1, description="width of the embedding (16 to 512 in the paper; of little effect)")
    hidden: int = Field(2048, gt=0, description="width of the projector's two hidden layers")
    weight: float = Field(0.05, gt=0, lt=1, description="lambda: weight of SIGReg; 1 - lambda is that of agreement (0.01 to 0.1 work)")
    slices: int = Field(1024, gt=0, description="random directions per step")
    knots: int = Field(17, gt=1, description="points of the integral over [0, t_max]")
    t_max: float = Field(3.0, gt=0, description="end of the integral: a higher value compares finer detail, and is noisier")
    n_local: int = Field(0, ge=0, description="local crops per image (6 for ImageNet)")
    local_size: int | None = Field(None, gt=0, description="side of a local crop, pixels; null: 98 / 224 of the view")
    local_crop: tuple[float, float] = Field((0.05, 0.3), description="area of a local crop as a fraction of the image")


@full_precision
def invariance_loss(views: Tensor, n_global: int) -> Tensor:
    """Mean squared distance of all views from the mean of the first `n_global`.  views: (V, B, D).  Returns a scalar."""
    return (views - views[:n_global].mean(dim=0)).square().mean()


@full_precision
def sigreg(x: Tensor, directions: Tensor, knots: int, t_max: float) -> Tensor:
    """Epps-Pulley distance of B embeddings from N(0, I), mean over the directions:

    B times the integral of |mean exp(i t x) - exp(-t^2 / 2)|^2 exp(-t^2 / 2) over [-t_max, t_max], by the trapezoidal rule.

    x: (B, D).  directions: (D, S), columns of length 1.  Returns a scalar."""
    t = torch.linspace(0, t_max, knots, dtype=x.dtype, device=x.device)
    normal = torch.exp(-t.square() / 2)  # both the characteristic function of N(0, 1) and the weight
    angle = einsum(x, directions.to(x.dtype), "b d, d s -> b s")[..., None] * t  # (B, S, T)
    error = (angle.cos().mean(dim=0) - normal).square() + angle.sin().mean(dim=0).square()  # (S, T)
    return 2 * len(x) * torch.trapezoid(error * normal, t, dim=-1).mean()


class LeJEPA(Method):
    """Encoder (exported) and projector."""

    Config = LeJEPAConfig
    cfg: LeJEPAConfig
    summary = "LeJEPA: views agree with the mean of the global ones, and the embeddings of each view follow a standard normal distribution."
    traits = Traits(
        networks="CNN, ViT",
        passes_with_grad=2,
        passes_without_grad=0,
        needs="128 or more images per micro-batch (SIGReg compares distributions); local crops add small passes with gradients",
        when_to_choose="one weight to tune, no second encoder; a collapse shows in the loss itself",
    )

    def __init__(self, cfg: LeJEPAConfig, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data)
        if cfg.n_local:
            require_dynamic_image_size(backbone, "lejepa")
        self.backbone = backbone
        self.projector = mlp([feature_dim(backbone), cfg.hidden, cfg.hidden, cfg.dim])
        self.slice_seed = int(torch.randint(2**62, ()))  # equal on all ranks, as the weights are

    @property
    def loss_head(self) -> nn.Module:
        return self.projector

    def views(self, augment: Augment) -> list[Augment]:
        """Two equal global views, then the local ones."""
        side = local_crop_pixels(self.backbone, self.cfg.local_size or self.data.size * 98 / 224)
        return [augment, augment] + [local_view(augment, side, self.cfg.local_crop)] * self.cfg.n_local

    def forward(
        self, views: list[Tensor], masks: list[Masks] | None, progress: float, patient_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """views: two global (B, C, H, W) batches, then local ones (B, C, h, w)."""
        parts = [self.projector(self.backbone(torch.cat(part))) for part in (views[:2], views[2:]) if part]
        z = torch.stack([dist.gather(view) for view in torch.cat(parts).chunk(len(views))])  # (V, B * ranks, D)
        invariance = invariance_loss(z, n_global=2)
        directions = self.directions(progress).to(z.device, non_blocking=True)
        gaussianity = torch.stack([sigreg(view, directions, self.cfg.knots, self.cfg.t_max) for view in z]).mean()
        loss = (1 - self.cfg.weight) * invariance + self.cfg.weight * gaussianity
        return {"loss": loss, "agreement": invariance, "sigreg": gaussianity}

    def directions(self, progress: float) -> Tensor:
        """The slices of a step: (D, S), columns of length 1, on the CPU."""
        scalar = torch.as_tensor(progress, dtype=torch.float64)
        directions: Tensor = draw_slices(scalar, self.slice_seed, self.cfg.dim, self.cfg.slices)
        return directions

    def get_extra_state(self) -> Tensor:
        """The seed of the slices. It is no buffer, because to read one the host would wait for the device."""
        return torch.tensor(self.slice_seed)

    def set_extra_state(self, state: Tensor) -> None:
        """Restores the seed of the slices."""
        self.slice_seed = int(state)

    def encoder(self) -> nn.Module:
        return self.backbone

    def notes(self, data: DataShape) -> list[str]:
        together = data.batch // data.accumulate
        return [f"{together} images at once: SIGReg compares distributions, 128 or more are advised"] if together < 128 else []
