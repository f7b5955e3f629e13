"""One shard: the concatenated pixels of some items in one file, and a table with their columns and the reasons for missing items.

Shapes: H, W, C of one image.
"""

import io
import math
import traceback
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, NotRequired, TypedDict

import numpy as np

from encoders.ingest.damage import DAMAGE_ACCEPTED, DAMAGE_COLUMN
from encoders.ingest.source import ImageRow, ItemT, Source, Unreadable, Value, is_gray
from encoders.runtime.arrays import Array
from encoders.runtime.entry_names import check_labels
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.runtime.read_errors import READ_ERRORS
from encoders.runtime.sealed_json import read_sealed_json, write_sealed_json
from encoders.runtime.storage_errors import StorageError, explain_storage_errors
from encoders.similarity.perceptual_hash import hash_signs, pixel_sha256

if TYPE_CHECKING:
    from PIL import Image

ColumnGroup = Literal["index", "meta", "labels"]


class ShardRow(TypedDict):
    """One image in the table of a shard."""

    index: dict[str, Value]
    meta: dict[str, Value]
    labels: dict[str, Value]
    shape: list[int]  # H, W, C
    dtype: str
    bytes: int  # length in the file of pixels
    crc32: NotRequired[int]  # of these bytes; missing in shards of earlier versions
    top: int  # largest value before resizing
    sha256: str
    signs: str  # `hash_signs` of the image, hex
    remarks: list[list[str]]  # kind and detail
    mask: NotRequired[str]  # (H, W), a bit per pixel, hex
    bits: NotRequired[int]  # of its group, if 16-bit images are mapped to the full range; set when shards are merged


class ShardTable(TypedDict):
    """What a finished shard holds."""

    rows: list[ShardRow]
    quarantine: list[list[str]]  # item, reason, traceback


def shard_table_path(folder: Path, number: int) -> Path:
    """The table; the shard is finished when this file exists."""
    return folder / f"{number:05d}.json"


def shard_pixels_path(folder: Path, number: int) -> Path:
    """The concatenated pixels."""
    return folder / f"{number:05d}.pixels"


def write_shard(source: Source[ItemT], number: int, items: Sequence[ItemT], folder: Path, tick: Callable[[int], None]) -> None:
    """Reads the items and writes the shard. The table is written last; its presence marks the shard as finished."""
    rows: list[ShardRow] = []
    bad: list[list[str]] = []
    with atomic_write(shard_pixels_path(folder, number)) as part, part.open("wb") as file:
        for item in items:
            before = len(rows), file.tell()
            try:
                content = source.read(item)
                rows += [append_image(row, source, file) for row in ([content] if isinstance(content, ImageRow) else content)]
            except StorageError:  # of the output: the item is not at fault
                raise
            except Exception as error:  # noqa: BLE001  boundary: one item of a batch job is recorded, and the job continues
                known = isinstance(error, Unreadable | InputError)
                reason = str(error) if known else f"{type(error).__name__}: {error}"
                bad.append([source.name(item), reason, "" if known else traceback.format_exc()])
                del rows[before[0] :]
                file.seek(before[1])
                file.truncate()
            tick(1)
    table: ShardTable = {"rows": rows, "quarantine": bad}
    write_sealed_json(shard_table_path(folder, number), table)


def read_shard_table(folder: Path, number: int) -> ShardTable:
    """The table of a finished shard. Raises InputError if it was damaged."""
    path = shard_table_path(folder, number)
    content = read_sealed_json(path, f"delete {path.name} to read its images again", ShardTable.__annotations__, "quarantine")
    return {"rows": content["rows"], "quarantine": content["quarantine"]}


def is_finished(folder: Path, number: int) -> bool:
    """Whether a shard of an earlier start is whole; one whose table or pixels were damaged is not, and is written again."""
    if not shard_table_path(folder, number).exists():
        return False
    try:
        rows = read_shard_table(folder, number)["rows"]
        with shard_pixels_path(folder, number).open("rb") as file:
            intact = all(zlib.crc32(file.read(row["bytes"])) == row["crc32"] for row in rows if "crc32" in row)
            return intact and (not rows or "crc32" not in rows[-1] or not file.read(1))
    except READ_ERRORS:  # InputError among them
        return False


