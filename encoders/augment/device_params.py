"""Drawn parameters on their way to a device: those of all views of a micro-batch in one buffer, which one copy sends.

The values travel in float64, in which they were drawn, so that what is rounded to whole pixels is rounded as on a CPU. On the device each
view's values are a matrix with a column per number, in float64 and once in float32, and a parameter is a slice of it.

Shapes: B images, K numbers drawn for each, n rows of a subset.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from encoders.runtime.arrays import Array, IntArray

RowSets = Mapping[str, IntArray]  # name of a subset of the images -> its rows, ascending


@dataclass(frozen=True)
class ViewLayout:
    """Where the numbers of a view are in the buffer."""

    first: int  # of the (B, K) matrix
    images: int  # B
    columns: dict[str, slice]  # name of a parameter -> its columns
    rows: dict[str, slice]  # name of a subset -> its row numbers, counted from the first one in the buffer
    subsets: RowSets  # the same rows on the host

    @property
    def width(self) -> int:
        """K."""
        return sum(columns.stop - columns.start for columns in self.columns.values())


class PackedParams(NamedTuple):
    """The parameters of the views of a micro-batch, in one buffer."""

    buffer: Tensor  # (numbers,) float64: the matrices of all views, then the row numbers of all subsets
    row_start: int  # where the row numbers begin
    layouts: tuple[ViewLayout, ...]  # one per view


def pack_params(views: Sequence[Mapping[str, Array]], subsets: Sequence[RowSets]) -> PackedParams:
    """views: the parameters of each view, with first axis B.  subsets: for each view, the rows that only some operations compute."""
    layouts, matrices, rows, first, row = [], [np.empty(0)], [np.empty(0)], 0, 0
    for params, sets in zip(views, subsets, strict=True):
        columns, spans, width = {}, {}, 0
        images = len(next(iter(params.values())))
        for name, values in params.items():
            wide = prod(values.shape[1:])
            columns[name] = slice(width, width + wide)
            width += wide
        for name, index in sets.items():
            spans[name] = slice(row, row + len(index))
            row += len(index)
            rows.append(index.astype(np.float64))
        matrices.append(np.concatenate([v.reshape(images, -1).astype(np.float64) for v in params.values()], axis=1).ravel())
        layouts.append(ViewLayout(first, images, columns, spans, sets))
        first += images * width
    return PackedParams(torch.from_numpy(np.concatenate(matrices + rows)), first, tuple(layouts))


class DeviceParams:
    """The parameters of one view on the device: `name in params`, `params.exact(name)`, `params.single(name)`, `params.rows(name)`."""

    def __init__(self, exact: Tensor, single: Tensor, layout: ViewLayout, rows: Tensor, host: Mapping[str, Array]):
        """exact: (B, K) float64.  single: (B, K, 1, 1) float32.  rows: int64 numbers of all subsets.  host: the same values in NumPy."""
        self.host = host
        self._exact, self._single, self._layout, self._rows = exact, single, layout, rows

    def __contains__(self, name: str) -> bool:
        return name in self._layout.columns

    @property
    def subsets(self) -> Collection[str]:
        """Names of the subsets of rows."""
        return self._layout.rows.keys()

    def exact(self, name: str) -> Tensor:
        """(B, numbers) float64, as they were drawn."""
        return self._exact[:, self._layout.columns[name]]

    def single(self, name: str) -> Tensor:
        """(B, numbers, 1, 1) float32; a parameter of one number multiplies images (B, C, H, W) as it is."""
        return self._single[:, self._layout.columns[name]]

    def rows(self, name: str) -> Tensor:
        """(n,) int64, the rows of a subset."""
        return self._rows[self._layout.rows[name]]

    def select(self, name: str) -> "DeviceParams":
        """The parameters of the rows of a subset."""
        index = self.rows(name)
        host = {key: values[self._layout.subsets[name]] for key, values in self.host.items()}
        return DeviceParams(self._exact.index_select(0, index), self._single.index_select(0, index), self._layout, index[:0], host)


def unpack_params(packed: PackedParams, views: Sequence[Mapping[str, Array]], device: torch.device) -> list[DeviceParams]:
    """The parameters of each view on `device`: views of one buffer.  views: the values that were packed."""
    buffer = packed.buffer.to(device, non_blocking=True)  # does nothing where the buffer was sent before
    single, rows = buffer.float(), buffer[packed.row_start :].long()
    unpacked = []
    for layout, host in zip(packed.layouts, views, strict=True):
        span, shape = slice(layout.first, layout.first + layout.images * layout.width), (layout.images, layout.width)
        unpacked.append(DeviceParams(buffer[span].view(shape), single[span].view(*shape, 1, 1), layout, rows, host))
    return unpacked
