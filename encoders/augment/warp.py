"""Crops that are rotated, magnified or bent: one bilinear or bicubic look-up of each output pixel in the source. On a CPU image by image.

Outside the source is black, like the border of a radiograph. Where the crop is reduced more than 1.5-fold, the source is first reduced
by that factor with the antialiased bands of `resample` (below 1.5 the look-up's own triangle leaves little to alias).

Shapes: B images, C channels, H, W pixels of the source, S of the view.
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.augment.elastic import displacement_of_row
from encoders.augment.flip import read_flips
from encoders.augment.resample import apply_bands, resize_band
from encoders.augment.rotate import rotation_of_row
from encoders.runtime.arrays import Array, FloatArray

MAX_ALIASING_STEP = 1.5  # source pixels per output pixel, above which the source is reduced first


def warp_views(images: Tensor, params: Mapping[str, Array], size: int) -> Tensor:
    """The view (1, C, S, S) of each image, one at a time: (B, C, H, W) -> (B, C, S, S)."""
    views = [_warp_one(images[i : i + 1], {name: value[i : i + 1] for name, value in params.items()}, size) for i in range(len(images))]
    return torch.cat(views)


def _warp_one(image: Tensor, params: Mapping[str, Array], size: int) -> Tensor:
    zoom = params.get("zoom", np.ones(1))[0]
    box, mode = params["box"][0] * 1.0, "bicubic" if params["cubic"][0] else "bilinear"
    step = box[2:].max() / size / zoom
    if step > MAX_ALIASING_STEP:
        image, shrunk = _reduce_image(image, step, bool(params["cubic"][0]))
        box = box * np.tile(shrunk, 2)
    x, y = source_coordinates(box, params, size)
    grid = torch.empty(1, size, size, 2)
    torch.add(x * (2 / image.shape[3]), 1 / image.shape[3] - 1, out=grid[0, ..., 0])  # grid_sample's [-1, 1] runs from edge to edge
    torch.add(y * (2 / image.shape[2]), 1 / image.shape[2] - 1, out=grid[0, ..., 1])
    view = F.grid_sample(image, grid, mode=mode, padding_mode="zeros", align_corners=False)
    return view.clamp_(0, 1) if mode == "bicubic" else view


def source_coordinates(box: FloatArray, params: Mapping[str, Array], size: int) -> tuple[Tensor, Tensor]:
    """The source position of each output pixel, in pixels: x and y, (S, S) each.

    The view is flipped, bent, stretched to the box, rotated (counter-clockwise, degrees) and magnified about the centre of the box."""
    top, left, high, wide = box
    flip = read_flips(params, 1)[0]
    across = torch.as_tensor(((np.arange(size) + 0.5) / size - 0.5) * (-1 if flip[0] else 1), dtype=torch.float32)
    down = torch.as_tensor(((np.arange(size) + 0.5) / size - 0.5) * (-1 if flip[1] else 1), dtype=torch.float32)
    cos, sin = rotation_of_row(params)
    u, v = across[None, :], down[:, None]
    if (bend := displacement_of_row(params, size)) is not None:
        u, v = u + bend[0], v + bend[1]
    x = u * float(wide * cos) - v * float(high * sin) + float(left + wide / 2 - 0.5)
    y = u * float(wide * sin) + v * float(high * cos) + float(top + high / 2 - 0.5)
    return x, y


def _reduce_image(image: Tensor, step: float, cubic: bool) -> tuple[Tensor, FloatArray]:
    """The whole image reduced by about `step`, and the exact factors (rows, columns)."""
    h, w = image.shape[2:]
    small = max(1, round(h / step)), max(1, round(w / step))
    zero, no = np.zeros(1), np.zeros(1, dtype=bool)
    rows = resize_band(zero, np.array([float(h)]), no, cubic, h, small[0])
    columns = resize_band(zero, np.array([float(w)]), no, cubic, w, small[1])
    return apply_bands(image, rows, columns, small), np.array([small[0] / h, small[1] / w])
