"""SimMIM: replace random squares of the input by a mask token, predict their raw pixels with one linear layer.

Source: Xie et al. 2022 (arXiv:2111.09886), section 3; microsoft/SimMIM, models/simmim.py. The encoder sees all positions: a learned mask
token stands for the embedding of each hidden patch. The loss is the mean absolute error (L1) of the hidden pixels, not normalised.

Departures: timm's ViT has the fixed sine-cosine position table instead of a relative position bias shared by the blocks, and no layer
scale. Tokens have no weight decay. A network that would pool by its class token, which no loss reaches, pools by the mean of its patches,
as the authors do in fine-tuning. An encoder with pretrained weights (`data.pretrained`) keeps them and its position table.

Views are normalised by the encoder's preprocessing; "pixels" below are in that unit.

Shapes: B images, C channels, H x W pixels, N patches, P prefix tokens, p side of a patch, D width.
"""

import torch
from pydantic import Field
from torch import Tensor, nn

from encoders.augment.config import Augment
from encoders.augment.masks import HidesTokens, Masks
from encoders.augment.square_masks import RandomSquares
from encoders.runtime.config import Config
from encoders.runtime.errors import InputError
from pretrain.methods.method import DataShape, Method, Traits
from pretrain.methods.positions import freeze_sincos_positions
from pretrain.methods.precision import full_precision
from pretrain.methods.vit_tokens import encode_tokens, init_truncated, patchify, require_vit, unpatchify


class SimMIMConfig(Config):
    """SimMIM, published values."""

    mask_size: int = Field(32, gt=0, description="side of a hidden square, pixels: a multiple of the network's patch")
    mask_ratio: float = Field(0.6, gt=0, lt=1, description="fraction of the squares that is hidden")


@full_precision
def masked_l1(predicted: Tensor, target: Tensor, hidden: Tensor) -> Tensor:
    """Mean absolute error over the pixels of hidden patches.

    predicted, target: (B, N, p * p * C).  hidden: (B, N) bool.  Returns a scalar."""
    error = (predicted - target).abs().mean(dim=-1)  # (B, N)
    return (error * hidden).sum() / hidden.sum()


class SimMIM(Method):
    """A timm ViT (exported), a mask token and a linear head."""

    Config = SimMIMConfig
    cfg: SimMIMConfig
    summary = "SimMIM: replace random squares of the input by a mask token, predict their raw pixels with one linear layer."
    traits = Traits(
        networks="ViT",
        passes_with_grad=1,
        passes_without_grad=0,
        needs="a ViT and long runs (hundreds of epochs); any batch; all patches pass the encoder (MAE: a quarter)",
        when_to_choose="a ViT that will be fine-tuned, without a decoder to choose; costs more per step than MAE",
    )
    plain_vit_only = True
    pools_patches = True

    def __init__(self, cfg: SimMIMConfig, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data)
        self.vit = require_vit(backbone, "simmim")
        self.grid: tuple[int, int] = self.vit.patch_embed.grid_size  # rows and columns of patches
        self.patch_side = self.vit.patch_embed.patch_size[0]
        check_squares(cfg.mask_size, self.patch_side, data.size)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, self.vit.embed_dim))
        nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.04, b=0.04)
        self.pixels = nn.Linear(self.vit.embed_dim, self.patch_side**2 * data.channels)
        if not data.pretrained:
            init_truncated(self.vit)
            freeze_sincos_positions(self.vit)

    @property
    def given_patch_statistics(self) -> bool:
        return False

    def views(self, augment: Augment) -> list[Augment]:
        """One view."""
        return [augment]

    def mask_spec(self) -> RandomSquares:
        rows, columns = self.grid
        return RandomSquares(rows=rows, columns=columns, side=self.cfg.mask_size // self.patch_side, ratio=self.cfg.mask_ratio)

    def forward(
        self, views: list[Tensor], masks: list[Masks] | None, progress: float, patient_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """views: one (B, C, H, W).  masks: one with `hidden` (B, N)."""
        hidden = hidden_patches(masks)
        predicted = self.predict(views[0], hidden)  # (B, N, p * p * C)
        return {"loss": masked_l1(predicted, patchify(views[0], self.patch_side), hidden)}

    def predict(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Pixels of all patches, (B, N, p * p * C), from an input without the patches `hidden` (B, N)."""
        tokens = self.vit.patch_embed(images)  # (B, N, D), or (B, rows, columns, D) with dynamic_img_size
        at = hidden.view(tokens.shape[:-1])[..., None]
        tokens = torch.where(at, self.mask_token.to(tokens.dtype).view(-1), tokens)
        codes = encode_tokens(self.vit, self.vit._pos_embed(tokens))  # (B, P + N, D)
        pixels: Tensor = self.pixels(codes[:, self.vit.num_prefix_tokens :])
        return pixels

    @torch.no_grad()
    def reconstruct(self, views: list[Tensor], masks: list[Masks]) -> tuple[Tensor, Tensor, Tensor]:
        """Masked input (hidden patches 0), reconstruction (hidden patches predicted, visible ones unchanged), target: (B, C, H, W) each.

        In the unit of the views."""
        hidden = hidden_patches(masks)
        target = patchify(views[0].float(), self.patch_side)  # (B, N, p * p * C)
        predicted, at = self.predict(views[0], hidden).float(), hidden[..., None]
        pictures = target.masked_fill(at, 0.0), torch.where(at, predicted, target), target
        masked, reconstruction, whole = (unpatchify(patches, self.patch_side, self.grid[0]) for patches in pictures)
        return masked, reconstruction, whole

    def encoder(self) -> nn.Module:
        return self.vit


def hidden_patches(masks: list[Masks] | None) -> Tensor:
    """(B, N) true for the patches of the first view that its mask hides."""
    assert masks is not None, "`mask_spec` asks for them"
    assert isinstance(masks[0], HidesTokens)
    return masks[0].hidden


def check_squares(mask_size: int, patch: int, size: int) -> None:
    """Raises InputError unless the squares are made of whole patches and tile the view."""
    if mask_size % patch or size % mask_size:
        fits = [side for side in range(patch, size + 1, patch) if size % side == 0]
        nearest = min(fits, key=lambda side: abs(side - mask_size))
        raise InputError(
            f"method.mask_size={mask_size}: expected a multiple of the network's patch of {patch} pixels that divides the view of {size} "
            f"pixels; choose method.mask_size={nearest}"
        )
