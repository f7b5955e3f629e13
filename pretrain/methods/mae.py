"""MAE: hide most patches, reconstruct their pixels.

Source: He et al. 2021 (arXiv:2111.06377), section 3. The encoder sees the visible patches only. A small decoder sees their codes and a
mask token in every hidden position. The loss is the mean squared error on the hidden patches, each normalised by its own mean and
variance.

Departures: class, mask and register tokens have no weight decay; the computation is otherwise identical. The encoder is any timm
`VisionTransformer` (any size, patch, channels; class and register tokens are never hidden). Its position table is the fixed
sine-cosine one and its weights start as published. An encoder with pretrained weights (`data.pretrained`) keeps them and its position
table, which stays trainable if it was trainable before.

Views are normalised by the encoder's preprocessing; "pixels" below are in that unit.

Shapes: B images, C channels, H x W pixels, N patches, K kept, M hidden (N = K + M), P prefix tokens, p side of a patch, D encoder width,
E decoder width.
"""

import torch
from einops import reduce, repeat
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from encoders.augment.config import Augment
from encoders.augment.masks import Masks, RandomTokens
from encoders.runtime.config import Config
from pretrain.methods.method import DataShape, Method, Traits
from pretrain.methods.param_groups import ParamGroup, build_param_groups
from pretrain.methods.positions import freeze_sincos_positions, sincos_2d
from pretrain.methods.precision import full_precision
from pretrain.methods.vit_tokens import build_blocks, encode_visible, gather_tokens, patchify, require_vit, unpatchify

PATCH_VARIANCE_EPS = 1e-6  # added to the variance of a patch's pixels, as in the authors' code: that of a flat patch is 0


class MAEConfig(Config):
    """MAE, published values for ViT-B and larger; `decoder_depth: 2` for ViT-S (arXiv:2210.12843)."""

    mask_ratio: float = Field(
        0.75, gt=0, lt=1, description="fraction of the patches that is hidden (0.90 for radiographs: arXiv:2210.12843)"
    )
    decoder_width: int = Field(512, gt=0, description="width of the decoder, a multiple of 4 and of its heads")
    decoder_depth: int = Field(8, gt=0, description="blocks of the decoder")
    decoder_heads: int = Field(16, gt=0, description="attention heads of the decoder")
    norm_pix_loss: bool = Field(True, description="targets are pixels normalised patch by patch")


