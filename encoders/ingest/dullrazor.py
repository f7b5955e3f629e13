"""Removes dark hairs from dermoscopic images: DullRazor.

Source: Lee, Ng, Gallagher, Coldman, McLean 1997, "DullRazor: a software approach to hair removal from images", Comput Biol Med 27:533-543.

1. Hairs are what a generalised grayscale closing changes: in each band, the largest of the closings with a horizontal, a diagonal and a
   vertical line, minus the band. Pixels above a threshold in any band are candidates.
2. Candidates must be thin and long: wider regions are no hairs, nor are short ones.
3. Each hair pixel is replaced by bilinear interpolation between the two nearest pixels beside the hair, along the direction in which the
   hair is thinnest.
4. The replaced pixels are smoothed by a 5 x 5 median.

Departures: (a) lengths are for 512 pixels on the long side, as in the paper, and grow with the image. (b) Both diagonals are used.
(c) Thin and long are measured on connected regions: the paper's runs in eight directions miss curved hairs and hairs at other angles.
(d) The threshold, which the paper calls predefined, is 24 of 255. (e) The mask grows by one pixel, because the edge of a hair is blurred.

Light hairs, rulers and ink are not removed. A dark lesion that is thinner than a hair would be.

Shapes: H, W, C of one image; P hair pixels; 8 directions of a pixel, of which k and k + 4 are opposite.
"""

import functools

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.geometry import resize_bicubic
from encoders.ingest.source import Unreadable
from encoders.runtime.arrays import Array

HAIR_THRESHOLD = 24 / 255  # share of the range by which the closing must brighten a pixel
PAPER_SIDE = 512  # pixels of the long side to which the following lengths belong
LINE_LENGTHS = {(0, 1): 11, (1, 1): 9, (1, 0): 11, (1, -1): 9}  # direction of a structuring element -> its pixels
MIN_LENGTH, MAX_WIDTH = 50, 10  # pixels of a hair
MAX_SIDE = 1024  # larger images are reduced first, unless twice the stored size is larger
DIRECTIONS = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))


def remove_hairs(image: Array, size: int = 0) -> Array:
    """The image (H, W, C) without dark hairs; of the same dtype. Images far larger than the stored `size` are reduced first (MAX_SIDE).

    Raises Unreadable if hairs cover the whole image."""
    limit = max(MAX_SIDE, 2 * size)
    if size and max(image.shape[:2]) > limit:
        factor = limit / max(image.shape[:2])
        image = resize_bicubic(image, max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor)))
    mask = find_hair(image)
    if mask.all():
        raise Unreadable("is hair in every pixel, as --remove-hair sees it")
    return inpaint_hair(image, mask) if mask.any() else image


def find_hair(image: Array) -> NDArray[np.bool_]:
    """(H, W) whether a pixel belongs to a hair."""
    from scipy import ndimage

    scale = max(1.0, max(image.shape[:2]) / PAPER_SIDE)
    candidates = np.zeros(image.shape[:2], dtype=bool)
    threshold = HAIR_THRESHOLD * np.iinfo(image.dtype).max
    for c in range(image.shape[2]):
        band = image[..., c]
        closed = np.max([close_along_line(band, direction, n * scale) for direction, n in LINE_LENGTHS.items()], axis=0)
        candidates |= closed - band > threshold  # a closing is never darker than the image
    hair = keep_thin_and_long(candidates, MIN_LENGTH * scale, MAX_WIDTH * scale)
    return np.asarray(ndimage.binary_dilation(hair, np.ones((3, 3))))


