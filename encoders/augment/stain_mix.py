"""Stain mixing: an image as if stained between its own way and that of another image of the corpus.

Source: Chang et al. 2021, "Stain Mix-Up", arXiv:2109.01483, with Macenko's stains. Departures: the partner is any image of the corpus, not
one of the batch, so that a view is a function of (seed, position, view) alone, whatever rank or micro-batch it is made in; and what the two
stains do not explain (pigment, pen) is kept as it is. In optical density that is one linear map an image.

Shapes: B images, H, W pixels.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.random import Purpose, uniform
from encoders.stain import methods

STAIN_SAMPLE_SIDE = 64  # pixels a side that stains are estimated from: every n-th of the image, a millisecond instead of a dozen


def draw_stain_maps(
    store: Any, images: NDArray[Any], pool: NDArray[np.int64], probability: float, seed: int, positions: NDArray[np.int64], view: int
) -> NDArray[np.float64]:
    """(B, 3, 3) maps of optical density; the identity where none is drawn, or an image has no two stains.

    images: (B, H, W, 3) in [0, 1].  pool: rows of the store, one of which is the partner."""
    drawn = uniform(seed, Purpose.STAIN_MIX, positions, view, 3)  # whether, how far, with whom
    maps = np.tile(np.eye(3), (len(images), 1, 1))
    for row in np.flatnonzero(drawn[:, 0] < probability):
        partner = int(pool[int(drawn[row, 2] * len(pool))])
        own, other = (
            methods.estimate_stains(subsample_pixels(images[row])),
            methods.estimate_stains(subsample_pixels(store.unit_images([partner])[0])),
        )
        if own is not None and other is not None:
            maps[row] = methods.density_mapping(own, methods.interpolate_stains(own, other, float(drawn[row, 1])), keep_rest=True)
    return maps


def subsample_pixels(image: NDArray[Any]) -> NDArray[Any]:
    """About SEEN x SEEN of its pixels."""
    step = max(1, min(image.shape[:2]) // STAIN_SAMPLE_SIDE)
    return image[::step, ::step]
