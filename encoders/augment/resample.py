"""Resampling as weights: a crop, a flip and a change of size are one matrix per axis.

    view = rows @ image @ columns^T

The weights are Pillow's: a triangle or Keys cubic (a = -0.5), widened by the reduction factor, cut at the crop's border and
normalised. The matrices are narrow bands. On a CPU each image is multiplied band by band, in blocks of about 56 output pixels, which does
a quarter of the work and is two to three times as fast as `interpolate(antialias=True)`; axes that are not reduced are left to OpenCV
(`resize_crops`). Each image is computed alone, so that a row does not depend on the rest of the batch. On a CUDA device the whole batch
is multiplied by full matrices: (out, in) floats per image and axis, 103 MB for 256 images from 224 to 224 pixels.

Shapes: B images, C channels, H, W pixels of the source, S of the view, N blocks of P outputs each, K inputs that a block reads.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from encoders.runtime.arrays import Array, BoolArray, FloatArray, IntArray
from encoders.runtime.device_constant import device_constant

OUTPUTS_PER_BLOCK = 56  # outputs per block: narrower ones do less work in more calls; fastest at 224 pixels


class Band(NamedTuple):
    """Blocks of a banded matrix for each of B images."""

    weight: Tensor  # (B, N, P, K) float32; beyond an image's own `width` it is zero
    start: IntArray  # (B, N) first input of a block
    width: IntArray  # (B,) inputs of a block that this image needs


def uses_dense_matrices(device: torch.device) -> bool:
    """Whether the whole batch is computed at once, on full matrices, rather than image by image in the cache."""
    return device.type == "cuda"


def resize_band(low: FloatArray, extent: FloatArray, flip: BoolArray, cubic: bool, n_in: int, n_out: int) -> Band:
    """The band that maps inputs [low, low + extent) to `n_out` outputs, reversed where `flip`.  low, extent, flip: (B,)."""
    n = max(1, round(n_out / OUTPUTS_PER_BLOCK))
    size = -(-n_out // n)
    step = extent / n_out
    reach = np.maximum(step, 1.0) * (2 if cubic else 1)
    output = np.arange(n * size).reshape(n, size)
    output = np.where(flip[:, None, None], n_out - 1 - output, output)  # (B, N, P); those beyond n_out are computed and never used
    centre = low[:, None, None] + (output + 0.5) * step[:, None, None] - 0.5  # in input pixels
    start, width = _block_windows(centre.min(2) - reach[:, None], np.ceil(size * step + 2 * reach) + 1, n_in)
    offset, k = _kernel_offsets(centre, start, width)
    weight = _resample_kernel(offset / _to_float_tensor(np.maximum(step, 1.0))[:, None, None, None], cubic)
    first = _to_float_tensor(low[:, None] - start)[:, :, None, None]
    inside = (k >= first) & (k < first + _to_float_tensor(extent)[:, None, None, None])  # (B, N, 1, K)
    weight = weight.mul_(inside)
    return Band(weight.div_(weight.sum(-1, keepdim=True).clamp_min_(1e-12)), start, width)  # rows beyond n_out may be empty


class BandRow(NamedTuple):
    """The matrix of one image among those of a band."""

    band: Band
    row: int

    @property
    def used(self) -> slice:
        """The inputs that the matrix reads."""
        start = self.band.start[self.row]
        return slice(int(start.min()), int(start.max() + self.band.width[self.row]))

    def blocks(self, n_out: int) -> Iterator[tuple[slice, slice, Tensor]]:
        """For each block: its outputs, its inputs, and its weights (P, K)."""
        width, per = int(self.band.width[self.row]), self.band.weight.shape[2]
        for n, start in enumerate(self.band.start[self.row].tolist()):
            yield slice(n * per, (n + 1) * per), slice(start, start + width), self.band.weight[self.row, n, : n_out - n * per, :width]


def apply_bands(images: Tensor, rows: Band, columns: Band, size: tuple[int, int]) -> Tensor:
    """`rows @ image @ columns^T` for each image: (B, C, H, W) -> (B, C, *size)."""
    out = images.new_empty((*images.shape[:2], *size))
    for i, image in enumerate(images):
        apply_band_pair(image, BandRow(rows, i), BandRow(columns, i), out[i])
    return out


def apply_band_pair(image: Tensor, rows: BandRow, columns: BandRow, out: Tensor) -> None:
    """`rows @ image @ columns^T` of one image (C, H, W), into `out` (C, S, T)."""
    tall = image.new_empty((len(image), out.shape[1], image.shape[2]))
    used = columns.used
    multiply_rows(image[..., used], rows, tall[..., used])
    multiply_columns(tall, columns, out)


def multiply_rows(image: Tensor, rows: BandRow, out: Tensor) -> None:
    """`rows @ image`: (C, H, W) into (C, S, W)."""
    for outputs, inputs, weight in rows.blocks(out.shape[1]):
        for plane, target in zip(image, out, strict=True):
            torch.mm(weight, plane[inputs], out=target[outputs])


def multiply_columns(image: Tensor, columns: BandRow, out: Tensor) -> None:
    """`image @ columns^T`: contiguous (C, H, W) into contiguous (C, H, T)."""
    lines, view = image.view(-1, image.shape[2]), out.view(-1, out.shape[2])
    for outputs, inputs, weight in columns.blocks(out.shape[2]):
        torch.mm(lines[:, inputs], weight.t(), out=view[:, outputs])


def _block_windows(first: FloatArray, width: FloatArray, n_in: int) -> tuple[IntArray, IntArray]:
    """First input of each block (B, N) and the number of inputs it reads (B,), within the image."""
    count = np.minimum(width, n_in).astype(np.int64)
    return np.clip(np.floor(first).astype(np.int64), 0, (n_in - count)[:, None]), count


def _kernel_offsets(centre: FloatArray, start: IntArray, width: IntArray) -> tuple[Tensor, Tensor]:
    """Input minus centre (B, N, P, K), and the inputs counted from the block's start (K,). Small numbers, so float32 is exact enough."""
    k = torch.arange(int(width.max()), dtype=torch.float32)
    return k - _to_float_tensor(centre - start[:, :, None])[..., None], k[None, None, None]


