"""Confirms on the pixels that two images with similar hashes are copies, by their fine structure at 32 x 32 pixels.

Both images are shrunk, and their Laplacians are correlated. Different chests or tissues share coarse structure, which the Laplacian
removes; brightness, contrast and compression hardly change it. One of them may be turned first: flipped, rotated by quarter turns, inverted
(encoders/similarity/turns.py). Uniform borders may be part of either image or not, so that the images are compared with and without theirs,
and the larger one also after it was shrunk to the size of the smaller, because shrinking in two steps smooths more than in one. The highest
correlation counts.

Measured (docs/benchmark.md, Copies): most copies correlate by 0.95 and more, the nearest pairs of different patients by at most 0.59 (0.56
mirrored), images of one patient by at most 0.58, and copies of LC25000 that were also rotated by a few degrees by at most 0.87. An earlier
measurement found two exposures of one patient at 0.924. So this confirms copies, and neither other exposures nor small rotations.

Shapes: H, W, C of one image.
"""

from itertools import product
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from encoders.similarity.borders import Content, trim_borders
from encoders.similarity.turns import TURNS, Turn

COMPARE_SIDE = 32  # pixels
MIN_CORRELATION = 0.94  # between 0.924 and 0.95


class ImageReader(Protocol):
    """The part of a store that reads images."""

    def unit_images(self, index: ArrayLike) -> NDArray[np.float32]:
        """(B, H, W, C) in [0, 1]."""


def are_copies(a: NDArray[np.floating], b: NDArray[np.floating], turn: Turn = TURNS[0]) -> bool:
    """Whether the (H, W, C) image `b` shows the same as `a` under `turn`."""
    return structure_correlation(a, b, turn) >= MIN_CORRELATION


def structure_correlation(a: NDArray[np.floating], b: NDArray[np.floating], turn: Turn = TURNS[0]) -> float:
    """Correlation of the fine structure of `b` with that of `a` under `turn`, (H, W, C) of any sizes; 0 if one has no structure."""
    turned, other = list_contents(mean_channel(a), turn), list_contents(mean_channel(b), TURNS[0])
    return max(correlate_contents(x, y) for x, y in product(turned, other))


def mean_channel(image: NDArray[np.floating]) -> NDArray[np.float32]:
    """(H, W)."""
    return np.asarray(np.asarray(image, np.float32).mean(axis=2))


def list_contents(gray: NDArray[np.float32], turn: Turn) -> list[Content]:
    """The turned (H, W) image, and the same without its uniform borders if it has any."""
    turned = np.ascontiguousarray(turn.apply(-gray if turn.inverted else gray))
    trimmed = trim_borders(turned)
    return [Content(turned, (0, 0, turned.shape[1], turned.shape[0])), *([] if trimmed is None else [trimmed])]


def correlate_contents(a: Content, b: Content) -> float:
    """The higher of the correlations of both as they are, and of both at the size of the smaller."""
    size = min(a.width, b.width), min(a.height, b.height)
    found = correlate(fine_structure(a), fine_structure(b))
    if (a.width, a.height) != (b.width, b.height) and min(size) >= COMPARE_SIDE:
        found = max(found, correlate(fine_structure(a.shrink_to(size)), fine_structure(b.shrink_to(size))))
    return found


def correlate(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """The correlation of two structures; 0 if one of them is empty."""
    size = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / size) if size > 0 else 0.0


def fine_structure(content: Content) -> NDArray[np.float64]:
    """(COMPARE_SIDE, COMPARE_SIDE) Laplacian of the shrunk image, minus its mean."""
    from PIL import Image

    shrunk = Image.fromarray(content.gray).resize((COMPARE_SIDE, COMPARE_SIDE), Image.Resampling.BOX, box=content.box)
    small = np.asarray(shrunk, dtype=np.float64)
    p = np.pad(small, 1, mode="edge")
    laplacian = 4 * small - p[:-2, 1:-1] - p[2:, 1:-1] - p[1:-1, :-2] - p[1:-1, 2:]
    return np.asarray(laplacian - laplacian.mean())


def is_same_image(store: ImageReader, i: int, j: int, turn: Turn = TURNS[0]) -> bool:
    """Whether image j of a store is a copy of image i, or of image i under `turn`."""
    return are_copies(store.unit_images([i])[0], store.unit_images([j])[0], turn)
