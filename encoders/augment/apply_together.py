"""Views from images and drawn parameters on a CUDA device: the whole batch at once.

The number of operations depends on the settings of the view, and on whether images are bent (`warp_together`), straight, or some of each;
it depends neither on their number nor on what else is drawn for them. The host sends one buffer (`device_params`) and waits for nothing.

Shapes: B images, C channels, H, W pixels of the source, S of the view.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from encoders.augment.config import AUGMENTATIONS
from encoders.augment.device_params import DeviceParams, PackedParams, pack_params
from encoders.augment.resample import multiply_axes, resize_matrices
from encoders.augment.warp_together import warp_together
from encoders.runtime.arrays import Array, BoolArray, IntArray

STRAIGHT, BENT = "straight", "bent"  # subsets of the rows: those resampled axis by axis, and those looked up


def augment_together(images: Tensor, params: DeviceParams, size: int) -> Tensor:
    """(B, C, H, W) float32 in [0, 1] -> (B, C, S, S) float32 in [0, 1]."""
    views = _resample_together(images, params, size)
    for name, operation in AUGMENTATIONS.items():
        if not any(own in params for own in operation.params):
            continue
        if name in params.subsets:
            index = params.rows(name)
            views.index_copy_(0, index, operation.apply_on_device(views.index_select(0, index), params.select(name)))
        else:
            views = operation.apply_on_device(views, params)
    return views


def pack_views(views: Sequence[Mapping[str, Array]]) -> PackedParams:
    """The parameters of each view and the rows of its subsets, in one buffer on the host."""
    return pack_params(views, [_find_subsets(params) for params in views])


def _find_subsets(params: Mapping[str, Array]) -> dict[str, IntArray]:
    """The rows that are straight or bent, where there are both, and those of the operations that pick their rows, which may be none."""
    bent = find_lookup_rows(params)
    mixed = bent is not None and bent.any() and not bent.all()
    subsets = {STRAIGHT: np.flatnonzero(~bent), BENT: np.flatnonzero(bent)} if bent is not None and mixed else {}
    for name, operation in AUGMENTATIONS.items():
        own = operation.own_params(params) if operation.picks_rows_on_device else None
        picked = None if own is None else operation.changed_rows(own)
        if picked is not None:
            subsets[name] = np.flatnonzero(picked)
    return subsets


def find_lookup_rows(params: Mapping[str, Array]) -> BoolArray | None:
    """(B,) rows that are rotated, scaled or bent; None when no operation may do that."""
    bent: BoolArray | None = None
    for operation in AUGMENTATIONS.values():
        own = operation.own_params(params)
        rows = None if own is None else operation.lookup_rows(own)
        if rows is not None:
            bent = rows if bent is None else bent | rows
    return bent


def _resample_together(images: Tensor, params: DeviceParams, size: int) -> Tensor:
    """Crop, flips, rotation, scale and warp."""
    bent_rows = find_lookup_rows(params.host)
    if bent_rows is None or not bent_rows.any():
        return _resample_axes(images, params, size)
    if bent_rows.all():
        return warp_together(images, params, size)
    views = images.new_empty((len(images), images.shape[1], size, size))
    straight, bent = params.rows(STRAIGHT), params.rows(BENT)
    views.index_copy_(0, straight, _resample_axes(images.index_select(0, straight), params.select(STRAIGHT), size))
    return views.index_copy_(0, bent, warp_together(images.index_select(0, bent), params.select(BENT), size))


def _resample_axes(images: Tensor, params: DeviceParams, size: int) -> Tensor:
    """Rows without rotation: one matrix per axis."""
    low, extent = params.exact("box").split(2, 1)
    flip = params.exact("flip").flip(1) if "flip" in params else None  # up-down, left-right: of rows and columns
    cubic = bool(params.host["cubic"][0])
    both = resize_matrices(low, extent, flip, size, size, max(images.shape[2:]), cubic)
    view = multiply_axes(images, both[:, 0, :, : images.shape[2]], both[:, 1, :, : images.shape[3]])
    return view.clamp_(0, 1) if cubic else view  # a cubic overshoots at edges
