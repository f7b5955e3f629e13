"""Made-up slides: tiled TIFF pyramids that OpenSlide reads, with levels of any size."""

import io

import numpy as np
import tifffile
from PIL import Image


def write_slide(path, levels, mpp=0.25, **options):
    """levels: (H, W, 3 or 4) arrays, the largest first.  mpp: um a pixel of the first; None: not said."""
    path.parent.mkdir(parents=True, exist_ok=True)
    said = {} if mpp is None else {"resolution": (10_000 / mpp, 10_000 / mpp), "resolutionunit": 3}
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            alpha = {"extrasamples": ["unassalpha"]} if level.shape[2] == 4 else {}
            kind = {"tile": (256, 256), "photometric": "rgb", "metadata": None, **alpha, **options}
            file.write(level, subfiletype=int(number > 0), **kind, **(said if number == 0 else {}))
    return path


def tissue_like(height, width, seed=0):
    """(H, W, 3) uint8: pink and violet, with detail from 2 to 64 pixels."""
    rng = np.random.default_rng(seed)
    detail = np.zeros((height, width))
    for size in (2, 8, 64):
        cells = rng.random((-(-height // size), -(-width // size)))
        detail += np.kron(cells, np.ones((size, size)))[:height, :width]
    detail = (detail / 3)[..., None]
    return np.rint(detail * [235, 120, 190] + (1 - detail) * [120, 30, 130]).astype(np.uint8)


def halved(image):
    """(H // 2, W // 2, C): means of 2 x 2 pixels."""
    h, w = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    return np.rint(image[:h, :w].reshape(h // 2, 2, w // 2, 2, -1).mean((1, 3))).astype(np.uint8)


def on_glass(height, width, boxes, seed=0):
    """Pale glass with tissue in the boxes (top, left, height, width)."""
    image = np.full((height, width, 3), 243, np.uint8)
    for k, (top, left, h, w) in enumerate(boxes):
        image[top : top + h, left : left + w] = tissue_like(h, w, seed + k)
    return image


def write_jpeg_slide(path, sizes, tile_at, mpp=0.25, side=256):
    """A pyramid of JPEG tiles that are made one at a time, however large it is.

    sizes: (W, H) of the levels, the largest first.  tile_at(level, row, column): the bytes of a JPEG of `side` pixels."""
    with tifffile.TiffWriter(path, bigtiff=True) as file:
        for level, (width, height) in enumerate(sizes):
            grid = np.ndindex(-(-height // side), -(-width // side))
            file.write(
                (tile_at(level, row, column) for row, column in grid),
                shape=(height, width, 3),
                dtype=np.uint8,
                tile=(side, side),
                photometric="ycbcr",
                compression="jpeg",
                subsampling=(2, 2),
                subfiletype=int(level > 0),
                metadata=None,
                **({"resolution": (10_000 / mpp, 10_000 / mpp), "resolutionunit": 3} if level == 0 else {}),
            )
    return path


def jpeg_tile(pixels, quality=80):
    """A JPEG, 4:2:0, of (side, side, 3)."""
    blob = io.BytesIO()
    Image.fromarray(pixels).save(blob, "JPEG", quality=quality, subsampling=2)
    return blob.getvalue()
