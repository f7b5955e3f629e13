"""Finds the slides of a folder, each once: files by suffix, DICOM files by series."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from encoders.ingest.list_files import BrokenFile, FoundFiles, find_files, join_counts
from encoders.ingest.wsi.dicom_slides import first_of_series, is_dicom, split_dicom_files
from encoders.runtime.errors import InputError

SLIDE_SUFFIXES = {".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".czi"}
COMPANION_SUFFIXES = {".dat", ".ini", ".opt", ".xml", ".geojson"}  # files of MIRAX, Hamamatsu and QuPath beside a slide


def discover_slides(where: Path) -> tuple[dict[str, Path], Counter[str], list[BrokenFile]]:
    """Slide name to the file that OpenSlide opens, sorted; the number of other files by suffix; and what cannot be read.

    where: a folder, searched recursively, or one slide (for DICOM: any file of its series, or the folder of the series).
    Raises InputError if there is no slide."""
    if not where.exists():
        raise InputError(f"{where} does not exist; name a folder of slides, or one slide")
    root = where if where.is_dir() else where.parent
    found = find_files(where) if where.is_dir() else FoundFiles([where], [])
    files = found.files
    dicoms, objects = split_dicom_files(p for p in files if is_dicom(p))
    plain = [p for p in files if p.suffix.lower() in SLIDE_SUFFIXES and not is_dicom(p)]
    series = first_of_series(dicoms)
    slides = name_slides([*plain, *series], root, {p: folder for p in series if (folder := folder_of_lone_slide(p, dicoms, series, root))})
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


def name_slides(paths: Iterable[Path], root: Path, folders: dict[Path, Path]) -> dict[str, Path]:
    """Names that are valid file names: the relative path without suffix, or with suffix if two would be equal.

    Raises InputError if two are equal even with suffix."""
    short = {path: flatten_path(folders[path], root) if path in folders else flatten_path(path.with_suffix(""), root) for path in paths}
    twice = Counter(short.values())
    names: dict[str, Path] = {}
    for path, name in short.items():
        name = name if twice[name] == 1 else flatten_path(path, root)
        if name in names:
            raise InputError(f"{names[name]} and {path} would both be called {name}; rename one of them")
        names[name] = path
    return dict(sorted(names.items()))


def flatten_path(path: Path, root: Path) -> str:
    """The relative path with "__" for "/"."""
    return path.relative_to(root).as_posix().replace("/", "__")
