"""The thumbnail of a slide: the outline of the tissue mask, and the outcome of every tile.

Shapes: H, W of the overview.
"""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.wsi.coordinate_grid import DUPLICATE, OUTSIDE_SLIDE
from encoders.ingest.wsi.merge_slide import gather_faults
from encoders.ingest.wsi.tile_plan import LITTLE_TISSUE, NOT_SAMPLED, OUTSIDE_REGIONS, TilePlan
from encoders.ingest.wsi.tile_shard import DAMAGED, count_tile_shards, read_tile_table
from encoders.runtime.arrays import BoolArray
from encoders.runtime.files import atomic_write

if TYPE_CHECKING:
    from PIL import Image

THUMBNAIL_SIDE = 560  # pixels, longer side of each half
KEPT = "kept"
FILL_ALPHA = {KEPT: 40, LITTLE_TISSUE: 50}  # of 255: low for the most frequent outcomes, so that the slide stays visible
OUTCOME_COLOURS = {  # from the bright and muted schemes of Paul Tol, which colour-blind people can distinguish
    KEPT: (0, 150, 90),
    LITTLE_TISSUE: (170, 170, 170),
    OUTSIDE_REGIONS: (120, 110, 190),
    NOT_SAMPLED: (90, 170, 230),
    OUTSIDE_SLIDE: (150, 60, 140),
    DUPLICATE: (200, 140, 190),
    "blurred": (220, 150, 0),
    "pen": (30, 60, 200),
    "white": (225, 225, 120),
    "black": (20, 20, 20),
    DAMAGED: (220, 30, 60),
}


def save_thumbnail(plan: TilePlan, folder: Path, path: Path) -> None:
    """Writes a JPEG: left, the overview with the outline of the mask; right, the tiles coloured by outcome."""
    from PIL import Image

    view = Image.open(io.BytesIO(plan.overview)).convert("RGB")
    mask = np.asarray(Image.open(io.BytesIO(plan.mask)).convert("L")) > 0
    ratio = THUMBNAIL_SIDE / max(view.size)
    size = max(1, round(view.width * ratio)), max(1, round(view.height * ratio))
    large = view.resize(size, Image.Resampling.BICUBIC)
    outlined = Image.fromarray(draw_outline(np.asarray(large), np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))))
    both = Image.new("RGB", (2 * size[0] + 8, size[1]), "white")
    both.paste(outlined, (0, 0))
    both.paste(draw_tiles(large, plan, folder), (size[0] + 8, 0))
    with atomic_write(path) as part:
        both.save(part, "JPEG", quality=85, subsampling=0)


def draw_outline(image: NDArray[np.uint8], mask: BoolArray) -> NDArray[np.uint8]:
    """The image (H, W, 3), paler outside the mask, with the outline of the mask."""
    from scipy import ndimage

    out = np.where(mask[..., None], image, 128 + image // 2)
    out[ndimage.binary_dilation(mask, iterations=2) & ~mask] = OUTCOME_COLOURS[KEPT]
    return out


def draw_tiles(view: "Image.Image", plan: TilePlan, folder: Path) -> "Image.Image":
    """The overview with every tile of the grid: with a transparent fill, and with a frame if the tile is large enough."""
    from PIL import Image, ImageDraw

    tables = [read_tile_table(folder, number) for number in range(count_tile_shards(len(plan.x)))]
    kept = np.concatenate([np.empty(0, np.int64), *(table["kept"] for table in tables)]).astype(np.int64)
    outcomes = {**plan.rejected, **gather_faults(tables), KEPT: np.stack([plan.x[kept], plan.y[kept]], 1).tolist()}
    ox, oy, width, height = plan.facts["bounds"]
    sx, sy = view.width / width, view.height / height
    side = plan.cut.field[0] * sx, plan.cut.field[1] * sy
    layer = Image.new("RGBA", view.size)
    draw = ImageDraw.Draw(layer)
    for reason, corners in outcomes.items():
        colour = OUTCOME_COLOURS[reason]
        for x, y in corners:
            left, top = (x - ox) * sx, (y - oy) * sy
            frame = (*colour, 230) if min(side) > 6 else None
            draw.rectangle((left, top, left + side[0] - 1, top + side[1] - 1), fill=(*colour, FILL_ALPHA.get(reason, 110)), outline=frame)
    return Image.alpha_composite(view.convert("RGBA"), layer).convert("RGB")
