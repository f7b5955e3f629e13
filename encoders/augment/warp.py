"""Crops that are rotated, magnified or bent: one bilinear or bicubic look-up of each output pixel in the source. On a CPU image by image,
bilinear by OpenCV.

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
from encoders.augment.opencv import cv2, planes_of
from encoders.augment.resample import apply_bands, resize_band
from encoders.augment.rotate import rotation_of_row
from encoders.runtime.arrays import Array, FloatArray

MAX_ALIASING_STEP = 1.5  # source pixels per output pixel, above which the source is reduced first


def warp_views(images: Tensor, params: Mapping[str, Array], size: int, out: Tensor) -> Tensor:
    """The view of each image, one at a time: (B, C, H, W) into `out` (B, C, S, S)."""
    for i in range(len(images)):
        _warp_one(images[i], {name: value[i : i + 1] for name, value in params.items()}, out[i])
    return out


def _warp_one(image: Tensor, params: Mapping[str, Array], view: Tensor) -> None:
    """image: (C, H, W).  view: (C, S, S)."""
    size = view.shape[2]
    zoom = params.get("zoom", np.ones(1))[0]
    box, cubic = params["box"][0] * 1.0, bool(params["cubic"][0])
    step = box[2:].max() / size / zoom
    if step > MAX_ALIASING_STEP:
        image, shrunk = _reduce_image(image, step, cubic)
        box = box * np.tile(shrunk, 2)
    if cubic:
        view.copy_(_look_up_cubic(image[None], *source_coordinates(box, params, size))[0])
    elif "elastic" in params and params["elastic"].any():
        x, y = (along.numpy() for along in source_coordinates(box, params, size))
        for plane, target in zip(planes_of(image), planes_of(view), strict=True):
            cv2.remap(plane, x, y, cv2.INTER_LINEAR, dst=target, borderMode=cv2.BORDER_CONSTANT)
    else:
        matrix = _affine_matrix(box, params, size)
        for plane, target in zip(planes_of(image), planes_of(view), strict=True):
            cv2.warpAffine(plane, matrix, (size, size), target, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, cv2.BORDER_CONSTANT)


def _look_up_cubic(image: Tensor, x: Tensor, y: Tensor) -> Tensor:
    grid = torch.empty(1, *x.shape, 2)
    torch.add(x * (2 / image.shape[3]), 1 / image.shape[3] - 1, out=grid[0, ..., 0])  # grid_sample's [-1, 1] runs from edge to edge
    torch.add(y * (2 / image.shape[2]), 1 / image.shape[2] - 1, out=grid[0, ..., 1])
    return F.grid_sample(image, grid, mode="bicubic", padding_mode="zeros", align_corners=False).clamp_(0, 1)


def _affine_matrix(box: FloatArray, params: Mapping[str, Array], size: int) -> FloatArray:
    """(2, 3) the source position, as x and y, of the output pixel (column, row, 1): `source_coordinates` without a bend."""
    top, left, high, wide = box
    across, down = (-1 if flipped else 1 for flipped in read_flips(params, 1)[0])
    cos, sin = rotation_of_row(params)
    turned = np.array([[wide * cos * across, -high * sin * down], [wide * sin * across, high * cos * down]]) / size
    centre = np.array([left + wide / 2 - 0.5, top + high / 2 - 0.5])
    return np.concatenate([turned, (centre + turned.sum(1) * (0.5 - size / 2))[:, None]], axis=1)


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
    """The whole image (C, H, W) reduced by about `step`, and the exact factors (rows, columns)."""
    h, w = image.shape[1:]
    small = max(1, round(h / step)), max(1, round(w / step))
    zero, no = np.zeros(1), np.zeros(1, dtype=bool)
    rows = resize_band(zero, np.array([float(h)]), no, cubic, h, small[0])
    columns = resize_band(zero, np.array([float(w)]), no, cubic, w, small[1])
    return apply_bands(image[None], rows, columns, small)[0], np.array([small[0] / h, small[1] / w])
