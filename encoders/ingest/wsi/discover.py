"""Finds the slides of a folder, each once: files by suffix, DICOM files by series."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from encoders.ingest.list_files import BrokenFile, FoundFiles, find_files, join_counts
from encoders.ingest.wsi.dicom_slides import first_of_series, is_dicom, split_dicom_files
from encoders.ingest.wsi.slide_names import name_slides
from encoders.runtime.errors import InputError

SLIDE_SUFFIXES = {".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".czi"}
COMPANION_SUFFIXES = {".dat", ".ini", ".opt", ".xml", ".geojson"}  # files of MIRAX, Hamamatsu and QuPath beside a slide


def discover_slides(where: Path, notes: list[str] | None = None) -> tuple[dict[str, Path], Counter[str], list[BrokenFile]]:
    """Slide name to the file that OpenSlide opens, sorted; the number of other files by suffix; and what cannot be read.

    where: a folder, searched recursively, or one slide (for DICOM: any file of its series, or the folder of the series).
    notes: receives what was changed in the names of slides.
    Raises InputError if there is no slide."""
    if not where.exists():
        raise InputError(f"{where} does not exist; name a folder of slides, or one slide")
    root = where if where.is_dir() else where.parent
    found = find_files(where) if where.is_dir() else FoundFiles([where], [])
    files = found.files
    dicoms, objects = split_dicom_files(p for p in files if is_dicom(p))
    plain = [p for p in files if p.suffix.lower() in SLIDE_SUFFIXES and not is_dicom(p)]
    series = first_of_series(dicoms)
    folders = {p: folder for p in series if (folder := folder_of_lone_slide(p, dicoms, series, root))}
    slides = name_slides([*plain, *series], root, folders, [] if notes is None else notes)
    if not slides:
        raise InputError(
            f"{where} holds no slide (suffixes {' '.join(sorted(SLIDE_SUFFIXES))}, or DICOM), but {join_counts(len(files), found.broken)}"
        )
    unused = [p for p in files if p.suffix.lower() not in SLIDE_SUFFIXES and not is_dicom(p) and p.suffix.lower() not in COMPANION_SUFFIXES]
    return slides, Counter(p.suffix.lower() or "no suffix" for p in unused) + objects, found.broken


def folder_of_lone_slide(path: Path, dicoms: Iterable[Path], series: Iterable[Path], root: Path) -> Path | None:
    """The folder of a DICOM slide if it holds only this slide: it names the slide better than one of its files does."""
    if path.parent == root or sum(p.parent == path.parent for p in series) > 1:
        return None
    return path.parent if sum(p.parent == path.parent for p in dicoms) > 1 else None
