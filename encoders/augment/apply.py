"""Views from images and drawn parameters: `augment(batch, params, size)`, the same function on a CPU and on a CUDA device.

On a CPU a few images at a time pass through all operations, so that they stay in the second-level cache (a megabyte), and the result of a
row does not depend on the rest of the batch. On a CUDA device the whole batch does (`apply_together`), with results equal to rounding.

Shapes: B images, C channels, H, W pixels of the source, S of the view.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from encoders.augment.apply_together import augment_together, find_lookup_rows, pack_views
from encoders.augment.config import AUGMENTATIONS, Augment
from encoders.augment.device_params import unpack_params
from encoders.augment.opencv import cv2
from encoders.augment.operation import Augmentation, DrawnParams
from encoders.augment.resample import uses_dense_matrices
from encoders.augment.resize_crops import resize_crops
from encoders.augment.warp import warp_views
from encoders.runtime.arrays import Array, BoolArray

RESAMPLE_GROUP = 8  # images that are prepared together on a CPU: few enough to stay in the cache
VIEW_CHUNK_VALUES = 50_000  # numbers of a chunk of views on a CPU: one view of 224 pixels, or a few smaller ones
SPLIT_DTYPES = (torch.uint8, torch.uint16, torch.float32)  # of OpenCV's and of stores


def augment(batch: Tensor, params: Mapping[str, Array], size: int, out: Tensor | None = None) -> Tensor:
    """(B, C, H, W) float32 in [0, 1] -> (B, C, S, S) float32 in [0, 1].  params: from `draw_params`, one row per image.

    out: (B, C, S, S) to write the result into."""
    if uses_dense_matrices(batch.device):
        (own,) = unpack_params(pack_views([params]), [params], batch.device)
        view = augment_together(batch, own, size)
        return view if out is None else out.copy_(view)
    b, c = batch.shape[:2]
    out = batch.new_empty((b, c, size, size)) if out is None else out
    for rows in chunk_slices(b, RESAMPLE_GROUP):
        resample_views(batch[rows], _select_rows(params, rows), size, out[rows])
    for rows in chunk_slices(b, max(1, VIEW_CHUNK_VALUES // (c * size * size))):
        apply_operations(out[rows], _select_rows(params, rows))
    return out


def chunk_slices(n: int, at_once: int) -> Iterator[slice]:
    """range(n), `at_once` at a time."""
    return (slice(first, min(first + at_once, n)) for first in range(0, n, max(at_once, 1)))


def _select_rows(params: Mapping[str, Array], rows: slice | BoolArray) -> DrawnParams:
    return {name: value[rows] for name, value in params.items()}


def to_planar_float(images: Array | Tensor, scale: float) -> Tensor:
    """Stored values (B, H, W, C) as float32 (B, C, H, W), divided by `scale`."""
    images = torch.as_tensor(images)
    if images.shape[3] == 1 or images.device.type != "cpu" or images.dtype not in SPLIT_DTYPES:
        return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(scale)
    n, h, w, c = images.shape
    out = torch.empty((n, c, h, w))
    for image, planar in zip(images.numpy(), out, strict=True):
        for plane, target in zip(cv2.split(image), planar, strict=True):  # several times as fast as a copy with strides
            target.copy_(torch.from_numpy(plane)).div_(scale)
    return out


def resample_views(images: Tensor, params: DrawnParams, size: int, out: Tensor) -> Tensor:
    """Crop, flips, rotation, scale and warp in one resampling, into `out` (B, C, S, S)."""
    bent = find_lookup_rows(params)
    bent = np.zeros(len(images), dtype=bool) if bent is None else bent
    for rows in _runs(bent):
        resample = warp_views if bent[rows.start] else resize_crops
        resample(images[rows], _select_rows(params, rows), size, out[rows])
    return out


def _runs(values: BoolArray) -> Iterator[slice]:
    """The rows of `values` (B,), split where the value changes."""
    starts = [0, *(np.flatnonzero(np.diff(values)) + 1).tolist()]
    return (slice(first, end) for first, end in zip(starts, [*starts[1:], len(values)], strict=True))


def apply_operations(views: Tensor, params: DrawnParams) -> None:
    """Applies the operations that change finished views, in place and in order, each to the rows it was drawn for."""
    for operation in AUGMENTATIONS.values():
        own = operation.own_params(params)
        picked = None if own is None else operation.changed_rows(own)
        if own is not None and picked is not None:
            _apply_to_rows(operation, views, own, picked)


def _apply_to_rows(operation: Augmentation[Augment], views: Tensor, params: DrawnParams, picked: BoolArray) -> None:
    if operation.one_row_at_a_time:
        for row in np.flatnonzero(picked):
            operation.apply(views[row : row + 1], _select_rows(params, slice(row, row + 1)))
    elif picked.all():
        operation.apply(views, params)
    elif picked.any():
        index = _row_indices(picked, views)
        part = views[index]
        operation.apply(part, _select_rows(params, picked))
        views[index] = part


def _row_indices(picked: BoolArray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.flatnonzero(picked)).to(like.device, non_blocking=True)
