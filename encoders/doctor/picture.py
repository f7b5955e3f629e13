"""A picture of the most similar pairs of a store: both images and their difference, for judging by eye whether they are copies.

Shapes: P pairs.
"""

from pathlib import Path

import numpy as np

from encoders.runtime.arrays import FloatArray, IntArray
from encoders.runtime.files import atomic_write
from encoders.store.store import Store

PANEL_SIDE, PANEL_GAP, CAPTION_HEIGHT = 192, 6, 46  # pixels: side of a panel, space between panels, height of the text above a pair


def draw_pairs(store: Store, pairs: IntArray, distance: IntArray, path: Path) -> None:
    """Writes a PNG with one row per pair: distance, keys and patients above both images and their difference.

    pairs: (P, 2) rows of the store.  distance: (P,) bits of 256."""
    from PIL import Image, ImageDraw

    width = 3 * PANEL_SIDE + 4 * PANEL_GAP
    sheet = Image.new("RGB", (width, len(pairs) * (PANEL_SIDE + CAPTION_HEIGHT) + CAPTION_HEIGHT // 2), "white")
    pen = ImageDraw.Draw(sheet)
    keys, patients = store.column("key"), store.column("patient")
    pen.text((PANEL_GAP, 4), "most similar pairs with different pixels: first, second, absolute difference", fill="black")
    for row, ((i, j), bits) in enumerate(zip(pairs, distance, strict=True)):
        top = CAPTION_HEIGHT // 2 + row * (PANEL_SIDE + CAPTION_HEIGHT)
        relation = "same patient" if patients[i] == patients[j] else "two patients"
        pen.text((PANEL_GAP, top + 2), f"{bits} of 256 bits apart, {relation}", fill="black")
        pen.text((PANEL_GAP, top + 15), shorten_key(str(keys[i])), fill="black")
        pen.text((PANEL_GAP, top + 28), shorten_key(str(keys[j])), fill="black")
        first, second = read_panel(store, int(i)), read_panel(store, int(j))
        for column, panel in enumerate((first, second, np.abs(first - second))):
            sheet.paste(
                Image.fromarray(np.rint(panel * 255).astype(np.uint8)),
                (PANEL_GAP + column * (PANEL_SIDE + PANEL_GAP), top + CAPTION_HEIGHT - 4),
            )
    with atomic_write(path) as part:
        sheet.save(part, "PNG")


def read_panel(store: Store, i: int) -> FloatArray:
    """(PANEL_SIDE, PANEL_SIDE, 3) in [0, 1]: the image of a row."""
    from PIL import Image

    image = store.unit_images([i])[0]
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    picture = Image.fromarray(np.rint(image * 255).astype(np.uint8)).resize((PANEL_SIDE, PANEL_SIDE), Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.float64) / 255


def shorten_key(text: str, max_length: int = 92) -> str:
    """The end of a long key, where keys differ."""
    return text if len(text) <= max_length else "..." + text[3 - max_length :]
