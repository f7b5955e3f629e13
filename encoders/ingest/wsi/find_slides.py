"""Lists the slides with their masks and regions, and with their fields from the table and the paths."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

from encoders.ingest.label_table import Role, assign_roles
from encoders.ingest.list_files import BrokenFile, describe_skipped, list_files, strip_partial_suffix
from encoders.ingest.pattern import compile_pattern, extract_groups, split_by_match
from encoders.ingest.source import Unreadable
from encoders.ingest.tables.file_finder import FileFinder
from encoders.ingest.tables.table import read_table
from encoders.ingest.wsi.dicom_slides import dicom_patient
from encoders.ingest.wsi.discover import discover_slides
from encoders.ingest.wsi.quality import TileQuality
from encoders.ingest.wsi.regions import REGION_SUFFIXES, read_regions
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.ingest.wsi.slide_names import flatten_path
from encoders.ingest.wsi.slide_parts import list_slide_parts
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.file_names import to_unicode
from encoders.runtime.unknown_values import count_unknown, describe_unknown, find_unknown, find_unknown_patients, is_unknown
from encoders.store.write import is_number

MAX_COMPONENT_BYTES = 255  # of a file name
DICOM_PATIENT_NOTE = "patients of DICOM slides: pseudonyms of PatientID, as `encoders ingest dicom` makes them"


@dataclass(frozen=True)
class SlideFields:
    """What the user states about a slide, by command line, path and table."""

    mpp: float | None = None
    index: Mapping[str, str] = field(default_factory=dict)  # patient, split, study, slide
    meta: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def list_slide_items(
    where: Path,
    mpp: float | None,
    masks: Path | None,
    regions: Path | None,
    table: Path | None,
    label: Sequence[str],
    meta: Sequence[str],
    pattern: str | None,
    include: Sequence[str],
    exclude: Sequence[str],
    dataset: str = "",
) -> tuple[list[SlideItem], list[str], list[BrokenFile]]:
    """The slides in order, notes for the user, and what cannot be read.  dataset: its name, for the pseudonyms of patients of DICOM slides.

    Raises InputError for options that do not fit the files."""
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
    if (classes := [*include, *exclude]) and not regions:
        raise InputError(f"--include and --exclude select among drawn regions ({', '.join(classes)}); pass --regions with their folder")
    fields = {name: SlideFields(mpp) for name in slides}
    if pattern:
        fields = apply_path_pattern(fields, slides, root, pattern, notes)
    if table:
        fields = apply_slide_table(fields, slides, root, table, label, meta, notes)
    fields = {name: add_dicom_patient(each, slides[name], dataset, notes) for name, each in fields.items()}
    if all(is_unknown(each.index.get("patient")) for each in fields.values()):
        notes.append("warning: patients are unknown (no --labels or --pattern names them): every slide counts as a patient of its own")
    sources = {name: to_unicode(slides[name].relative_to(root).as_posix()) for name in fields}
    drawn = find_region_files(regions, sources, notes) if regions else {}
    check_region_classes(drawn.values(), include, exclude, notes)
    fields, numbers = align_columns(fields, notes)
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


def find_region_files(regions: Path, sources: dict[str, str], notes: list[str]) -> dict[str, Path]:
    """The files of regions of slides: by name in OUT_DIR, path, or path without suffix. Slides without a file are left out.

    Raises InputError if no slide has a file: then the names are wrong, and regions to exclude would be included."""
    if not regions.is_dir():
        if len(sources) > 1:
            raise InputError(f"--regions {regions} is one file for {len(sources)} slides; name a folder with NAME.geojson for each")
        return dict.fromkeys(sources, regions)
    listed = list_files(regions, REGION_SUFFIXES)
    broken = [each.name for each in listed.broken if strip_partial_suffix(each.name).lower().endswith(tuple(REGION_SUFFIXES))]
    files = {strip_partial_suffix(name): regions / name for name in [*broken, *listed.names]}  # a broken one costs its slide
    out: dict[str, Path] = {}
    for name, source in sources.items():
        usual = (f"{stem}{suffix}" for stem in (name, source, source.rpartition(".")[0]) for suffix in REGION_SUFFIXES)
        if (file := next((files[text] for text in usual if text in files), None)) is not None:
            out[name] = file
    unused = sorted(text for text, path in files.items() if path not in out.values())
    if not out:
        content = f"it holds {len(files)} files of regions, e.g. {unused[0]}" if files else "it holds no GeoJSON or ASAP XML"
        raise InputError(
            f"--regions {regions} has regions for none of the {len(sources)} slides: {content}; expected e.g. {next(iter(sources))}.geojson"
        )
    notes.append(
        f"regions: {len(out)} of {len(sources)} slides have a file"
        + (f"; {len(unused)} files belong to none of them (first: {unused[0]})" if unused else "")
    )
    return out


def check_region_classes(files: Iterable[Path], include: Sequence[str], exclude: Sequence[str], notes: list[str]) -> None:
    """Raises InputError for a class of --include that no file has, and for a class of --exclude that is probably misspelt."""
    seen: set[str] = set()
    for path in set(files):
        if seen.issuperset((*include, *exclude)):
            break  # usually after one or two files; exports of cells are large
        with suppress(Unreadable):  # the slide itself is quarantined
            seen |= {region.name for region in read_regions(path)}
    for name in [n for n in (*include, *exclude) if seen and n not in seen]:
        near = get_close_matches(name, list(seen), n=3)
        if name in include or (near and not {*near} & {*exclude}):
            raise unknown_name_error("class of regions", name, seen)
        notes.append(f"no region has the class {name!r}; known classes: {', '.join(sorted(map(repr, seen)))}")


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


def apply_slide_table(
    fields: Mapping[str, SlideFields],
    slides: Mapping[str, Path],
    root: Path,
    path: Path,
    label: Sequence[str],
    meta: Sequence[str],
    notes: list[str],
) -> dict[str, SlideFields]:
    """The slides that the table names, with its fields. The table names a slide by path, file name, or name without suffix."""
    content = read_table(path)
    columns, rows = content.columns, content.rows
    notes.extend(content.notes)
    named: dict[Role, str | None] = {"slide": ""}
    if "file" not in columns:
        named["file"] = next((c for c in columns if c.lower() in ("slide", "slide_id")), None)
    role = assign_roles(columns, named, list(label), list(meta), "call it file or slide")
    if taken := [name for name in role.meta if name in TileQuality._fields]:
        raise InputError(f"the column {taken[0]!r} of {path} has the name of a measure of tiles; rename it")
    notes.extend(role.describe(columns, ["mpp"]))
    finder = FileFinder([slides[name].relative_to(root).as_posix() for name in slides])
    matches = finder.match([row[role.file] for row in rows])
    names = {slides[name].relative_to(root).as_posix(): name for name in slides} | {name: name for name in slides}
    out: dict[str, SlideFields] = {}
    unmatched: list[str] = []
    for row in rows:
        name = names.get(matches.find(row[role.file]))
        if name is None or name not in fields:
            unmatched.append(row[role.file])
            continue
        if name in out:
            raise InputError(f"{path} names the slide {name} in two rows; keep one")
        known = fields[name]
        index = {part: row[c] for part, c in role.identity.items() if not is_unknown(row[c]) or part not in known.index}
        out[name] = SlideFields(
            known.mpp or read_mpp(row, path),
            {**known.index, **index},
            {column: row[column] for column in role.meta},
            {**known.labels, **{column: row[column] for column in role.label}},
        )
    if not out:
        raise InputError(f"none of the {len(rows)} slides in column {role.file!r} of {path} is among the {len(slides)} slides")
    left = [name for name in fields if name not in out]
    missing = f"{len(unmatched)} of them without a slide{format_first(unmatched)}"
    notes.append(f"{len(rows)} rows, {missing}; {len(left)} slides without a row{format_first(left)}")
    return dict(sorted(out.items()))


def format_first(names: Sequence[str]) -> str:
    """The text ` (first: NAME)`, or "" without names."""
    return f" (first: {names[0]})" if names else ""


def read_mpp(row: dict[str, str], path: Path) -> float | None:
    """The value of the column mpp; None if there is no such column, or no value."""
    text = row.get("mpp", "")
    if is_unknown(text):
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.01 <= value <= 50:
        raise InputError(f"{path}: mpp is {text!r}; expected micrometres per pixel, e.g. 0.25")
    return value