def _resample_kernel(x: Tensor, cubic: bool) -> Tensor:
    """Triangle, or Keys' cubic with a = -0.5 (as Pillow; torch without antialias has -0.75)."""
    x = x.abs_()
    if not cubic:
        return x.neg_().add_(1.0).clamp_min_(0.0)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return torch.where(x < 1, near, far.mul_(x < 2))


def _to_float_tensor(array: Array) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def resize_matrices(low: Tensor, extent: Tensor, flip: Tensor | None, outputs: Tensor | int, n_out: int, n_in: int, cubic: bool) -> Tensor:
    """(B, 2, n_out, n_in) float32: for each image the matrices of its rows and columns, which map inputs [low, low + extent) to outputs.

    low, extent: (B, 2) float64 in pixels.  flip: (B, 2) float64, 1 where the outputs are reversed.  outputs: how many there are, (B, 2)
    float64 where images differ; matrix rows beyond them are zero."""
    step = extent / outputs
    first = torch.add(low - 0.5, step, alpha=0.5)  # the centre of output 0, in input pixels
    if flip is not None:
        first, signed = torch.addcmul(first, flip, extent - step), step * torch.rsub(flip, 1, alpha=2)
    output = device_constant(np.arange, n_out, like=low)
    centre = torch.addcmul(first[..., None], step[..., None] if flip is None else signed[..., None], output)  # (B, 2, n_out)
    whole = centre.floor()  # subtracted by itself: in float32 the distance from the centre is then exact to the last bit
    place = device_constant(np.arange, n_in, like=low)
    x = (device_constant(_float_numbers, n_in, like=low) - whole.float()[..., None]).sub_((centre - whole).float()[..., None])
    weight = _resample_kernel(x.div_(step.clamp_min(1.0).float()[..., None, None]), cubic)  # (B, 2, n_out, n_in)
    weight *= ((place >= low[..., None]) & (place < (low + extent)[..., None]))[..., None, :]
    weight /= weight.sum(-1, keepdim=True).clamp_min_(1e-12)
    return weight if isinstance(outputs, int) else weight.mul_((output < outputs[..., None])[..., None])


def _float_numbers(n: int) -> Array:
    return np.arange(n, dtype=np.float32)


def multiply_axes(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """`rows @ image @ columns^T` for each image: (B, C, H, W), (B, S, H), (B, T, W) -> (B, C, S, T)."""
    b, c, h, w = images.shape
    narrow = torch.bmm(images.reshape(b, c * h, w), columns.transpose(1, 2)).view(b * c, h, columns.shape[1])
    per_channel = rows if c == 1 else rows.repeat_interleave(c, 0)
    return torch.bmm(per_channel, narrow).view(b, c, rows.shape[1], columns.shape[1])
