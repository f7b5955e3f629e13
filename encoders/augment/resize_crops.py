"""Crops, flips and changes of size on a CPU, without rotation: the two axes are independent.

An axis that is not reduced is interpolated between two inputs, which needs no antialiasing: OpenCV does that. A reduced axis, a bicubic
kernel, and a box whose borders lie within pixels are multiplied by the bands of `resample`; both ways give the same where both apply.

Shapes: B images, C channels, H, W pixels of the source, S of the view.
"""

import numpy as np
from torch import Tensor

from encoders.augment.flip import read_flips
from encoders.augment.opencv import cv2, planes_of
from encoders.augment.operation import DrawnParams
from encoders.augment.resample import BandRow, apply_band_pair, multiply_columns, multiply_rows, resize_band
from encoders.runtime.arrays import BoolArray, FloatArray


def resize_crops(images: Tensor, params: DrawnParams, size: int, out: Tensor) -> Tensor:
    """Each image's box, flipped, at `size` pixels a side, in `out` (B, C, S, S). Every row is computed alone."""
    box, cubic, flip = params["box"], bool(params["cubic"][0]), read_flips(params, len(images))
    banded = (box[:, 2:] > size) | (box != np.rint(box)).any(1, keepdims=True) | cubic  # (B, 2)
    rows = _band_rows(box[:, 0], box[:, 2], flip[:, 1], banded[:, 0], cubic, images.shape[2], size)
    columns = _band_rows(box[:, 1], box[:, 3], flip[:, 0], banded[:, 1], cubic, images.shape[3], size)
    for image, view, row, column, borders, (across, down) in zip(images, out, rows, columns, box, flip.tolist(), strict=True):
        if row and column:
            apply_band_pair(image, row, column, view)
            continue
        top, left, high, wide = map(int, borders)
        if row:
            crop = image.new_empty((len(image), size, wide))
            multiply_rows(image[:, :, left : left + wide], row, crop)
            _interpolate(crop, across, False, view)  # the flip of a band is in its weights
        elif column:
            crop = image.new_empty((len(image), high, size))
            for plane, target in zip(image[:, None, top : top + high], crop[:, None], strict=True):
                multiply_columns(plane, column, target)
            _interpolate(crop, False, down, view)
        else:
            _interpolate(image[:, top : top + high, left : left + wide], across, down, view)
    return out.clamp_(0, 1) if cubic else out  # a cubic overshoots at edges


def _band_rows(
    low: FloatArray, extent: FloatArray, flip: BoolArray, picked: BoolArray, cubic: bool, n_in: int, n_out: int
) -> list[BandRow | None]:
    """For each of B rows its matrix along one axis, or None where it is not picked."""
    rows: list[BandRow | None] = [None] * len(picked)
    if picked.any():
        band = resize_band(low[picked], extent[picked], flip[picked], cubic, n_in, n_out)
        for k, i in enumerate(np.flatnonzero(picked).tolist()):
            rows[i] = BandRow(band, k)
    return rows


def _interpolate(crop: Tensor, across: bool, down: bool, view: Tensor) -> None:
    """The crop (C, h, w), bilinear at the size of `view` (C, S, S), then flipped left-right (`across`) and up-down (`down`)."""
    size = view.shape[2], view.shape[1]
    for plane, target in zip(planes_of(crop), planes_of(view), strict=True):
        if across or down:
            cv2.flip(cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR), -1 if across and down else int(across), dst=target)
        else:
            cv2.resize(plane, size, dst=target, interpolation=cv2.INTER_LINEAR)
