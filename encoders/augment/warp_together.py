"""The crops of `warp` for a whole batch on a CUDA device: the same look-ups, in a number of operations that does not depend on the batch.

Each image is reduced by its own factor, as in `warp`. The reduced images are padded with black to the largest one, which is what a look-up
finds outside an image. So the matrices take (out, in) floats per image and axis, as those of `resample`; the positions 8 bytes per pixel of
the view.

Shapes: B images, C channels, H, W pixels of the source, S of the view.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.augment.device_params import DeviceParams
from encoders.augment.elastic import displacements
from encoders.augment.resample import multiply_axes, resize_matrices
from encoders.augment.rotate import rotations
from encoders.augment.warp import MAX_ALIASING_STEP
from encoders.runtime.arrays import Array
from encoders.runtime.device_constant import device_constant


def warp_together(images: Tensor, params: DeviceParams, size: int) -> Tensor:
    """The views (B, C, S, S) of images (B, C, H, W)."""
    cubic = bool(params.host["cubic"][0])
    corner, extent = params.exact("box").split(2, 1)  # (B, 2) top and left, height and width
    if _may_reduce(images, params, size):
        images, shrunk = _reduce_together(images, params, size, cubic)
        corner, extent = corner * shrunk, extent * shrunk
    grid = lookup_grid(corner, extent, params, size, (images.shape[2], images.shape[3]))
    view = F.grid_sample(images, grid, mode="bicubic" if cubic else "bilinear", padding_mode="zeros", align_corners=False)
    return view.clamp_(0, 1) if cubic else view


def lookup_grid(corner: Tensor, extent: Tensor, params: DeviceParams, size: int, source: tuple[int, int]) -> Tensor:
    """(B, S, S, 2) float32: the source position, right and down, of each output pixel; -1 to 1 from edge to edge.  source: (H, W).

    As `warp.source_coordinates`: a position is  centre + u * along_u + v * along_v,  u and v the bent and flipped position in the view."""
    along = rotations(params, extent) * extent.flip(1)[..., None]  # (B, 2, 2): of u and v, by how many pixels right and down
    middle = torch.add(corner, extent, alpha=0.5).flip(1)  # (B, 2) of the crop
    right, down = torch.cat([along, middle[:, None]], 1).unbind(2)  # (B, 3): of u, of v, and of the middle
    along, centre = torch.stack([right * (2 / source[1]), down * (2 / source[0])], 2).split(2, 1)
    position = device_constant(_view_positions, size, like=extent)[:, None]  # (S, 1)
    flipped = along * torch.rsub(params.exact("flip"), 1, alpha=2)[..., None] if "flip" in params else along
    by_u = (centre - 1 + position * flipped[:, :1]).float()  # (B, S, 2)
    by_v = (position * flipped[:, 1:]).float()
    grid: Tensor = by_u[:, None] + by_v[:, :, None]  # (B, S, S, 2)
    if (bend := displacements(params, size)) is not None:
        single = along.float()
        for way in range(2):
            grid.addcmul_(bend[:, way, ..., None], single[:, None, None, way])
    return grid


def _view_positions(size: int) -> Array:
    return (np.arange(size) + 0.5) / size - 0.5


def _may_reduce(images: Tensor, params: DeviceParams, size: int) -> bool:
    """Whether an image of this size can be reduced first; not whether one of this batch is, so that all batches take the same path."""
    return max(images.shape[2:]) / size > MAX_ALIASING_STEP or bool(np.any(params.host.get("zoom", np.ones(1)) != 1))


def _reduce_together(images: Tensor, params: DeviceParams, size: int, cubic: bool) -> tuple[Tensor, Tensor]:
    """The images reduced by their own factors (`warp._reduce_image`), padded to the largest, and the exact factors (B, 2)."""
    step = params.exact("box")[:, 2:].amax(1, keepdim=True) / size
    step = step / params.exact("zoom") if "zoom" in params else step
    full = device_constant(np.array, (float(images.shape[2]), float(images.shape[3])), like=step).expand(len(images), 2)
    small = torch.where(step > MAX_ALIASING_STEP, (full / step).round().clamp_min(1), full)
    high, wide = _largest_reduced(params.host, size, (images.shape[2], images.shape[3]))
    both = resize_matrices(torch.zeros_like(full), full, None, small, max(high, wide), max(images.shape[2:]), cubic)
    return multiply_axes(images, both[:, 0, :high, : images.shape[2]], both[:, 1, :wide, : images.shape[3]]), small / full


def _largest_reduced(params: Mapping[str, Array], size: int, source: tuple[int, int]) -> tuple[int, int]:
    """The largest height and width of the reduced images, computed on the host, which has to know the shape."""
    step = params["box"][:, 2:].max(1) / size / params.get("zoom", np.ones(1))
    small = [np.where(step > MAX_ALIASING_STEP, np.maximum(np.rint(side / step), 1), side).max() for side in source]
    return int(small[0]), int(small[1])
