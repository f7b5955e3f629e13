"""A CNN that sees only the visible patches of its images: sparse convolution, computed with dense layers.

Source: Tian et al. 2023 (arXiv:2301.03580), section 3.1, and keyu-tian/SparK, pretrain/encoder.py. A position of a feature map is visible
if it lies in a visible patch; patches are the positions of the last map.

Hooks on the layers of a timm network do it, so that the network keeps its parameters, their names and, outside of `MaskedCNN.maps`, its
output:

- Layers that mix positions (convolutions wider than 1, pooling) receive 0 at the hidden positions. Visible positions are then those of a
  submanifold sparse convolution. In a pooling window hidden positions count as 0, as in the authors' code; behind a ReLU that is the
  maximum of the visible ones.
- BatchNorm receives the visible positions only: its statistics and running statistics are theirs, in `SyncBatchNorm` those of all ranks.
- All other layers compute each position alone. What they write to hidden positions is never read.

Shapes: B images, C channels, H x W positions of a map, N patches in a grid of h x w, K visible, p x q positions of a patch.
"""

import torch
from einops import rearrange, repeat
from timm.layers import GELU, BlurPool2d, DropPath, GELUTanh, Mlp
from timm.models.convnext import ConvNeXt, ConvNeXtBlock, ConvNeXtStage
from timm.models.densenet import DenseBlock, DenseLayer, DenseNet, DenseTransition
from timm.models.resnet import BasicBlock, Bottleneck, ResNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from encoders.augment.masks import TokenSubset
from encoders.runtime.errors import InputError

FAMILIES = (ResNet, DenseNet, ConvNeXt)
MIX_POSITIONS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, BlurPool2d)
POSITION_BY_POSITION = (
    *(nn.Linear, nn.LayerNorm, nn.Identity, nn.Dropout, DropPath),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.SiLU, nn.Hardswish, nn.Mish, nn.GELU, GELU, GELUTanh),
)
BLOCKS = (  # call their layers and add, concatenate or scale; blocks with a gate or attention also average over the map
    *(nn.Sequential, nn.ModuleList, BasicBlock, Bottleneck, DenseBlock, DenseLayer, DenseTransition, ConvNeXtBlock, ConvNeXtStage, Mlp),
)
HEADS = ("global_pool", "head", "fc", "classifier", "head_drop")  # behind the maps
FINEST_STRIDE = 4  # of the maps used; the stem's, at stride 2, is not


