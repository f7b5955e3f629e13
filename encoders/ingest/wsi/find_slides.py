"""Lists the slides with their masks and regions, and with their fields from the table and the paths."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from encoders.ingest.list_files import BrokenFile, describe_skipped
from encoders.ingest.pattern import compile_pattern, extract_groups, split_by_match
from encoders.ingest.tables.load_tables import Labels
from encoders.ingest.wsi.coordinate_files import find_coordinate_files
from encoders.ingest.wsi.dicom_slides import dicom_patient
from encoders.ingest.wsi.discover import discover_slides
from encoders.ingest.wsi.region_classes import check_region_classes
from encoders.ingest.wsi.region_files import find_region_files
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.ingest.wsi.slide_names import flatten_path
from encoders.ingest.wsi.slide_parts import list_slide_parts
from encoders.ingest.wsi.slide_table import SlideFields, TableJoin, apply_slide_table
from encoders.runtime.errors import InputError
from encoders.runtime.file_names import to_unicode
from encoders.runtime.unknown_values import count_unknown, describe_unknown, find_unknown, find_unknown_patients, is_unknown
from encoders.store.write import is_number

MAX_COMPONENT_BYTES = 255  # of a file name
DICOM_PATIENT_NOTE = "patients of DICOM slides: pseudonyms of PatientID, as `encoders ingest dicom` makes them"


def list_slide_items(
    where: Path,
    mpp: float | None,
    masks: Path | None,
    regions: Path | None,
    table: Labels | None,
    label: Sequence[str],
    meta: Sequence[str],
    pattern: str | None,
    include: Sequence[str],
    exclude: Sequence[str],
    dataset: str = "",
    join: TableJoin | None = None,
    coords: Path | None = None,
) -> tuple[list[SlideItem], list[str], list[BrokenFile]]:
    """The slides in order, notes for the user, and what cannot be read.

    dataset: its name, for the pseudonyms of patients of DICOM slides.  join: how tables and their rows become one row per slide.
    coords: file or folder of coordinates.  Raises InputError for options that do not fit the files."""
    named: list[str] = []
    slides, others, broken = discover_slides(where, named)
    root = where if where.is_dir() else where.parent
    parts = list_slide_parts(slides.values())
    notes = describe_skipped(others - Counter(part.suffix.lower() or "no suffix" for each in parts.values() for part in each))
    notes += named
    for folder, option in ((masks, "--masks"), (regions, "--regions")):
        if folder and not folder.exists():
            raise InputError(f"{option} {folder} does not exist")
    if masks and not masks.is_dir():
        raise InputError(f"--masks {masks} is a file; name the folder with NAME.png for every slide NAME")
    if coords and masks:
        raise InputError("--coords takes the tiles of a file, whatever the tissue; pass --masks or --coords")
    if (classes := [*include, *exclude]) and not regions:
        raise InputError(f"--include and --exclude select among drawn regions ({', '.join(classes)}); pass --regions with their folder")
    fields = {name: SlideFields(mpp) for name in slides}
    if pattern:
        fields = apply_path_pattern(fields, slides, root, pattern, notes)
    if table:
        sources = {name: path.relative_to(root).as_posix() for name, path in slides.items()}
        fields = apply_slide_table(fields, sources, table, label, meta, join or TableJoin(), notes, root)
    fields = {name: add_dicom_patient(each, slides[name], dataset, notes) for name, each in fields.items()}
    if all(is_unknown(each.index.get("patient")) for each in fields.values()):
        notes.append("warning: patients are unknown (no --labels or --pattern names them): every slide counts as a patient of its own")
    sources = {name: to_unicode(slides[name].relative_to(root).as_posix()) for name in fields}
    drawn = find_region_files(regions, sources, notes) if regions else {}
    check_region_classes(drawn.values(), include, exclude, notes)
    fields, numbers = align_columns(fields, notes)
    placed, unplaced = find_coordinate_files(coords, sources, notes) if coords else ({}, {})
    items = [
        SlideItem(
            name,
            slides[name],
            sources[name],
            each.mpp,
            find_mask(masks, name, sources[name]) if masks else None,
            drawn.get(name),
            each.index,
            each.meta,
            each.labels,
            numbers,
            placed.get(name),
            unplaced.get(name, ""),
            parts[slides[name]],
        )
        for name, each in fields.items()
    ]
    return items, notes, broken


def add_dicom_patient(fields: SlideFields, slide: Path, dataset: str, notes: list[str]) -> SlideFields:
    """The fields with the pseudonym of PatientID, if the slide is DICOM and neither table nor path names its patient."""
    if not is_unknown(fields.index.get("patient")) or not (patient := dicom_patient(slide, dataset)):
        return fields
    if DICOM_PATIENT_NOTE not in notes:
        notes.append(DICOM_PATIENT_NOTE)
    return replace(fields, index={**fields.index, "patient": patient})


def find_mask(masks: Path, name: str, source: str) -> Path:
    """The mask of a slide: by its name in OUT_DIR, or its path without suffix. The first if there is none: it is then reported."""
    stem = source.rpartition(".")[0] or source
    usual = [masks / f"{text}.png" for text in (name, stem, flatten_path(Path(stem)))]
    return next((path for path in usual if len(os.fsencode(path.name)) <= MAX_COMPONENT_BYTES and path.exists()), usual[0])


def align_columns(fields: Mapping[str, SlideFields], notes: list[str]) -> tuple[dict[str, SlideFields], frozenset[str]]:
    """The fields with the same columns in every slide, "" for unknown, and the columns that hold numbers in every slide.

    Every slide becomes a store of its own, and all of them must open as one."""
    index = align_column_group({slide: row.index for slide, row in fields.items()}, notes, names=True)
    meta = align_column_group({slide: row.meta for slide, row in fields.items()}, notes)
    labels = align_column_group({slide: row.labels for slide, row in fields.items()}, notes)
    every: dict[str, list[str]] = {}
    for columns in (meta, labels):
        for row in columns.values():
            for name, value in row.items():
                every.setdefault(name, []).extend([value] if value else [])
    numbers = frozenset(name for name, known in every.items() if known and all(map(is_number, known)))
    # The name of the slide stands for a patient or slide that the table does not name.
    index = {s: {n: v for n, v in row.items() if v or n not in ("patient", "slide")} for s, row in index.items()}
    return {s: SlideFields(row.mpp, index[s], meta[s], labels[s]) for s, row in fields.items()}, numbers


def align_column_group(rows: Mapping[str, Mapping[str, str]], notes: list[str], names: bool = False) -> dict[str, dict[str, str]]:
    """Slide -> the values of all columns, "" for unknown; a note tells which texts of a column mean unknown.

    names: the columns hold names, see `find_unknown`."""
    aligned: dict[str, dict[str, str]] = {slide: {} for slide in rows}
    for column in sorted({column for row in rows.values() for column in row}):
        values = [row.get(column, "") for row in rows.values()]
        unknown = find_unknown_patients(values) if names and column == "patient" else find_unknown(values, names)
        if unknown.any():
            notes.append(f"column {column!r}: {describe_unknown(count_unknown(values, unknown))} (of {len(values)} slides)")
        for slide, value, hole in zip(rows, values, unknown, strict=True):
            aligned[slide][column] = "" if hole else value
    return aligned


def apply_path_pattern(
    fields: Mapping[str, SlideFields], slides: Mapping[str, Path], root: Path, text: str, notes: list[str]
) -> dict[str, SlideFields]:
    """The fields with the groups that the pattern finds in the paths; slides that do not match are left out."""
    pattern = compile_pattern(text)
    names = {slides[name].relative_to(root).as_posix(): name for name in slides}
    matched, others = split_by_match(pattern, list(names))
    if others:
        notes.append(f"{len(others)} slides do not match --pattern and are left out (first: {others[0]})")
    out = {}
    for path in matched:
        groups = extract_groups(pattern, path)
        labels = {"label": groups.pop("label")} if "label" in groups else {}
        out[names[path]] = replace(fields[names[path]], index=groups, labels=labels)
    return out
