"""One shard: the pixels of some items end to end in one file, and a table that says what they are, or why an item is not there.

Shapes: H, W, C of one image.
"""

import io
import math
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.source import ImageRow, Source, Unreadable, is_gray
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, write_json
from encoders.similarity.perceptual_hash import phash256, pixel_sha256


def shard_table_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.json"


def shard_pixels_path(folder: Path, number: int) -> Path:
    return folder / f"{number:05d}.pixels"


def write_shard(source: Source, number: int, items: Sequence[Any], folder: Path, done: Callable[[int], None]) -> None:
    """Reads the items; the table is written last, and with it the shard is finished."""
    rows: list[dict[str, Any]] = []
    bad: list[list[str]] = []
    with atomic_write(shard_pixels_path(folder, number)) as part, part.open("wb") as file:
        for item in items:
            before = len(rows), file.tell()
            try:
                found = source.read(item)
                rows += [append_image(row, source, file) for row in ([found] if isinstance(found, ImageRow) else found)]
            except Exception as wrong:  # noqa: BLE001  boundary: one item of a batch job; recorded, and the job goes on
                understood = isinstance(wrong, Unreadable | InputError)
                reason = str(wrong) if understood else f"{type(wrong).__name__}: {wrong}"
                bad.append([source.name(item), reason, "" if understood else traceback.format_exc()])
                del rows[before[0] :]
                file.seek(before[1])
                file.truncate()
            done(1)
    write_json(shard_table_path(folder, number), {"rows": rows, "quarantine": bad})


def append_image(row: ImageRow, source: Source, file: BinaryIO) -> dict[str, Any]:
    """Appends the pixels to `file`; returns the row of the table."""
    image = fit_channels(row.image, source.channels)
    blob = image.tobytes() if source.codec == "raw" else encode_array_jpeg(image)
    file.write(blob)
    if not row.index.get("key"):
        raise ValueError("a row has no key")
    return {
        "index": to_json_values(row.index),
        "meta": to_json_values(row.meta),
        "labels": to_json_values(row.labels),
        "shape": list(image.shape),
        "dtype": image.dtype.name,
        "bytes": len(blob),
        "top": int(image.max()),
        "sha256": pixel_sha256(image),
        "phash": phash256(image).tobytes().hex(),
    }


def fit_channels(image: NDArray[Any], channels: int | None) -> NDArray[Any]:
    """The image with 1 channel where it is gray and may be, with 3 where 3 are wanted. Raises Unreadable when it cannot be stored."""
    if image.ndim != 3 or image.shape[2] not in (1, 3) or image.dtype not in (np.uint8, np.uint16):
        raise Unreadable(f"is {image.shape} {image.dtype}; (H, W, 1 or 3) of uint8 or uint16 can be stored")
    if image.size == 0 or int(image.min()) == int(image.max()):
        raise Unreadable("constant image" + (f": every value is {image.flat[0]}" if image.size else ": it has no pixels"))
    if image.shape[2] == 3 and channels != 3 and is_gray(image):
        return np.ascontiguousarray(image[..., :1])
    if image.shape[2] == 3 and channels == 1:
        raise Unreadable("has colour, and a store of 1 channel was asked for")
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 and channels == 3 else image


def encode_array_jpeg(image: NDArray[Any]) -> bytes:
    """The image as JPEG. Raises Unreadable when it has 16 bits."""
    from PIL import Image

    if image.dtype != np.uint8:
        raise Unreadable("has 16 bits, which JPEG cannot hold; use the raw codec")
    return encode_jpeg(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image))


def encode_jpeg(picture: Any) -> bytes:
    """A Pillow image as JPEG, quality 90, no colour subsampling (4:4:4): stains keep their edges."""
    blob = io.BytesIO()
    picture.save(blob, "JPEG", quality=90, subsampling=0)
    return blob.getvalue()


def to_json_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as JSON knows them; NaN becomes None."""
    bare = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in bare.items()}


def read_raw_images(path: Path, rows: Iterable[dict[str, Any]]) -> Iterable[NDArray[Any]]:
    """The images (H, W, C) of a shard of raw pixels, in order."""
    with path.open("rb") as file:
        for row in rows:
            yield np.frombuffer(file.read(row["bytes"]), row["dtype"]).reshape(row["shape"])


def read_encoded_images(path: Path, rows: Iterable[dict[str, Any]]) -> Iterable[bytes]:
    """The encoded images of a shard, in order."""
    with path.open("rb") as file:
        for row in rows:
            yield file.read(row["bytes"])
