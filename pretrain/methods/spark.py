"""SparK: hide patches from a CNN, reconstruct their pixels.

Source: Tian et al. 2023 (arXiv:2301.03580), section 3, and keyu-tian/SparK, pretrain/spark.py and decoder.py. The encoder sees the visible
patches only (pretrain/methods/masked_cnn.py); a patch is as large as the stride of the last feature map. The map of each scale is
densified: hidden positions get a mask embedding, and a convolution projects the map to the width of the decoder. A light UNet adds the maps
from coarse to fine. The loss is the mean squared error on the hidden patches, each normalised by its own mean and variance.

Departures:
- The published optimizer is LAMB; the recipes use AdamW.
- A network with several maps of one stride (dilated: `output_stride`) gives the last of them, a DenseNet the outputs of its dense blocks.
- ConvNeXt densifies with a LayerNorm of the channels, as in the authors' code. Its norm behind the pooling is not trained.

The exported encoder is the plain timm network. Its BatchNorm statistics are those of the visible positions.

Views are normalised by the encoder's preprocessing; "pixels" below are in that unit.

Shapes: B images, C channels, H x W pixels, N patches in a grid of h x w, K visible, M hidden (N = K + M), p side of a patch, D width of a
map, E width of the decoder.
"""

from itertools import pairwise

import torch
from pydantic import Field
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from encoders.augment.config import Augment
from encoders.augment.masks import Masks, RandomTokens, TokenSubset
from encoders.runtime.config import Config
from encoders.runtime.errors import InputError
from encoders.zoo.batchnorm import list_statistics_layers
from pretrain.methods.mae import masked_mse, patch_mean_and_std
from pretrain.methods.masked_cnn import MaskedCNN, behind_maps, cut_visible, paste_visible
from pretrain.methods.method import DataShape, Method, Traits
from pretrain.methods.vit_tokens import gather_tokens, patchify, unpatchify


class SparKConfig(Config):
    """SparK, published values."""

    mask_ratio: float = Field(0.6, gt=0, lt=1, description="fraction of the patches that is hidden")
    decoder_width: int = Field(
        768, gt=0, description="width of the decoder at its coarsest map; half of it at each finer one, down to the pixels"
    )


