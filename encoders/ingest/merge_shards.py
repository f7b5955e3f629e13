"""Merges the shards into one store, and the items that could not be read into one table.

Decisions that depend on the whole set are made here: number of channels, bit depth, and the columns.

Shapes: N rows, H, W, C of one image.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from encoders.ingest.image_bits import assign_bits, describe_bits, stretch_bits
from encoders.ingest.notes import count_remarks, hide_zero_patients, list_ingest_notes, list_unknown_values
from encoders.ingest.quarantine import quarantine_path
from encoders.ingest.shard_io import (
    ColumnGroup,
    ShardRow,
    ShardTable,
    read_encoded_images,
    read_raw_images,
    read_shard_table,
    shard_pixels_path,
    unpack_mask,
)
from encoders.ingest.source import IngestResult, ItemT, PixelUnit, Source, Value, to_pixel_unit, unit_to_json
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.escape import format_csv
from encoders.runtime.files import atomic_write
from encoders.runtime.json_types import Json
from encoders.runtime.local_notes import show_key
from encoders.runtime.unknown_values import find_unknown
from encoders.similarity.perceptual_hash import hash_columns, pixel_sha256
from encoders.store.patient_ids import name_patients
from encoders.store.write import NAME_COLUMNS, ColumnValues, full_range_unit, pixel_fingerprint, write_jpeg_store, write_store


@dataclass(frozen=True, kw_only=True)
class IngestSummary(IngestResult):
    """What an ingest to one store did."""

    patients: int
    shape: tuple[int, int, int] | None  # (H, W, C); None: varies
    channels: int
    dtype: str
    fingerprint: str
    notes: list[str] = field(default_factory=list)  # what the user should know: promotions, patients in two splits


@dataclass(frozen=True)
class StoredForm:
    """The form in which every image of the set is stored."""

    size: tuple[int, int] | None  # (H, W); None: varies (jpeg)
    channels: int
    dtype: np.dtype[np.generic]
    unit: PixelUnit

    def has_size(self, row: ShardRow) -> bool:
        """Whether the image has the common height and width."""
        return self.size is None or tuple(row["shape"][:2]) == self.size

    def fits(self, row: ShardRow) -> bool:
        """Whether the image already has the channels, the dtype and the range of the form."""
        return row["shape"][2] == self.channels and row["dtype"] == self.dtype.name and row.get("bits", 16) == 16

    def promote(self, image: Array, bits: int = 16) -> Array:
        """The image in this form: gray repeated in every channel, 8 bits mapped to the 16-bit range, as are 16-bit images of fewer bits."""
        if bits < 16 and image.dtype == np.uint16:
            image = stretch_bits(image, bits)
        if image.shape[2] < self.channels:
            image = np.repeat(image, self.channels, axis=2)
        if image.dtype != self.dtype:
            image = np.rint(image * (self.unit["scale"] / 255.0) + self.unit["offset"]).astype(self.dtype)
        return image


def join_shards(source: Source[ItemT], folder: Path, shards: int, out: Path, recipe: dict[str, Json]) -> IngestSummary:
    """Writes `out` and OUT.quarantine.csv from the finished shards. Raises InputError if no image could be read."""
    tables: list[ShardTable] = [read_shard_table(folder, number) for number in range(shards)]
    bad = [[name, reason, ""] for name, reason in source.broken] + [entry for table in tables for entry in table["quarantine"]]
    every = [row for table in tables for row in table["rows"]]
    if any("signs" not in row for row in every):
        raise InputError(f"{folder} was started by an earlier version of isograft, without all hashes; pass --overwrite to start over")
    form = find_common_form(source, every)
    for row in every:
        if form is not None and not form.has_size(row):
            bad.append([str(row["index"]["key"]), f"is {row['shape'][0]} x {row['shape'][1]} pixels, the others {form.size}", ""])
    write_quarantine(out, bad)
    rows = [row for row in every if form is not None and form.has_size(row)]
    if form is None or not rows:
        first = f" (first: {show_key(bad[0][0])}: {bad[0][1]})" if bad else ""
        raise InputError(
            f"none of the {len(bad)} images could be read{first}. See all reasons in {quarantine_path(out)}; no store was written"
        )
    if source.auto_bits:
        assign_bits(rows)
    if source.codec == "raw" and not all(form.fits(row) for row in rows):
        for row, image in zip(rows, read_shard_images(folder, tables, form), strict=True):
            row["sha256"] = pixel_sha256(image)
    index: dict[str, ColumnValues] = dict(gather_columns(rows, "index"))
    meta, labels = gather_columns(rows, "meta"), gather_columns(rows, "labels")
    if source.auto_bits:
        meta["bits"] = [row.get("bits", 8) for row in rows]
    sha256 = [row["sha256"] for row in rows]
    zeros = hide_zero_patients(index)
    index.setdefault("patient", [None] * len(rows))  # the store names a patient that is unknown by the key of its image
    people = name_patients(index["patient"], index["key"])
    index["sha256"] = sha256
    index |= hash_columns(np.frombuffer(bytes.fromhex("".join(row["signs"] for row in rows)), np.uint8))
    attrs = store_attributes(source, form, recipe) | {"fingerprint": pixel_fingerprint(sha256)}
    if form.size is not None:
        shape = (*form.size, form.channels)
        masks = (unpack_mask(row) for row in rows) if all("mask" in row for row in rows) else None
        write_store(out, read_shard_images(folder, tables, form), shape, form.dtype, attrs, index, meta, labels, masks=masks)
    else:
        blobs = (b for k, t in enumerate(tables) for b in read_encoded_images(shard_pixels_path(folder, k), t["rows"]))
        write_jpeg_store(out, blobs, [row["bytes"] for row in rows], attrs, index, meta, labels)
    return IngestSummary(
        out=out,
        rows=len(rows),
        patients=len(set(people.tolist())),
        shape=(*sizes.pop(), form.channels) if len(sizes := {(row["shape"][0], row["shape"][1]) for row in rows}) == 1 else None,
        channels=form.channels,
        dtype=form.dtype.name,
        fingerprint=str(attrs["fingerprint"]),
        quarantined=[(name, reason) for name, reason, _ in bad],
        notes=[
            *list_ingest_notes(source.channels, form.dtype, rows, index, people),
            *describe_bits(rows, source.auto_bits),
            *count_remarks(rows),
            *zeros,
            *list_unknown_values(index, meta, labels),
        ],
    )


def find_common_form(source: Source[ItemT], rows: list[ShardRow]) -> StoredForm | None:
    """The smallest form that can hold every row; None without rows. If sizes differ, the most frequent one (first on a tie) is kept."""
    if not rows:
        return None
    size = Counter((row["shape"][0], row["shape"][1]) for row in rows).most_common(1)[0][0] if source.codec == "raw" else None
    same = [row for row in rows if size is None or tuple(row["shape"][:2]) == size]
    dtype = np.dtype(max((row["dtype"] for row in same), key=lambda name: np.dtype(name).itemsize))
    channels = source.channels or max(row["shape"][2] for row in same)
    # A unit for 16 bits does not apply to a set that has 8 bits.
    unit = source.unit if source.unit and (dtype == np.uint16 or source.unit["scale"] <= 255) else to_pixel_unit(full_range_unit(dtype))
    return StoredForm(size, channels, dtype, unit)


def read_shard_images(folder: Path, tables: list[ShardTable], form: StoredForm) -> Iterator[Array]:
    """(H, W, C) images of all shards in order, in the common form."""
    for number, table in enumerate(tables):
        for row, image in zip(table["rows"], read_raw_images(shard_pixels_path(folder, number), table["rows"]), strict=True):
            if form.has_size(row):
                yield form.promote(image, row.get("bits", 16))


def gather_columns(rows: list[ShardRow], group: ColumnGroup) -> dict[str, list[Value]]:
    """Column name to its N values, None for rows without a value. Columns of /index without any known value are left out."""
    names = sorted({name for row in rows for name in row[group]})
    every = {name: [row[group].get(name) for row in rows] for name in names}
    if group != "index":
        return every
    return {n: values for n, values in every.items() if n == "key" or not find_unknown(values, names=n in NAME_COLUMNS).all()}


def store_attributes(source: Source[ItemT], form: StoredForm, recipe: dict[str, Json]) -> dict[str, Json]:
    """The root attributes of the store, without the fingerprint."""
    named: dict[str, Json] = {"modality": source.modality, "dataset": source.dataset, "codec": source.codec, "geometry": source.geometry}
    return {**named, "channels": form.channels, "unit": unit_to_json(form.unit), "recipe": recipe, **source.attributes()}


def write_quarantine(out: Path, bad: list[list[str]]) -> None:
    """Writes OUT.quarantine.csv: file, reason, and the traceback of an unexpected failure. Removes it if there is no row."""
    path = quarantine_path(out)
    if not bad:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path, private=True) as part:  # names of patients' files
        part.write_text(format_csv([["file", "reason", "traceback"], *bad]), encoding="utf-8", errors="replace")
