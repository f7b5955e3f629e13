"""Synthetic slides: tiled TIFF pyramids that OpenSlide reads, with levels of any size."""

import io
import struct

import numpy as np
import tifffile
from PIL import Image


def write_slide(path, levels, mpp=0.25, **options):
    """levels: (H, W, 3 or 4) arrays, the largest first.  mpp: micrometres per pixel of the first; None: not stored."""
    path.parent.mkdir(parents=True, exist_ok=True)
    resolution_tags = {} if mpp is None else {"resolution": (10_000 / mpp, 10_000 / mpp), "resolutionunit": 3}
    with tifffile.TiffWriter(path) as file:
        for number, level in enumerate(levels):
            alpha = {"extrasamples": ["unassalpha"]} if level.shape[2] == 4 else {}
            kind = {"tile": (256, 256), "photometric": "rgb", "metadata": None, **alpha, **options}
            file.write(level, subfiletype=int(number > 0), **kind, **(resolution_tags if number == 0 else {}))
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


def halve_image(image):
    """(H // 2, W // 2, C): means of 2 x 2 pixels."""
    h, w = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    return np.rint(image[:h, :w].reshape(h // 2, 2, w // 2, 2, -1).mean((1, 3))).astype(np.uint8)


def draw_slide(height, width, boxes, seed=0):
    """Pale glass with tissue in the boxes (top, left, height, width)."""
    image = np.full((height, width, 3), 243, np.uint8)
    for k, (top, left, h, w) in enumerate(boxes):
        image[top : top + h, left : left + w] = tissue_like(h, w, seed + k)
    return image


def write_jpeg_slide(path, sizes, pictures, which, mpp=0.25, side=256):
    """A BigTIFF pyramid of JPEG tiles that share their bytes, so a huge slide is a small file.

    sizes: (W, H) of the levels, the largest first.  pictures: JPEGs, 4:2:0, of `side` pixels.  which(level): (rows, columns) of numbers
    of pictures.  tifffile writes no JPEG without imagecodecs, hence by hand; see the BigTIFF design of Aware Systems."""
    with path.open("wb") as file:
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))  # the last: where the first directory will be
        places = []
        for picture in pictures:
            places.append((file.tell(), len(picture)))
            file.write(picture)
        link = 8
        for level, (width, height) in enumerate(sizes):
            at = np.array(places, "<u8")[which(level).ravel()]  # (tiles, 2)
            offsets, counts = file.tell(), file.tell() + 8 * len(at)
            file.write(at[:, 0].tobytes() + at[:, 1].tobytes())
            ratio = struct.unpack("<Q", struct.pack("<II", round(10_000 / mpp * 1000), 1000))[0]
            tags = [
                (254, 4, 1, int(level > 0)), (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 8 | 8 << 16 | 8 << 32), (259, 3, 1, 7),
                (262, 3, 1, 6), (277, 3, 1, 3), (282, 5, 1, ratio), (283, 5, 1, ratio), (284, 3, 1, 1), (296, 3, 1, 3), (322, 4, 1, side),
                (323, 4, 1, side), (324, 16, len(at), offsets), (325, 16, len(at), counts), (530, 3, 2, 2 | 2 << 16),
            ]  # fmt: skip
            here = file.tell()
            file.write(struct.pack("<Q", len(tags)) + b"".join(struct.pack("<HHQQ", *tag) for tag in tags) + bytes(8))
            file.seek(link)
            file.write(struct.pack("<Q", here))
            file.seek(0, 2)
            link = file.tell() - 8
    return path


def jpeg_tile(pixels, quality=80):
    """A JPEG, 4:2:0, of (side, side, 3)."""
    blob = io.BytesIO()
    Image.fromarray(pixels).save(blob, "JPEG", quality=quality, subsampling=2)
    return blob.getvalue()
