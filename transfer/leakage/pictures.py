"""Draws the image pairs of data leaks side by side, so that users can check them by eye."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.files import atomic_write
from transfer.leakage.check import Leak

if TYPE_CHECKING:
    from encoders.store.store import Store

PAIR_SIDE, PAIR_GAP = 160, 6  # pixels


def draw_leak_pairs(store: "Store", leaks: Sequence[Leak], path: Path) -> Path | None:
    """Writes a PNG with one row per pair of the leaks, left and right image; None if no leak has pairs in this store."""
    from PIL import Image

    pairs = [pair for leak in leaks for pair in leak.pairs]
    if not pairs:
        return None
    sheet = np.full((len(pairs) * (PAIR_SIDE + PAIR_GAP), 2 * PAIR_SIDE + PAIR_GAP, 3), 255, np.uint8)
    for line, pair in enumerate(pairs):
        for column, row in enumerate(pair):
            top, left = line * (PAIR_SIDE + PAIR_GAP), column * (PAIR_SIDE + PAIR_GAP)
            sheet[top : top + PAIR_SIDE, left : left + PAIR_SIDE] = _render_image(store, row)
    with atomic_write(path) as part:
        Image.fromarray(sheet).save(part, format="PNG")
    return path


def _render_image(store: "Store", row: int) -> Array:
    """(PAIR_SIDE, PAIR_SIDE, 3) uint8."""
    from PIL import Image

    pixels = (store.unit_images([row])[0] * 255).round().astype(np.uint8)  # (H, W, C)
    return np.asarray(Image.fromarray(pixels.squeeze()).convert("RGB").resize((PAIR_SIDE, PAIR_SIDE), Image.Resampling.BICUBIC))
