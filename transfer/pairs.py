"""The pairs of a leak side by side, as a picture: people believe what they see."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from encoders.runtime.files import atomic
from transfer.leak import Leak

SIDE, GAP = 160, 6  # pixels


def picture(store: Any, leaks: Sequence[Leak], path: Path) -> Path | None:
    """A PNG with a line for each pair of the leaks, left and right image; None if no leak has pairs of this store."""
    from PIL import Image

    pairs = [pair for leak in leaks for pair in leak.pairs]
    if not pairs:
        return None
    sheet = np.full((len(pairs) * (SIDE + GAP), 2 * SIDE + GAP, 3), 255, np.uint8)
    for line, pair in enumerate(pairs):
        for column, row in enumerate(pair):
            top, left = line * (SIDE + GAP), column * (SIDE + GAP)
            sheet[top : top + SIDE, left : left + SIDE] = _shown(store, row)
    with atomic(path) as part:
        Image.fromarray(sheet).save(part, format="PNG")
    return path


def _shown(store: Any, row: int) -> np.ndarray:
    """(SIDE, SIDE, 3) uint8."""
    from PIL import Image

    pixels = (store.unit_images([row])[0] * 255).round().astype(np.uint8)  # (H, W, C)
    return np.asarray(Image.fromarray(pixels.squeeze()).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BICUBIC))
