"""The nearest pairs of a store as one picture: the two images and their difference, so that an eye can say whether they are copies.

Shapes: P pairs, H, W of a panel.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.files import atomic_write
from encoders.store.store import Store

PANEL_SIDE, PANEL_GAP, CAPTION_HEIGHT = 192, 6, 46  # pixels: a panel's side, the space between, the text above a pair


def draw_pairs(store: Store, pairs: NDArray[np.int64], distance: NDArray[np.int64], path: Path) -> None:
    """Writes a PNG: a row a pair, with its distance (bits of 256), keys and patients above it."""
    from PIL import Image, ImageDraw

    width = 3 * PANEL_SIDE + 4 * PANEL_GAP
    sheet = Image.new("RGB", (width, len(pairs) * (PANEL_SIDE + CAPTION_HEIGHT) + CAPTION_HEIGHT // 2), "white")
    pen = ImageDraw.Draw(sheet)
    keys, patients = store.column("key"), store.column("patient")
    pen.text((PANEL_GAP, 4), "nearest pairs of unlike pixels: one, other, absolute difference", fill="black")
    for row, ((i, j), bits) in enumerate(zip(pairs, distance, strict=True)):
        top = CAPTION_HEIGHT // 2 + row * (PANEL_SIDE + CAPTION_HEIGHT)
        whose = "one patient" if patients[i] == patients[j] else "two patients"
        pen.text((PANEL_GAP, top + 2), f"{bits} of 256 bits apart, {whose}", fill="black")
        pen.text((PANEL_GAP, top + 15), shorten_key(str(keys[i])), fill="black")
        pen.text((PANEL_GAP, top + 28), shorten_key(str(keys[j])), fill="black")
        one, other = read_panel(store, int(i)), read_panel(store, int(j))
        for column, part in enumerate((one, other, np.abs(one - other))):
            sheet.paste(
                Image.fromarray(np.rint(part * 255).astype(np.uint8)),
                (PANEL_GAP + column * (PANEL_SIDE + PANEL_GAP), top + CAPTION_HEIGHT - 4),
            )
    with atomic_write(path) as part_file:
        sheet.save(part_file, "PNG")


def read_panel(store: Store, i: int) -> NDArray[Any]:
    """(PANEL, PANEL, 3) in [0, 1]."""
    from PIL import Image

    image = store.unit_images([i])[0]
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    picture = Image.fromarray(np.rint(image * 255).astype(np.uint8)).resize((PANEL_SIDE, PANEL_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.float64) / 255


def shorten_key(text: str, most: int = 92) -> str:
    """The end of a long key: names differ there."""
    return text if len(text) <= most else "..." + text[3 - most :]