def close_along_line(band: Array, direction: tuple[int, int], length: float) -> Array:
    """(H, W) grayscale closing with a line of `length` pixels, which fills what is darker and thinner than the line is long.

    The image is continued at its border by its mirror image."""
    reach = max(1, round(length) // 2)
    steps = [(direction[0] * k, direction[1] * k) for k in range(-reach, reach + 1)]
    closed = np.pad(band, 2 * reach, mode="symmetric")
    for extreme in (np.maximum, np.minimum):
        shape = (closed.shape[0] - 2 * reach, closed.shape[1] - 2 * reach)
        parts = (closed[reach + i : reach + i + shape[0], reach + j : reach + j + shape[1]] for i, j in steps)
        closed = functools.reduce(extreme, parts)
    return closed


def keep_thin_and_long(candidates: NDArray[np.bool_], min_length: float, max_width: float) -> NDArray[np.bool_]:
    """(H, W) the candidates in regions at least `min_length` long (diagonal of the bounding box) after wider parts were removed."""
    from scipy import ndimage

    radius = max_width / 2
    inner = ndimage.distance_transform_edt(candidates) > radius  # centres of parts that are too wide
    wide = ndimage.distance_transform_edt(~inner) <= radius + 1 if inner.any() else inner
    regions, _ = ndimage.label(candidates & ~wide, np.ones((3, 3)))
    long = [0]
    for number, box in enumerate(ndimage.find_objects(regions), start=1):
        if np.hypot(*(s.stop - s.start for s in box)) >= min_length:
            long.append(number)
    return np.isin(regions, long[1:])


def inpaint_hair(image: Array, mask: NDArray[np.bool_]) -> Array:
    """The image (H, W, C) with the pixels of `mask` (H, W) interpolated from both sides of the hair, then smoothed."""
    rows, columns = np.nonzero(mask)
    distance = np.stack([distance_to_skin(mask, rows, columns, direction) for direction in DIRECTIONS])  # (8, P), inf: none
    across = distance[:4] + distance[4:]  # (4, P) width of the hair in each direction
    one_sided = np.minimum(distance[:4], distance[4:]) + 10 * max(mask.shape)  # at the border of the image: the last choice
    best = np.where(np.isfinite(across), across, one_sided).argmin(axis=0)  # (P,)
    out, source = image.copy(), image.astype(np.float64)
    ends, weights = [], []
    for side in (best, best + 4):
        far = np.take_along_axis(distance, side[None], axis=0)[0]  # (P,)
        step = np.asarray(DIRECTIONS)[side] * np.where(np.isfinite(far), far, 0)[:, None].astype(int)
        ends.append(source[rows + step[:, 0], columns + step[:, 1]])  # (P, C)
        weights.append(np.where(np.isfinite(far), 1 / np.maximum(far, 1), 0))
    total = weights[0] + weights[1]
    filled = (ends[0] * weights[0][:, None] + ends[1] * weights[1][:, None]) / np.where(total > 0, total, 1)[:, None]
    known = total > 0
    out[rows[known], columns[known]] = np.rint(filled[known]).astype(image.dtype)
    return median_at(out, rows, columns)


def distance_to_skin(mask: NDArray[np.bool_], rows: Array, columns: Array, direction: tuple[int, int]) -> NDArray[np.float64]:
    """(P,) steps from each hair pixel to the first pixel outside of the mask in a direction; inf if the image ends before."""
    distance = np.full(len(rows), np.inf)
    left = np.arange(len(rows))
    for step in range(1, max(mask.shape)):
        r, c = rows[left] + direction[0] * step, columns[left] + direction[1] * step
        inside = (r >= 0) & (r < mask.shape[0]) & (c >= 0) & (c < mask.shape[1])
        left, r, c = left[inside], r[inside], c[inside]
        skin = ~mask[r, c]
        distance[left[skin]] = step
        left = left[~skin]
        if not len(left):
            break
    return distance


def median_at(image: Array, rows: Array, columns: Array, radius: int = 2) -> Array:
    """The image (H, W, C) whose pixels at (rows, columns) are the median of their neighbourhood."""
    padded = np.pad(image, ((radius, radius), (radius, radius), (0, 0)), mode="reflect" if min(image.shape[:2]) > radius else "edge")
    offsets = [(i, j) for i in range(2 * radius + 1) for j in range(2 * radius + 1)]
    around = np.stack([padded[rows + i, columns + j] for i, j in offsets])  # (25, P, C)
    out = image.copy()
    out[rows, columns] = np.median(around, axis=0).astype(image.dtype)
    return out
