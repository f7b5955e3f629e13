"""Draws the image pairs of data leaks side by side, so that users can check them by eye."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.files import atomic_write
from encoders.similarity.pixel_check import ImageReader
from transfer.leakage.check import Leak, PicturedPair

PAIR_SIDE, PAIR_GAP = 160, 6  # pixels


def draw_leak_pairs(store: ImageReader, leaks: Sequence[Leak], path: Path) -> Path | None:
    """Writes a PNG with one row per pair of the leaks, left and right image; None if no leak has pairs whose pixels are available.

    store: of the task."""
    from PIL import Image

    pairs = [PicturedPair((store, i), (store, j)) for leak in leaks for i, j in leak.pairs]
    pairs += [pair for leak in leaks for pair in leak.pictures]
    if not pairs:
        return None
    sheet = np.full((len(pairs) * (PAIR_SIDE + PAIR_GAP), 2 * PAIR_SIDE + PAIR_GAP, 3), 255, np.uint8)
    for line, pair in enumerate(pairs):
        for column, (reader, row) in enumerate(pair):
            top, left = line * (PAIR_SIDE + PAIR_GAP), column * (PAIR_SIDE + PAIR_GAP)
            sheet[top : top + PAIR_SIDE, left : left + PAIR_SIDE] = _render_image(reader, row)
    with atomic_write(path, private=True) as part:  # it shows patients
        Image.fromarray(sheet).save(part, format="PNG")
    return path


def _render_image(store: ImageReader, row: int) -> Array:
    """(PAIR_SIDE, PAIR_SIDE, 3) uint8."""
    from PIL import Image

    pixels = (store.unit_images([row])[0] * 255).round().astype(np.uint8)  # (H, W, C)
    return np.asarray(Image.fromarray(pixels.squeeze()).convert("RGB").resize((PAIR_SIDE, PAIR_SIDE), Image.Resampling.BICUBIC))
