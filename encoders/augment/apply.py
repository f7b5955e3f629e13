"""Views from images and drawn parameters: `augment(batch, params, size)`, the same function on CPU and on a CUDA device.

On a CPU a few images at a time go through all operations, so that they stay in the second-level cache (a megabyte); on a CUDA device the
whole batch does. A row's result does not depend on what else is in the batch.

Shapes: B images, C channels, H, W pixels of the source, S of the view.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from encoders.augment import intensity as do
from encoders.augment.resample import apply_bands, resize_band, uses_dense_matrices
from encoders.augment.warp import warp_views
from encoders.runtime.arrays import Array

AppliedParams = Mapping[str, Array]

RESAMPLE_GROUP = 32  # images whose resampling weights are made together on a CPU
VIEW_CHUNK_VALUES = 150_000  # numbers of a chunk of views on a CPU: 600 kB, and as much again for what the operations need


def augment(batch: Tensor, params: AppliedParams, size: int, out: Tensor | None = None) -> Tensor:
    """(B, C, H, W) float32 in [0, 1] -> (B, C, S, S) float32 in [0, 1].  params: from `draw`, a row for each image.

    The result is in `out`, if that is given."""
    b, c = batch.shape[:2]
    out = batch.new_empty((b, c, size, size)) if out is None else out
    for rows in chunk_slices(b, b if uses_dense_matrices(batch.device) else RESAMPLE_GROUP):
        resample_views(batch[rows], _select_rows(params, rows), size, out[rows])
    for rows in chunk_slices(b, b if uses_dense_matrices(batch.device) else max(1, VIEW_CHUNK_VALUES // (c * size * size))):
        apply_intensity(out[rows], _select_rows(params, rows))
    return out


def chunk_slices(n: int, at_once: int) -> Iterator[slice]:
    """range(n), `at_once` at a time."""
    return (slice(first, min(first + at_once, n)) for first in range(0, n, max(at_once, 1)))


def _select_rows(params: AppliedParams, rows: slice) -> AppliedParams:
    return {name: value[rows] for name, value in params.items()}


def to_planar_float(images: np.ndarray | Tensor, scale: float) -> Tensor:
    """Stored values (B, H, W, C) as float32 (B, C, H, W), divided by `scale`."""
    return torch.as_tensor(images).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format).div_(scale)


def resample_views(images: Tensor, params: AppliedParams, size: int, out: Tensor) -> Tensor:
    """Crop, flips, turn, rotation, scale and warp in one resampling, into `out` (B, C, S, S)."""
    bent = np.zeros(len(images), dtype=bool)
    if "angle" in params:
        bent |= (params["angle"] != 0) | (params["zoom"] != 1)
    if "elastic" in params:
        bent |= params["elastic"].any(axis=(1, 2, 3))
    for picked, method in ((~bent, _resample_separable), (bent, warp_views)):
        if picked.all():
            out.copy_(warp_views(images, params, size)) if method is warp_views else _resample_separable(images, params, size, out)
        elif picked.any():
            out[_row_indices(picked, out)] = method(images[_row_indices(picked, out)], {k: v[picked] for k, v in params.items()}, size)
    for row in np.flatnonzero(params["turn"]) if "turn" in params else ():
        out[row] = torch.rot90(out[row], int(params["turn"][row]), (1, 2)).clone()
    return out


def _resample_separable(images: Tensor, params: AppliedParams, size: int, out: Tensor | None = None) -> Tensor:
    """Rows without rotation: the two axes are independent."""
    box, cubic = params["box"], bool(params["cubic"][0])
    flip = params["flip"] if "flip" in params else np.zeros((len(images), 2), dtype=bool)
    rows = resize_band(box[:, 0], box[:, 2], flip[:, 1], cubic, images.shape[2], size, images.device)
    columns = resize_band(box[:, 1], box[:, 3], flip[:, 0], cubic, images.shape[3], size, images.device)
    view = apply_bands(images, rows, columns, (size, size), out)
    if cubic:
        view.clamp_(0, 1)  # a cubic overshoots at edges
    if out is not None and view is not out:
        out.copy_(view)
    return view


def apply_intensity(views: Tensor, params: AppliedParams) -> Tensor:
    """The values of the views, in place, in the order that `config` states; an operation is computed only for the rows it was drawn for."""
    if "stain_map" in params:
        _apply_to_rows((params["stain_map"] != np.eye(3)).any((1, 2)), do.map_density, views, params["stain_map"])
    if "stain_factor" in params:
        drawn = (params["stain_factor"] != 1).any(1) | (params["stain_shift"] != 0).any(1)
        _apply_to_rows(drawn, do.stain, views, params["stain_factor"], params["stain_shift"])
    for name, idle in (("brightness", 1), ("contrast", 1), ("saturation", 1), ("hue", 0)):
        if name in params:
            _apply_to_rows(params[name] != idle, getattr(do, name), views, params[name])
    if "window" in params:
        _apply_to_rows((params["window"] != (0, 1)).any(1), do.window, views, params["window"])
    if "gamma" in params:
        _apply_to_rows(params["gamma"] != 1, do.gamma, views, params["gamma"])
    if "grayscale" in params:
        _apply_to_rows(params["grayscale"], do.grayscale, views)
    if "blur" in params:
        _apply_row_by_row(params["blur"] > 0, do.blur, views, params["blur"])
    if "solarise" in params:
        _apply_to_rows(params["solarise"] <= 1, do.solarise, views, params["solarise"])
    if "noise" in params:
        _apply_to_rows(params["noise"] > 0, do.noise, views, params["noise"], params["noise_at"])
    if "cutout" in params:
        _apply_to_rows(params["cutout"][:, 2] > 0, do.cutout, views, params["cutout"])
    return views


def _apply_to_rows(picked: np.ndarray, operation, views: Tensor, *values: np.ndarray) -> None:
    """The operation on the picked rows, in place."""
    if picked.all():
        operation(views, *values)
    elif picked.any():
        index = _row_indices(picked, views)
        views[index] = operation(views[index], *(value[picked] for value in values))


def _apply_row_by_row(picked: np.ndarray, operation, views: Tensor, values: np.ndarray) -> None:
    """As `_only`; on a CPU row by row, because the work of a blur grows with its own sigma."""
    if uses_dense_matrices(views.device):
        return _apply_to_rows(picked, operation, views, values)
    for row in np.flatnonzero(picked):
        operation(views[row : row + 1], values[row : row + 1])


def _row_indices(picked: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.flatnonzero(picked)).to(like.device, non_blocking=True)
