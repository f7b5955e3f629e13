"""The shards become one store, and the items that could not be read one table.

What only the whole set can tell is decided here: whether all images are gray, which bit depth holds them all, which values a column has.

Shapes: N rows, H, W, C of one image.
"""

import csv
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.quarantine import quarantine_path
from encoders.ingest.shard_io import read_encoded_images, read_raw_images, shard_pixels_path, shard_table_path
from encoders.ingest.source import Source
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, read_json
from encoders.similarity.perceptual_hash import pixel_sha256
from encoders.store.write import full_range_unit, is_known, pixel_fingerprint, write_jpeg_store, write_store


@dataclass(frozen=True)
class IngestSummary:
    """What an ingest did."""

    out: Path
    rows: int
    patients: int
    shape: tuple[int, int, int] | None  # (H, W, C), None when it varies
    channels: int
    dtype: str
    fingerprint: str
    quarantined: list[tuple[str, str]] = field(default_factory=list)  # (item, reason)
    notes: list[str] = field(default_factory=list)  # what the reader should know: promotions, patients in two splits

    @property
    def exit_code(self) -> int:
        """0 when every item became rows, 1 when something was quarantined."""
        return 1 if self.quarantined else 0


@dataclass(frozen=True)
class StoredForm:
    """How every image of the set is stored."""

    size: tuple[int, int] | None  # (H, W); None: varies (jpeg)
    channels: int
    dtype: np.dtype[Any]
    unit: dict[str, Any]

    def fits(self, row: dict[str, Any]) -> bool:
        return row["shape"][2] == self.channels and row["dtype"] == self.dtype.name

    def promoted(self, image: NDArray[Any]) -> NDArray[Any]:
        """The same picture in this form: gray repeated in every channel, 8 bits spread over the 16-bit range."""
        if image.shape[2] < self.channels:
            image = np.repeat(image, self.channels, axis=2)
        if image.dtype != self.dtype:
            image = np.rint(image * (self.unit["scale"] / 255.0) + self.unit["offset"]).astype(self.dtype)
        return image


def join_shards(source: Source, folder: Path, shards: int, out: Path, recipe: dict[str, Any]) -> IngestSummary:
    """Writes `out` and OUT.quarantine.csv from the finished shards. Raises InputError when not one image could be read."""
    tables = [read_json(shard_table_path(folder, number)) for number in range(shards)]
    bad = [entry for table in tables for entry in table["quarantine"]]
    form = find_common_form(source, [row for table in tables for row in table["rows"]])
    for table in tables:
        for row in table["rows"]:
            row["fits"] = form is not None and (form.size is None or tuple(row["shape"][:2]) == form.size)
            if form is not None and not row["fits"]:
                bad.append([str(row["index"]["key"]), f"is {row['shape'][0]} x {row['shape'][1]} pixels, the others {form.size}", ""])
    write_quarantine(out, bad)
    rows = [row for table in tables for row in table["rows"] if row["fits"]]
    if form is None or not rows:
        first = f"; the first, {bad[0][0]}: {bad[0][1]}" if bad else ""
        raise InputError(
            f"none of the {len(bad)} images could be read{first}. All reasons are in {quarantine_path(out)}; no store was written"
        )
    if source.codec == "raw" and not all(form.fits(row) for row in rows):
        for row, image in zip(rows, read_shard_images(folder, tables, form), strict=True):
            row["sha256"] = pixel_sha256(image)
    index, meta, labels = (gather_columns(rows, group) for group in ("index", "meta", "labels"))
    index["patient"] = [
        p if p not in (None, "") else k for p, k in zip(index.get("patient", [None] * len(rows)), index["key"], strict=True)
    ]
    index["sha256"] = [row["sha256"] for row in rows]
    index["phash"] = np.frombuffer(bytes.fromhex("".join(row["phash"] for row in rows)), np.uint8).reshape(-1, 32)  # (N, 32)
    attrs = store_attributes(source, form, recipe) | {"fingerprint": pixel_fingerprint(index["sha256"])}
    if source.codec == "raw":
        shape = (*form.size, form.channels)  # type: ignore[misc]
        write_store(out, read_shard_images(folder, tables, form), shape, form.dtype, attrs, index, meta, labels)
    else:
        blobs = (b for k, t in enumerate(tables) for b in read_encoded_images(shard_pixels_path(folder, k), t["rows"]))
        write_jpeg_store(out, blobs, [row["bytes"] for row in rows], attrs, index, meta, labels)
    return IngestSummary(
        out=out,
        rows=len(rows),
        patients=len({str(p) for p in index["patient"]}),
        shape=(*sizes.pop(), form.channels) if len(sizes := {tuple(row["shape"][:2]) for row in rows}) == 1 else None,
        channels=form.channels,
        dtype=form.dtype.name,
        fingerprint=str(attrs["fingerprint"]),
        quarantined=[(name, reason) for name, reason, _ in bad],
        notes=list_ingest_notes(source, form, rows, index),
    )


