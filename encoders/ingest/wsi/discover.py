"""The slides of a folder, each once: files by their suffix, DICOM by its series."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from encoders.runtime.errors import InputError
from encoders.runtime.files import walk_files

SLIDE_SUFFIXES = {".svs", ".tif", ".tiff", ".ndpi", ".vms", ".vmu", ".scn", ".mrxs", ".svslide", ".bif", ".czi"}
COMPANION_SUFFIXES = {".dat", ".ini", ".opt", ".xml", ".geojson"}  # of MIRAX, Hamamatsu and QuPath; a JPEG beside a .vms is one, too


def discover_slides(where: Path) -> tuple[dict[str, Path], Counter[str]]:
    """Slide name to the file that OpenSlide is to open, in sorted order; and how many files of other kinds there are.

    where: a folder, searched through and through, or one slide (for DICOM: any file of its series, or their folder).
    Raises InputError when there is none."""
    if not where.exists():
        raise InputError(f"{where} does not exist; give a folder of slides, or one slide")
    root = where if where.is_dir() else where.parent
    files = sorted(walk_files(where)) if where.is_dir() else [where]
    dicoms = [p for p in files if is_dicom(p)]
    plain = [p for p in files if p.suffix.lower() in SLIDE_SUFFIXES and p not in set(dicoms)]
    series = first_of_series(dicoms)
    found = name_slides([*plain, *series], root, {p: folder for p in series if (folder := folder_of_lone_slide(p, dicoms, series, root))})
    if not found:
        raise InputError(f"{where} holds no slide: suffixes {' '.join(sorted(SLIDE_SUFFIXES))}, or DICOM; {len(files)} other files")
    used = {*plain, *dicoms}
    return found, Counter(p.suffix.lower() or "no suffix" for p in files if p not in used and p.suffix.lower() not in COMPANION_SUFFIXES)


def is_dicom(path: Path) -> bool:
    if path.suffix.lower() not in (".dcm", ""):
        return False
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM" or path.suffix.lower() == ".dcm"  # a broken .dcm is a slide that cannot be read


def first_of_series(paths: Iterable[Path]) -> dict[Path, str]:
    """First file of every series in a folder, to its series: OpenSlide finds the others, the levels of the slide, beside it."""
    import pydicom

    seen: dict[tuple[Path, str], Path] = {}
    for path in sorted(paths):
        try:
            series = str(pydicom.dcmread(path, stop_before_pixels=True, specific_tags=["SeriesInstanceUID"]).SeriesInstanceUID)
        except Exception:  # noqa: BLE001  boundary: whatever is wrong with this file, opening it will tell
            series = f"unreadable {path.name}"
        seen.setdefault((path.parent, series), path)
    return {path: series for (_, series), path in seen.items()}


def folder_of_lone_slide(path: Path, dicoms: Iterable[Path], series: Iterable[Path], root: Path) -> Path | None:
    """The folder of a DICOM slide, when it holds that slide alone: then it names the slide better than one of a hundred files."""
    if path.parent == root or sum(p.parent == path.parent for p in series) > 1:
        return None
    return path.parent if sum(p.parent == path.parent for p in dicoms) > 1 else None


def name_slides(paths: Iterable[Path], root: Path, folders: dict[Path, Path]) -> dict[str, Path]:
    """Names that can be file names: the relative path without suffix, with it where two would be the same.

    Raises InputError where two would be the same even so."""
    short = {path: flatten_path(folders[path], root) if path in folders else flatten_path(path.with_suffix(""), root) for path in paths}
    twice = Counter(short.values())
    names: dict[str, Path] = {}
    for path, name in short.items():
        name = name if twice[name] == 1 else flatten_path(path, root)
        if name in names:
            raise InputError(f"{names[name]} and {path} would both be called {name}; rename one")
        names[name] = path
    return dict(sorted(names.items()))


def flatten_path(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix().replace("/", "__")
