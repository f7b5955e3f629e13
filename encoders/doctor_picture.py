"""The nearest pairs of a store as one picture: the two images and their difference, so that an eye can say whether they are copies.

Shapes: P pairs, H, W of a panel.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.files import atomic
from encoders.store import Store

PANEL, GAP, LINE = 192, 6, 46  # pixels: a panel's side, the space between, the text above a pair


def draw_pairs(store: Store, pairs: NDArray[np.int64], distance: NDArray[np.int64], path: Path) -> None:
    """Writes a PNG: a row a pair, with its distance (bits of 256), keys and patients above it."""
    from PIL import Image, ImageDraw

    width = 3 * PANEL + 4 * GAP
    sheet = Image.new("RGB", (width, len(pairs) * (PANEL + LINE) + LINE // 2), "white")
    pen = ImageDraw.Draw(sheet)
    keys, patients = store.column("key"), store.column("patient")
    pen.text((GAP, 4), "nearest pairs of unlike pixels: one, other, absolute difference", fill="black")
    for row, ((i, j), bits) in enumerate(zip(pairs, distance, strict=True)):
        top = LINE // 2 + row * (PANEL + LINE)
        whose = "one patient" if patients[i] == patients[j] else "two patients"
        pen.text((GAP, top + 2), f"{bits} of 256 bits apart, {whose}", fill="black")
        pen.text((GAP, top + 15), short(str(keys[i])), fill="black")
        pen.text((GAP, top + 28), short(str(keys[j])), fill="black")
        one, other = panel(store, int(i)), panel(store, int(j))
        for column, part in enumerate((one, other, np.abs(one - other))):
            sheet.paste(Image.fromarray(np.rint(part * 255).astype(np.uint8)), (GAP + column * (PANEL + GAP), top + LINE - 4))
    with atomic(path) as part_file:
        sheet.save(part_file, "PNG")


def panel(store: Store, i: int) -> NDArray[Any]:
    """(PANEL, PANEL, 3) in [0, 1]."""
    from PIL import Image

    image = store.unit_images([i])[0]
    image = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    picture = Image.fromarray(np.rint(image * 255).astype(np.uint8)).resize((PANEL, PANEL), Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.float64) / 255


def short(text: str, most: int = 92) -> str:
    """The end of a long key: names differ there."""
    return text if len(text) <= most else "..." + text[3 - most :]