def find_common_form(source: Source, rows: list[dict[str, Any]]) -> StoredForm | None:
    """The smallest form that holds every row; None when there is none. Of unlike sizes the commonest (the first of equals) is kept."""
    if not rows:
        return None
    size = Counter((row["shape"][0], row["shape"][1]) for row in rows).most_common(1)[0][0] if source.codec == "raw" else None
    same = [row for row in rows if size is None or tuple(row["shape"][:2]) == size]
    dtype = np.dtype(max((row["dtype"] for row in same), key=lambda name: np.dtype(name).itemsize))
    channels = source.channels or max(row["shape"][2] for row in same)
    # A unit meant for 16 bits says nothing about a set that turned out to have 8.
    unit = source.unit if source.unit and (dtype == np.uint16 or source.unit["scale"] <= 255) else full_range_unit(dtype)
    return StoredForm(size, channels, dtype, unit)


def read_shard_images(folder: Path, tables: list[dict[str, Any]], form: StoredForm) -> Iterator[NDArray[Any]]:
    """(H, W, C) images of all shards in order, in the common form."""
    for number, table in enumerate(tables):
        for row, image in zip(table["rows"], read_raw_images(shard_pixels_path(folder, number), table["rows"]), strict=True):
            if row["fits"]:
                yield form.promoted(image)


def gather_columns(rows: list[dict[str, Any]], group: str) -> dict[str, Any]:
    """Column name to its N values, None where a row has none; a column of /index that says nothing about any row is left out."""
    names = sorted({name for row in rows for name in row[group]})
    every = {name: [row[group].get(name) for row in rows] for name in names}
    return {name: values for name, values in every.items() if group != "index" or any(map(is_known, values))}


def store_attributes(source: Source, form: StoredForm, recipe: dict[str, Any]) -> dict[str, Any]:
    named = {"modality": source.modality, "dataset": source.dataset, "codec": source.codec, "geometry": source.geometry}
    return {**named, "channels": form.channels, "unit": form.unit, "recipe": recipe, **source.attributes()}


def list_ingest_notes(source: Source, form: StoredForm, rows: list[dict[str, Any]], index: dict[str, Any]) -> list[str]:
    """What the whole set shows and a reader should know."""
    told = []
    gray = sum(row["shape"][2] == 1 for row in rows)
    if source.channels is None:
        all_gray = f"all {len(rows)} images are gray in every pixel: stored with 1 channel"
        mixed = f"{len(rows) - gray} of {len(rows)} images have colour: all stored with 3 channels"
        told.append(all_gray if gray == len(rows) else mixed)
    shallow = sum(row["dtype"] == "uint8" for row in rows)
    if form.dtype == np.uint16 and shallow:
        told.append(f"{shallow} images have 8 bits and {len(rows) - shallow} have 16: all stored with 16, white on white")
    top = max(row["top"] for row in rows)
    if form.dtype == np.uint16 and form.unit["scale"] == 65535 and top < 2**15:
        told.append(
            f"warning: the largest 16-bit value is {top}, so the images use a part of the range; if they have 12 bits, pass --bits 12"
        )
    splits: dict[str, set[str]] = {}
    for patient, split in zip(index["patient"], index.get("split", []), strict=False):
        splits.setdefault(str(patient), set()).update([split] if split else [])
    both = sorted(patient for patient, of in splits.items() if len(of) > 1)
    if both:
        told.append(f"warning: {len(both)} patients are in more than one split (first: {both[0]}); a comparison on that split would leak")
    return told


def write_quarantine(out: Path, bad: list[list[str]]) -> None:
    """OUT.quarantine.csv: file, reason, and the traceback where the failure was not an understood one. Absent when there is none."""
    path = quarantine_path(out)
    if not bad:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file", "reason", "traceback"], *bad])
