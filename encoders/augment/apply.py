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
from encoders.augment.flip import read_flips
from encoders.augment.operation import Augmentation, DrawnParams
from encoders.augment.resample import apply_bands, resize_band, uses_dense_matrices
from encoders.augment.warp import warp_views
from encoders.runtime.arrays import Array, BoolArray

RESAMPLE_GROUP = 32  # images whose resampling weights are computed together on a CPU
VIEW_CHUNK_VALUES = 150_000  # numbers of a chunk of views on a CPU: 600 kB, and as much again for what the operations need


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
    return torch.as_tensor(images).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(scale)


def resample_views(images: Tensor, params: DrawnParams, size: int, out: Tensor) -> Tensor:
    """Crop, flips, rotation, scale and warp in one resampling, into `out` (B, C, S, S)."""
    bent = find_lookup_rows(params)
    bent = np.zeros(len(images), dtype=bool) if bent is None else bent
    for picked, method in ((~bent, _resample_separable), (bent, warp_views)):
        if picked.all():
            out.copy_(warp_views(images, params, size)) if method is warp_views else _resample_separable(images, params, size, out)
        elif picked.any():
            out[_row_indices(picked, out)] = method(images[_row_indices(picked, out)], _select_rows(params, picked), size)
    return out


def _resample_separable(images: Tensor, params: DrawnParams, size: int, out: Tensor | None = None) -> Tensor:
    """Rows without rotation: the two axes are independent."""
    box, cubic = params["box"], bool(params["cubic"][0])
    flip = read_flips(params, len(images))
    rows = resize_band(box[:, 0], box[:, 2], flip[:, 1], cubic, images.shape[2], size)
    columns = resize_band(box[:, 1], box[:, 3], flip[:, 0], cubic, images.shape[3], size)
    view = apply_bands(images, rows, columns, (size, size), out)
    if cubic:
        view.clamp_(0, 1)  # a cubic overshoots at edges
    if out is not None and view is not out:
        out.copy_(view)
    return view


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
