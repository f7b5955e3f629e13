"""The files of a slide beside the one that OpenSlide opens: data files of MIRAX, images of Hamamatsu VMS and VMU, the series of DICOM.

Source: the formats as OpenSlide 4 reads them, https://openslide.org/formats/ (mirax, hamamatsu, dicom).
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from encoders.ingest.source import file_stamp
from encoders.ingest.wsi.dicom_slides import is_dicom, read_dicom_header
from encoders.runtime.config import json_digest

MIRAX_INDEX = "Slidedat.ini"
MIRAX_KEYS = re.compile(r"(?:INDEXFILE|FILE_\d+)\s*", re.IGNORECASE)
# Keys of a .vms or .vmu that name a file: ImageFile, and ImageFile(x,y) or ImageFile(z,x,y) for the others of a mosaic.
HAMAMATSU_KEYS = re.compile(r"(?:ImageFile(?:\([^)]*\))?|MapFile|OptimisationFile|MacroImage)\s*", re.IGNORECASE)


def list_slide_parts(slides: Iterable[Path]) -> dict[Path, tuple[Path, ...]]:
    """Every slide to its other files, sorted; files that the slide names but that are missing are included.

    slides: the files that OpenSlide opens, e.g. the .mrxs and not its folder."""
    slides = list(slides)
    series = _list_series({path.parent for path in slides if is_dicom(path)})
    return {path: tuple(sorted(_parts_of(path, series))) for path in slides}


def stamp_parts(path: Path, parts: Iterable[Path]) -> str:
    """Changes when a part is replaced, added, removed or missing; "" for a slide that is one file."""
    stamps = {os.path.relpath(part, path.parent): _stamp(part) for part in parts}
    return f"{len(stamps)} parts {json_digest(stamps)}" if stamps else ""


def _stamp(part: Path) -> str:
    try:
        return file_stamp(part)
    except OSError:
        return "missing"


def _list_series(folders: Iterable[Path]) -> dict[tuple[Path, str], list[Path]]:
    """(folder, series) to its DICOM files; each header is read once, however many slides a folder holds."""
    found: dict[tuple[Path, str], list[Path]] = {}
    for folder in folders:
        for path in _files_of(folder):
            if path.is_file() and is_dicom(path) and (header := read_dicom_header(path)) and header.series:
                found.setdefault((folder, header.series), []).append(path)
    return found


def _files_of(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # one slide was named in a folder that cannot be listed: OpenSlide does not find the others either
        return []


def _parts_of(path: Path, series: dict[tuple[Path, str], list[Path]]) -> list[Path]:
    suffix = path.suffix.lower()
    if suffix == ".mrxs":
        index = path.with_suffix("") / MIRAX_INDEX
        return [index, *(index.parent / name for name in _names_in(index, MIRAX_KEYS))]
    if suffix in (".vms", ".vmu"):
        return [path.parent / name for name in _names_in(path, HAMAMATSU_KEYS)]
    if is_dicom(path) and (header := read_dicom_header(path)):
        return [part for part in series.get((path.parent, header.series), []) if part != path]
    return []


def _names_in(path: Path, keys: re.Pattern[str]) -> set[str]:
    """The values of matching keys in an INI file of any encoding; none if it cannot be read, which opening the slide reports."""
    try:
        lines = os.fsdecode(path.read_bytes()).splitlines()
    except OSError:
        return set()
    pairs = (line.partition("=") for line in lines)
    return {value.strip() for key, _, value in pairs if keys.fullmatch(key.strip()) and value.strip()}
