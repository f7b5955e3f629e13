"""Merges the shards into one store, and the items that could not be read into one table.

Decisions that depend on the whole set are made here: number of channels, bit depth, and the columns.

Shapes: N rows, H, W, C of one image.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from encoders.ingest.quarantine import quarantine_path
from encoders.ingest.shard_io import (
    ColumnGroup,
    ShardRow,
    ShardTable,
    read_encoded_images,
    read_raw_images,
    shard_pixels_path,
    shard_table_path,
)
from encoders.ingest.source import IngestResult, ItemT, PixelUnit, Source, Value, to_pixel_unit, unit_to_json
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, read_json
from encoders.runtime.json_types import Json
from encoders.runtime.unknown_values import count_unknown, describe_unknown, find_unknown, is_unknown
from encoders.similarity.perceptual_hash import hash_columns, pixel_sha256
from encoders.store.patient_ids import name_patients, simplify_id
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
        """Whether the image already has the channels and the dtype of the form."""
        return row["shape"][2] == self.channels and row["dtype"] == self.dtype.name

    def promote(self, image: Array) -> Array:
        """The image in this form: gray repeated in every channel, 8 bits mapped to the 16-bit range."""
        if image.shape[2] < self.channels:
            image = np.repeat(image, self.channels, axis=2)
        if image.dtype != self.dtype:
            image = np.rint(image * (self.unit["scale"] / 255.0) + self.unit["offset"]).astype(self.dtype)
        return image


def join_shards(source: Source[ItemT], folder: Path, shards: int, out: Path, recipe: dict[str, Json]) -> IngestSummary:
    """Writes `out` and OUT.quarantine.csv from the finished shards. Raises InputError if no image could be read."""
    tables: list[ShardTable] = [read_json(shard_table_path(folder, number)) for number in range(shards)]
    bad = [entry for table in tables for entry in table["quarantine"]]
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
        first = f" (first: {bad[0][0]}: {bad[0][1]})" if bad else ""
        raise InputError(
            f"none of the {len(bad)} images could be read{first}. See all reasons in {quarantine_path(out)}; no store was written"
        )
    if source.codec == "raw" and not all(form.fits(row) for row in rows):
        for row, image in zip(rows, read_shard_images(folder, tables, form), strict=True):
            row["sha256"] = pixel_sha256(image)
    index: dict[str, ColumnValues] = dict(gather_columns(rows, "index"))
    meta, labels = gather_columns(rows, "meta"), gather_columns(rows, "labels")
    sha256 = [row["sha256"] for row in rows]
    index.setdefault("patient", [None] * len(rows))  # the store names a patient that is unknown by the key of its image
    people = name_patients(index["patient"], index["key"])
    index["sha256"] = sha256
    index |= hash_columns(np.frombuffer(bytes.fromhex("".join(row["signs"] for row in rows)), np.uint8))
    attrs = store_attributes(source, form, recipe) | {"fingerprint": pixel_fingerprint(sha256)}
    if form.size is not None:
        shape = (*form.size, form.channels)
        write_store(out, read_shard_images(folder, tables, form), shape, form.dtype, attrs, index, meta, labels)
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
        notes=[*list_ingest_notes(source, form, rows, index, people), *list_unknown_values(index, meta, labels)],
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
                yield form.promote(image)


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


def list_unknown_values(
    index: Mapping[str, ColumnValues], meta: Mapping[str, ColumnValues], labels: Mapping[str, ColumnValues]
) -> list[str]:
    """Lines about unknown values: how many a column has, and which texts were read as unknown; one line for all columns of meta."""
    groups = ({n: index[n] for n in NAME_COLUMNS if n in index}, labels, meta)
    notes: list[list[str]] = [[], [], []]
    for group, columns in enumerate(groups):
        for name, values in columns.items():
            unknown = find_unknown(values, names=group == 0)
            if unknown.any() and not (name == "patient" and all(v in (None, "") for v in values)):  # a source without patients says so
                alone = "; each of these images counts as a patient of its own" if name == "patient" else ""
                texts = describe_unknown(count_unknown(values, unknown))
                notes[group].append(f"column {name!r}: {texts} (of {len(values):,} images){alone}")
    return [*notes[0], *notes[1], *(["meta: " + "; ".join(notes[2])] if notes[2] else [])]


def list_ingest_notes(
    source: Source[ItemT], form: StoredForm, rows: list[ShardRow], index: Mapping[str, ColumnValues], people: Array
) -> list[str]:
    """What the user should know about the whole set.  people: (N,) patients, named by the key of the image if unknown."""
    notes = []
    gray = sum(row["shape"][2] == 1 for row in rows)
    if source.channels is None:
        all_gray = f"all {len(rows)} images are gray in every pixel: stored with 1 channel"
        mixed = f"{len(rows) - gray} of {len(rows)} images have colour: all are stored with 3 channels"
        notes.append(all_gray if gray == len(rows) else mixed)
    shallow = sum(row["dtype"] == "uint8" for row in rows)
    if form.dtype == np.uint16 and shallow:
        notes.append(
            f"{shallow} images have 8 bits and {len(rows) - shallow} have 16: all are stored with 16, with the same black and white"
        )
    top = max(row["top"] for row in rows)
    if form.dtype == np.uint16 and form.unit["scale"] == 65535 and top < 2**15:
        notes.append(
            f"warning: the largest 16-bit value is {top}, so the images use only part of the range; if they have 12 bits, pass --bits 12"
        )
    splits: dict[str, set[str]] = {}
    for patient, split in zip(people.tolist(), index.get("split", []), strict=False):
        splits.setdefault(patient, set()).update([] if is_unknown(split) else [str(split)])
    both = sorted(patient for patient, names in splits.items() if len(names) > 1)
    if both:
        notes.append(f"warning: {len(both)} patients are in more than one split (first: {both[0]}); an evaluation on this split would leak")
    return notes + list_similar_patients(people[people != np.asarray(index["key"], dtype=str)])


def list_similar_patients(patients: Array) -> list[str]:
    """A warning about patients whose ids are nearly equal, such as 7 and 007; [] without any.  patients: (N,), the known ones."""
    alike: dict[str, list[str]] = {}
    for patient in np.unique(patients).tolist():
        alike.setdefault(simplify_id(patient), []).append(patient)
    several = [ids for ids in alike.values() if len(ids) > 1]
    if not several:
        return []
    examples = "; ".join(" ~ ".join(map(repr, ids[:3])) for ids in several[:3])
    return [
        f"warning: {len(several)} groups of patient ids are nearly equal, e.g. {examples}; they count as different patients: if they are "
        "the same, give them one id and ingest again"
    ]


def write_quarantine(out: Path, bad: list[list[str]]) -> None:
    """Writes OUT.quarantine.csv: file, reason, and the traceback of an unexpected failure. Removes it if there is no row."""
    path = quarantine_path(out)
    if not bad:
        path.unlink(missing_ok=True)
        return
    with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["file", "reason", "traceback"], *bad])