def patch_mean_and_std(target: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (with N - 1) of the pixels of each patch: (B, M, p * p * C) -> (B, M, 1) twice."""
    return target.mean(-1, keepdim=True), (target.var(-1, keepdim=True) + PATCH_VARIANCE_EPS).sqrt()


@full_precision
def masked_mse(predicted: Tensor, target: Tensor, norm_pix: bool) -> Tensor:
    """Mean squared error over hidden patches.  predicted, target: (B, M, p * p * C).  Returns a scalar."""
    if norm_pix:
        mean, std = patch_mean_and_std(target)
        target = (target - mean) / std
    return reduce((predicted - target) ** 2, "b m d -> ()", "mean").squeeze()


class MAE(Method):
    """A timm ViT (exported) and a decoder that is discarded."""

    Config = MAEConfig
    cfg: MAEConfig
    summary = "MAE: hide most patches, reconstruct their pixels."
    traits = Traits(
        networks="ViT",
        passes_with_grad=1,
        passes_without_grad=0,
        needs="a ViT and long runs (hundreds of epochs); three quarters of the patches are skipped; any batch",
        when_to_choose="a ViT that will be fine-tuned; cheapest per step, little augmentation to tune; low k-NN accuracy",
    )
    plain_vit_only = True

    def __init__(self, cfg: MAEConfig, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data)
        self.vit, self.channels = require_vit(backbone, "mae"), data.channels
        self.grid: tuple[int, int] = self.vit.patch_embed.grid_size  # rows and columns of patches
        self.patch_side = self.vit.patch_embed.patch_size[0]
        self.prefix = self.vit.num_prefix_tokens
        self.decoder = MAEDecoder(cfg, self.vit.embed_dim, self.grid, self.prefix, self.patch_side**2 * data.channels)
        self.decoder.apply(init_xavier)
        if not data.pretrained:
            init_published_weights(self.vit)

    @property
    def given_patch_statistics(self) -> bool:
        return self.cfg.norm_pix_loss

    def views(self, augment: Augment) -> list[Augment]:
        """One view."""
        return [augment]

    def mask_spec(self) -> RandomTokens:
        return RandomTokens(tokens=self.grid[0] * self.grid[1], ratio=self.cfg.mask_ratio)

    def forward(
        self, views: list[Tensor], masks: list[Masks] | None, progress: float, patient_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """views: one (B, C, H, W).  masks: one (keep (B, K), masked (B, M))."""
        assert masks is not None  # `mask_spec` asks for them
        keep, masked = masks[0]
        predicted = self.decoder(self.encode(views[0], keep), keep)  # (B, N, p * p * C)
        target = gather_tokens(patchify(views[0], self.patch_side), masked)  # (B, M, p * p * C)
        return {"loss": masked_mse(gather_tokens(predicted, masked), target, self.cfg.norm_pix_loss)}

    def encode(self, images: Tensor, keep: Tensor) -> Tensor:
        """Codes of the prefix tokens and the visible patches: (B, P + K, D). With all patches kept, timm's `forward_features`."""
        return encode_visible(self.vit, images, keep)

    @torch.no_grad()
    def reconstruct(self, views: list[Tensor], masks: list[Masks]) -> tuple[Tensor, Tensor, Tensor]:
        """Masked input (hidden patches 0), reconstruction (hidden patches predicted, visible ones unchanged), target: (B, C, H, W) each.

        In the unit of the views: the normalisation of each patch is undone with the target's own mean and standard deviation, as in the
        authors' demonstration. The caller undoes the encoder's mean and std."""
        keep, masked = masks[0]
        target = patchify(views[0].float(), self.patch_side)  # (B, N, p * p * C)
        predicted = self.decoder(self.encode(views[0], keep), keep).float()
        if self.cfg.norm_pix_loss:
            mean, std = patch_mean_and_std(target)
            predicted = predicted * std + mean
        hidden = torch.zeros(target.shape[:2], device=target.device).scatter_(1, masked, 1.0)[..., None]  # (B, N, 1)
        visible = target * (1 - hidden)
        return self.to_image(visible), self.to_image(visible + predicted * hidden), self.to_image(target)

    def to_image(self, patches: Tensor) -> Tensor:
        """(B, N, p * p * C) -> (B, C, H, W)."""
        return unpatchify(patches, self.patch_side, self.grid[0])

    def param_groups(self) -> list[ParamGroup]:
        return build_param_groups(self.vit, self.decoder)

    def encoder(self) -> nn.Module:
        return self.vit


class MAEDecoder(nn.Module):
    """Codes of the visible patches -> pixels of all patches."""

    def __init__(self, cfg: MAEConfig, width: int, grid: tuple[int, int], prefix: int, pixels: int):
        super().__init__()
        self.prefix, dim = prefix, cfg.decoder_width
        self.embed = nn.Linear(width, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        nn.init.normal_(self.mask_token, std=0.02)
        self.positions: Tensor
        self.register_buffer("positions", sincos_2d(dim, grid), persistent=False)  # (1, N, E), fixed
        self.blocks = build_blocks(dim, cfg.decoder_heads, cfg.decoder_depth)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pixels = nn.Linear(dim, pixels)

    def forward(self, codes: Tensor, keep: Tensor) -> Tensor:
        """codes: (B, P + K, D).  keep: (B, K).  Returns (B, N, p * p * C)."""
        x = self.embed(codes)  # (B, P + K, E)
        prefix, visible = x[:, : self.prefix], x[:, self.prefix :]
        everywhere = self.mask_token.to(x.dtype).expand(len(x), self.positions.shape[1], -1)
        full = everywhere.scatter(1, repeat(keep, "b k -> b k e", e=x.shape[-1]), visible) + self.positions  # (B, N, E)
        x = self.norm(self.blocks(torch.cat([prefix, full], dim=1)))
        pixels: Tensor = self.pixels(x[:, self.prefix :])
        return pixels


def init_published_weights(vit: VisionTransformer) -> None:
    """Xavier-uniform linear layers (the patch embedding as one), tokens from N(0, 0.02), the fixed sine-cosine position table."""
    vit.apply(init_xavier)
    kernel = vit.patch_embed.proj.weight.data
    nn.init.xavier_uniform_(kernel.view(len(kernel), -1))
    for token in (vit.cls_token, vit.reg_token):
        if token is not None:
            nn.init.normal_(token, std=0.02)
    freeze_sincos_positions(vit)


def init_xavier(module: nn.Module) -> None:
    """Weights of one layer as in MAE and the official ViT: Xavier-uniform matrices, zero biases, norms at the identity."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm) and module.elementwise_affine:
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