class SparK(Method):
    """A CNN (exported), what densifies its maps, and a decoder; the last two are discarded."""

    Config = SparKConfig
    cfg: SparKConfig
    summary = "SparK: hide patches from a CNN, reconstruct their pixels."
    traits = Traits(
        networks="CNN",
        passes_with_grad=1,
        passes_without_grad=0,
        needs="a ResNet, DenseNet or ConvNeXt and long runs (hundreds of epochs); 4 x 4 patches or more, as large as the stride (32 px)",
        when_to_choose="a CNN that will be fine-tuned; little augmentation to tune; low k-NN accuracy",
    )

    def __init__(self, cfg: SparKConfig, backbone: nn.Module, data: DataShape):
        super().__init__(cfg, backbone, data)
        self.backbone = backbone
        self.masked = MaskedCNN(backbone, data.size)
        self.grid: tuple[int, int] = self.masked.grid
        self.patch_side = self.masked.patch_side
        self.n_visible = count_visible(self.grid, cfg.mask_ratio, self.patch_side)
        for part in behind_maps(backbone):
            part.requires_grad_(False)
        norm = nn.BatchNorm2d if list_statistics_layers(backbone) else LayerNorm2d
        widths = decoder_widths(cfg.decoder_width, self.patch_side)
        self.densify = nn.ModuleDict()  # by stride
        for stride, width in zip(self.masked.strides, self.masked.widths, strict=True):
            self.densify[str(stride)] = Densify(width, widths[self.patch_side // stride], norm, coarsest=stride == self.patch_side)
        self.decoder = nn.ModuleList(unet_block(a, b) for a, b in pairwise(widths.values()))
        self.pixels = nn.Conv2d(widths[self.patch_side], data.channels, 1)
        for module in (self.decoder, self.pixels):
            module.apply(init_decoder)

    @property
    def given_patch_statistics(self) -> bool:
        return True

    def views(self, augment: Augment) -> list[Augment]:
        """One view."""
        return [augment]

    def mask_spec(self) -> RandomTokens:
        n_patches = self.grid[0] * self.grid[1]
        return RandomTokens(tokens=n_patches, ratio=1 - self.n_visible / n_patches)

    def forward(
        self, views: list[Tensor], masks: list[Masks] | None, progress: float, patient_ids: Tensor | None = None
    ) -> dict[str, Tensor]:
        """views: one (B, C, H, W).  masks: one, of the patches, row by row."""
        assert masks is not None  # `mask_spec` asks for them
        subset = masks[0]
        assert isinstance(subset, TokenSubset)  # `mask_spec` draws it
        predicted = gather_tokens(patchify(self.predict(views[0], subset), self.patch_side), subset.masked)  # (B, M, p * p * C)
        target = gather_tokens(patchify(views[0], self.patch_side), subset.masked)
        return {"loss": masked_mse(predicted, target, norm_pix=True)}

    def predict(self, images: Tensor, subset: TokenSubset) -> Tensor:
        """Pixels of all patches, normalised patch by patch: (B, C, H, W) -> (B, C, H, W)."""
        maps = dict(zip(self.masked.strides, self.masked.maps(images, subset), strict=True))
        stride, x = self.patch_side, None
        for block in self.decoder:
            if stride in maps:
                dense = self.densify[str(stride)](maps[stride], subset.keep, self.grid)  # (B, E, H / stride, W / stride)
                x = dense if x is None else x + dense
            x, stride = block(x), stride // 2
        pixels: Tensor = self.pixels(x)
        return pixels

    def after_backward(self, progress: float) -> None:
        """The network is timm's again, also where gradient checkpointing ran it a second time."""
        self.masked.end()

    @torch.no_grad()
    def reconstruct(self, views: list[Tensor], masks: list[Masks]) -> tuple[Tensor, Tensor, Tensor]:
        """Masked input (hidden patches 0), reconstruction (hidden patches predicted, visible ones unchanged), target: (B, C, H, W) each.

        In the unit of the views: the normalisation of each patch is undone with the target's own mean and standard deviation. The caller
        undoes the encoder's mean and std."""
        subset = masks[0]
        assert isinstance(subset, TokenSubset)
        target = patchify(views[0].float(), self.patch_side)  # (B, N, p * p * C)
        mean, std = patch_mean_and_std(target)
        predicted = patchify(self.predict(views[0], subset).float(), self.patch_side) * std + mean
        hidden = subset.hidden[..., None]  # (B, N, 1)
        shown, rebuilt = target.masked_fill(hidden, 0.0), torch.where(hidden, predicted, target)
        picture, reconstruction, original = (unpatchify(x, self.patch_side, self.grid[0]) for x in (shown, rebuilt, target))
        return picture, reconstruction, original

    def encoder(self) -> nn.Module:
        return self.backbone

    def notes(self, data: DataShape) -> list[str]:
        n_patches = self.grid[0] * self.grid[1]
        if n_patches >= 16:
            return []
        advice = f"size={4 * self.patch_side}, or model_args.output_stride for a ResNet"
        return [f"{n_patches} patches of {self.patch_side} px; 16 or more are advised: {advice}"]


class Densify(nn.Module):
    """A sparse map -> a dense one of the decoder's width."""

    def __init__(self, width: int, decoder_width: int, norm: type[nn.Module], coarsest: bool):
        """norm: of the visible positions.  coarsest: whether it is the last map of the network."""
        super().__init__()
        self.norm = norm(width)
        self.mask_embedding = nn.Parameter(torch.empty(1, width, 1, 1))
        nn.init.trunc_normal_(self.mask_embedding, std=0.02, a=-0.02, b=0.02)
        self.project = (
            nn.Identity() if coarsest and width == decoder_width else nn.Conv2d(width, decoder_width, 1 if coarsest else 3, padding="same")
        )

    def forward(self, x: Tensor, keep: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, D, H', W') of a stride -> (B, E, H', W'). Values at hidden positions are not read."""
        visible = self.norm(cut_visible(x, keep, grid))  # (B * K, D, p', q')
        dense: Tensor = self.project(paste_visible(visible, keep, self.mask_embedding, grid))
        return dense


def count_visible(grid: tuple[int, int], mask_ratio: float, patch_side: int) -> int:
    """K, rounded to the nearest as in the authors' code; MAE rounds down.

    Raises InputError unless some patches are visible and some hidden."""
    n_patches = grid[0] * grid[1]
    visible = round(n_patches * (1 - mask_ratio))
    if not 0 < visible < n_patches:
        raise InputError(
            f"method.mask_ratio={mask_ratio} shows {visible} of {n_patches} patches of {patch_side} px; use size={4 * patch_side} or more, "
            "or a ResNet with model_args.output_stride=16 or 8"
        )
    return visible


def decoder_widths(width: int, patch_side: int) -> dict[int, int]:
    """Width of the decoder by enlargement: `width` at 1, half of it at 2, and so on up to `patch_side`, where the pixels are.

    Raises InputError unless `width` is a multiple of `patch_side`."""
    if width % patch_side:
        raise InputError(
            f"method.decoder_width={width} must be a multiple of {patch_side}, the side of a patch: it is halved up to the pixels"
        )
    return {2**i: width // 2**i for i in range(patch_side.bit_length())}  # strides of CNNs are powers of 2


def unet_block(width: int, out: int) -> nn.Sequential:
    """Twice the resolution: (B, width, H, W) -> (B, out, 2 H, 2 W)."""
    return nn.Sequential(
        nn.ConvTranspose2d(width, width, 4, stride=2, padding=1),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU6(inplace=True),
        nn.Conv2d(width, out, 3, padding=1, bias=False),
        nn.BatchNorm2d(out),
    )


def init_decoder(module: nn.Module) -> None:
    """Weights of one layer as in the authors' decoder."""
    if isinstance(module, nn.ConvTranspose2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
