"""Is a pair that the hash suspects one picture? Asked of the pixels, as fine structure at 32 x 32.

Both images are shrunk, and the Laplacian of one is correlated with that of the other: what two chests or two tissues have in common lies in
coarse structure, which the Laplacian takes away, and brightness, contrast and compression hardly touch it. Measured on 60 images each of
Kermany, Hannover and LC25000: JPEG at quality 50, halving and quartering the size, gamma 0.8 and 1.25 and a window that cuts a tenth at
either end keep at least .959. The 400 pairs nearest in hash reach .881 (two patients) and .924 (one patient, two exposures), LC25000's
slightly turned copies .859. So these stay suspected: this confirms copies, not views.

Shapes: H, W, C of one image.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

COMPARE_SIDE = 32  # pixels
MIN_CORRELATION = 0.94  # between .924 and .959


def structure_correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Correlation of the fine structure of two (H, W, C) images, whatever their sizes; 0 where one has none."""
    x, y = fine_structure(a), fine_structure(b)
    size = np.sqrt((x**2).sum() * (y**2).sum())
    return float((x * y).sum() / size) if size > 0 else 0.0


def fine_structure(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """(SIDE, SIDE) Laplacian of the shrunk gray image, its mean taken away."""
    from PIL import Image

    gray = Image.fromarray(np.asarray(image, np.float32).mean(axis=2))
    small = np.asarray(gray.resize((COMPARE_SIDE, COMPARE_SIDE), Image.Resampling.BOX), dtype=np.float64)
    p = np.pad(small, 1, mode="edge")
    laplacian = 4 * small - p[:-2, 1:-1] - p[2:, 1:-1] - p[1:-1, :-2] - p[1:-1, 2:]
    return laplacian - laplacian.mean()


def is_same_image(store: Any, i: int, j: int) -> bool:
    """Whether two images of a store are one picture."""
    return structure_correlation(store.unit_images([i])[0], store.unit_images([j])[0]) >= MIN_CORRELATION
