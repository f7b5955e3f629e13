"""The pairs of a leak side by side, as a picture: people believe what they see."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encoders.runtime.files import atomic_write
from transfer.leakage.check import Leak

PAIR_SIDE, PAIR_GAP = 160, 6  # pixels


def draw_leak_pairs(store: Any, leaks: Sequence[Leak], path: Path) -> Path | None:
    """A PNG with a line for each pair of the leaks, left and right image; None if no leak has pairs of this store."""
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


def _render_image(store: Any, row: int) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8."""
    from PIL import Image

    pixels = (store.unit_images([row])[0] * 255).round().astype(np.uint8)  # (H, W, C)
    return np.asarray(Image.fromarray(pixels.squeeze()).convert("RGB").resize((PAIR_SIDE, PAIR_SIDE), Image.Resampling.BICUBIC))