def append_image(row: ImageRow, source: Source[ItemT], file: BinaryIO) -> ShardRow:
    """Appends the pixels to `file` and returns the row of the table."""
    check_labels(row.labels)
    image = fit_channels(row.image, source.channels)
    blob = image.tobytes() if source.codec == "raw" else encode_array_jpeg(image)
    with explain_storage_errors(file.name, Path(file.name).name):
        file.write(blob)
    if not row.index.get("key"):
        raise ValueError("a row has no key")
    words = [remark.detail for remark in row.remarks if remark.kind == DAMAGE_ACCEPTED]
    damage: dict[str, Value] = {DAMAGE_COLUMN: "; ".join(words)} if words else {}
    table: ShardRow = {
        "index": to_json_values(row.index),
        "meta": to_json_values(row.meta) | damage,
        "labels": to_json_values(row.labels),
        "shape": list(image.shape),
        "dtype": image.dtype.name,
        "bytes": len(blob),
        "crc32": zlib.crc32(blob),
        "top": int(image.max()) if row.top is None else row.top,
        "sha256": pixel_sha256(image),
        "signs": hash_signs(image).tobytes().hex(),
        "remarks": [[remark.kind, remark.detail] for remark in row.remarks],
    }
    if row.mask is not None:
        table["mask"] = np.packbits(row.mask).tobytes().hex()
    return table


def unpack_mask(row: ShardRow) -> Array:
    """(H, W) bool, the mask of an image that has one."""
    height, width = row["shape"][:2]
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(row["mask"]), np.uint8), count=height * width)
    return bits.reshape(height, width).astype(bool)


def fit_channels(image: Array, channels: int | None) -> Array:
    """The image with 1 channel if it is gray, and with 3 channels if the store has 3. Raises Unreadable if it cannot be stored."""
    if image.ndim != 3 or image.shape[2] not in (1, 3) or image.dtype not in (np.uint8, np.uint16):
        raise Unreadable(f"is {image.shape} {image.dtype}; expected (H, W, 1 or 3) of uint8 or uint16")
    if image.size == 0 or int(image.min()) == int(image.max()):
        raise Unreadable("constant image" + (f": every value is {image.flat[0]}" if image.size else ": it has no pixels"))
    if image.shape[2] == 3 and channels != 3 and is_gray(image):
        return np.ascontiguousarray(image[..., :1])
    if image.shape[2] == 3 and channels == 1:
        raise Unreadable("has colour, but the store has 1 channel")
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 and channels == 3 else image


def encode_array_jpeg(image: Array) -> bytes:
    """The image (H, W, C) as JPEG. Raises Unreadable if it has 16 bits."""
    from PIL import Image

    if image.dtype != np.uint8:
        raise Unreadable("has 16 bits, which JPEG cannot hold; use the raw codec")
    return encode_jpeg(Image.fromarray(image[..., 0] if image.shape[2] == 1 else image))


def encode_jpeg(image: "Image.Image") -> bytes:
    """A Pillow image as JPEG of quality 90, without chroma subsampling (4:4:4), which would blur the edges of stains."""
    blob = io.BytesIO()
    image.save(blob, "JPEG", quality=90, subsampling=0)
    return blob.getvalue()


def to_json_values(values: Mapping[str, Value]) -> dict[str, Value]:
    """The values as types of JSON; NaN becomes None."""
    bare = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
    return {name: None if isinstance(value, float) and math.isnan(value) else value for name, value in bare.items()}


def read_raw_images(path: Path, rows: Iterable[ShardRow]) -> Iterator[Array]:
    """The images (H, W, C) of a shard of raw pixels, in order."""
    with path.open("rb") as file:
        for row in rows:
            yield np.frombuffer(file.read(row["bytes"]), row["dtype"]).reshape(row["shape"])


def read_encoded_images(path: Path, rows: Iterable[ShardRow]) -> Iterator[bytes]:
    """The encoded images of a shard, in order."""
    with path.open("rb") as file:
        for row in rows:
            yield file.read(row["bytes"])