class MaskedCNN:
    """Feature maps of the visible patches."""

    def __init__(self, network: nn.Module, size: int):
        """network: a timm ResNet, DenseNet or ConvNeXt.  size: side of the images, pixels.

        Raises InputError for a network with layers that read hidden patches, and for a size that its stride does not divide."""
        check_layers(network)
        assert isinstance(network, FAMILIES)  # `check_layers` says so
        self.network = network
        infos = [(i, int(str(info["reduction"])), int(str(info["num_chs"]))) for i, info in enumerate(network.feature_info)]
        last_of_stride = {stride: (i, stride, width) for i, stride, width in infos if stride >= FINEST_STRIDE}
        self.used, self.strides, self.widths = zip(*(last_of_stride[s] for s in sorted(last_of_stride)), strict=True)
        self.patch_side: int = self.strides[-1]  # pixels
        if size % self.patch_side:
            below = size // self.patch_side * self.patch_side
            sides = f"{below} or {below + self.patch_side}" if below else f"{self.patch_side} or more"
            raise InputError(
                f"size={size} is no multiple of {self.patch_side}, the stride of the last map and the side of a patch; use {sides}"
            )
        self.grid = (size // self.patch_side, size // self.patch_side)  # (h, w)
        self.keep: Tensor | None = None  # (B, K), set while `maps` runs
        self.hidden: Tensor | None = None  # (B, N)
        network.register_forward_pre_hook(self._refuse_while_masked)
        for layer in network.modules():
            if isinstance(layer, _BatchNorm):
                layer.register_forward_pre_hook(self._before_batchnorm)
                layer.register_forward_hook(self._after_batchnorm)
            elif isinstance(layer, MIX_POSITIONS) and getattr(layer, "kernel_size", None) != (1, 1):
                layer.register_forward_pre_hook(self._hide)

    def maps(self, images: Tensor, masks: TokenSubset) -> list[Tensor]:
        """The last map of each stride from 4 on, finest first: (B, C, H / stride, W / stride) each. Hidden positions hold anything.

        images: (B, C, H, W)."""
        self.keep, self.hidden = masks.keep, masks.hidden
        try:
            maps = self.network.forward_intermediates(images, indices=list(self.used), intermediates_only=True)
        finally:
            if not (torch.is_grad_enabled() and self.recomputes):
                self.end()
        assert isinstance(maps, list)  # with `intermediates_only`
        return maps

    def end(self) -> None:
        """From here on the network computes what timm's does. With gradient checkpointing, call it after the backward pass."""
        self.keep = self.hidden = None

    @property
    def recomputes(self) -> bool:
        """Whether the network runs a second time in the backward pass."""
        return any(getattr(layer, "grad_checkpointing", False) for layer in self.network.modules())

    def _refuse_while_masked(self, network: nn.Module, inputs: tuple[Tensor]) -> None:
        """`maps` does not call the network itself: whoever does expects timm's output."""
        if self.keep is not None:
            raise InputError(
                "with checkpointing=true a masked CNN waits for its backward pass, and another loss wants its features before; leave out "
                "checkpointing or the other loss (auxiliary)"
            )

    def _hide(self, layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        """Zeros at the hidden positions."""
        if self.hidden is None:
            return None
        (x,), (h, w) = inputs, self.grid
        hidden = repeat(self.hidden, "b (h w) -> b 1 (h p) (w q)", h=h, p=x.shape[2] // h, q=x.shape[3] // w)
        return (x.masked_fill(hidden, 0.0),)

    def _before_batchnorm(self, layer: _BatchNorm, inputs: tuple[Tensor]) -> tuple[Tensor] | None:
        """(B, C, H, W) -> (B * K, C, p, q), where the layer normalises by its input."""
        if self.keep is None or not normalises_by_input(layer):
            return None
        return (cut_visible(inputs[0], self.keep, self.grid),)

    def _after_batchnorm(self, layer: _BatchNorm, inputs: tuple[Tensor], out: Tensor) -> Tensor | None:
        """(B * K, C, p, q) -> (B, C, H, W)."""
        if self.keep is None or not normalises_by_input(layer):
            return None
        return paste_visible(out, self.keep, out.new_zeros(1), self.grid)


def normalises_by_input(layer: _BatchNorm) -> bool:
    """Whether the layer uses statistics of its input; by its running statistics it computes each position alone."""
    return layer.training or layer.running_mean is None


def cut_visible(x: Tensor, keep: Tensor, grid: tuple[int, int]) -> Tensor:
    """The visible patches of a map: (B, C, H, W), (B, K) -> (B * K, C, p, q)."""
    patches = rearrange(x, "b c (h p) (w q) -> b (h w) c p q", h=grid[0], w=grid[1])
    return patches.gather(1, _rows(keep, patches)).flatten(0, 1)


def paste_visible(visible: Tensor, keep: Tensor, fill: Tensor, grid: tuple[int, int]) -> Tensor:
    """The map with `fill` at the hidden positions: (B * K, C, p, q), (B, K), (C,) or (1,) -> (B, C, H, W)."""
    patches = visible.unflatten(0, keep.shape)  # (B, K, C, p, q)
    b, _, c, p, q = patches.shape
    full = fill.to(visible.dtype).view(1, 1, -1, 1, 1).expand(b, grid[0] * grid[1], c, p, q)
    full = full.scatter(1, _rows(keep, patches), patches)
    return rearrange(full, "b (h w) c p q -> b c (h p) (w q)", h=grid[0])


def _rows(keep: Tensor, patches: Tensor) -> Tensor:
    """(B, K) indices of patches for `gather` and `scatter` along the second axis: (B, K, C, p, q), without copies."""
    return keep[..., None, None, None].expand(*keep.shape, *patches.shape[2:])


def behind_maps(network: nn.Module) -> list[nn.Module]:
    """The parts of a timm network that read its last map: pooling, and ConvNeXt's last norm."""
    return [child for name, child in network.named_children() if name in HEADS]


def check_layers(network: nn.Module) -> None:
    """Raises InputError for a network in which a visible position would depend on more than visible ones."""
    advice = "choose a ResNet, DenseNet or ConvNeXt without channel attention, e.g. resnet50, densenet121 or convnext_tiny"
    if not isinstance(network, FAMILIES):
        raise InputError(f"a network of type {type(network).__name__} cannot be masked; {advice}")
    known = (*FAMILIES, *BLOCKS, *MIX_POSITIONS, *POSITION_BY_POSITION, _BatchNorm)
    heads = {layer for head in behind_maps(network) for layer in head.modules()}
    for name, layer in network.named_modules():
        if layer not in heads and not isinstance(layer, known):
            raise InputError(f"the layer {name} ({type(layer).__name__}) may read hidden patches of a masked network; {advice}")
