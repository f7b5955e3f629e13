"""A slide at a glance: what was taken for tissue, and what became of every tile.

Shapes: H, W of the overview.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.wsi.finish import faults
from encoders.ingest.wsi.piece import DAMAGED, count, read_table
from encoders.ingest.wsi.plan import LITTLE, NOT_DRAWN, OUTSIDE, Plan
from encoders.runtime.files import atomic

SIDE = 560  # pixels of the longer side of each half
KEPT = "kept"
FILL = {KEPT: 40, LITTLE: 50}  # of 255: thin where most tiles are, so that the slide stays visible
COLOURS = {  # of Paul Tol's bright and muted schemes: told apart by colour-blind eyes too
    KEPT: (0, 150, 90),
    LITTLE: (170, 170, 170),
    OUTSIDE: (120, 110, 190),
    NOT_DRAWN: (90, 170, 230),
    "blurred": (220, 150, 0),
    "pen": (30, 60, 200),
    "white": (225, 225, 120),
    "black": (20, 20, 20),
    DAMAGED: (220, 30, 60),
}


def save_picture(plan: Plan, folder: Path, path: Path) -> None:
    """JPEG: left the overview with the outline of the mask, right the tiles coloured by what became of them."""
    from PIL import Image

    view = Image.open(io.BytesIO(plan.overview)).convert("RGB")
    mask = np.asarray(Image.open(io.BytesIO(plan.mask)).convert("L")) > 0
    ratio = SIDE / max(view.size)
    size = max(1, round(view.width * ratio)), max(1, round(view.height * ratio))
    large = view.resize(size, Image.Resampling.BICUBIC)
    outlined = Image.fromarray(outline(np.asarray(large), np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))))
    both = Image.new("RGB", (2 * size[0] + 8, size[1]), "white")
    both.paste(outlined, (0, 0))
    both.paste(tiled(large, plan, folder), (size[0] + 8, 0))
    with atomic(path) as part:
        both.save(part, "JPEG", quality=85, subsampling=0)


def outline(image: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The image (H, W, 3), paler outside the mask, its border drawn."""
    from scipy import ndimage

    out = np.where(mask[..., None], image, 128 + image // 2)
    out[ndimage.binary_dilation(mask, iterations=2) & ~mask] = COLOURS[KEPT]
    return out


def tiled(view: Any, plan: Plan, folder: Path) -> Any:
    """The overview with every tile of the grid over it: filled thinly, and framed where there is room for a frame."""
    from PIL import Image, ImageDraw

    tables = [read_table(folder, number) for number in range(count(len(plan.x)))]
    kept = np.concatenate([np.empty(0, np.int64), *(table["kept"] for table in tables)]).astype(np.int64)
    where = {**plan.rejected, **faults(tables), KEPT: np.stack([plan.x[kept], plan.y[kept]], 1).tolist()}
    ox, oy, width, height = plan.facts["bounds"]
    sx, sy = view.width / width, view.height / height
    side = plan.cut.field[0] * sx, plan.cut.field[1] * sy
    layer = Image.new("RGBA", view.size)
    draw = ImageDraw.Draw(layer)
    for reason, corners in where.items():
        colour = COLOURS[reason]
        for x, y in corners:
            left, top = (x - ox) * sx, (y - oy) * sy
            frame = (*colour, 230) if min(side) > 6 else None
            draw.rectangle((left, top, left + side[0] - 1, top + side[1] - 1), fill=(*colour, FILL.get(reason, 110)), outline=frame)
    return Image.alpha_composite(view.convert("RGBA"), layer).convert("RGB")
