"""The files of coordinates of a cohort, and which slide each belongs to."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from encoders.ingest.list_files import list_files, strip_partial_suffix
from encoders.ingest.wsi.region_files import list_usual_stems
from encoders.runtime.errors import InputError

COORDINATE_SUFFIXES = (".h5", ".hdf5")
TRIDENT_ENDING = "_patches"  # of NAME_patches.h5


def find_coordinate_files(coords: Path, sources: Mapping[str, str], notes: list[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """The file of coordinates of every slide that has one, and the reason for those that have none or several.

    coords: one file for one slide, or a folder with NAME.h5 or NAME_patches.h5, in subfolders too.
    sources: name of a slide -> its path, relative to the folder of slides.  Raises InputError if no slide has a file."""
    if not coords.exists():
        raise InputError(f"--coords {coords} does not exist")
    if not coords.is_dir():
        if len(sources) > 1:
            raise InputError(f"--coords {coords} is one file for {len(sources)} slides; name a folder with NAME.h5 for each")
        return dict.fromkeys(sources, coords), {}
    listed = list_files(coords, COORDINATE_SUFFIXES)
    broken = [each.name for each in listed.broken if strip_partial_suffix(each.name).lower().endswith(COORDINATE_SUFFIXES)]
    files = {strip_partial_suffix(name): coords / name for name in [*broken, *listed.names]}  # a broken one costs its slide
    by_path, by_name = index_stems(files)
    found, problems, several = dict[str, Path](), dict[str, str](), set[str]()
    for name, stems in list_usual_stems(sources).items():
        own = next((by[stem] for by in (by_path, by_name) for stem in stems if stem in by), [])
        if len(own) == 1:
            found[name] = files[own[0]]
        elif own:
            several.update(own)
            problems[name] = f"has {len(own)} files of coordinates in {coords}: {own[0]} and {own[1]}; name the folder with the right ones"
        else:
            problems[name] = f"has no coordinates: {coords} holds no {name}.h5 or {name}{TRIDENT_ENDING}.h5"
    used = several | {text for text, path in files.items() if path in found.values()}
    unused = sorted(set(files) - used)
    if not used:
        content = f"it holds {len(files)} HDF5 files, e.g. {unused[0]}" if files else "it holds no HDF5 file"
        raise InputError(
            f"--coords {coords} has coordinates for none of the {len(sources)} slides: {content}; expected e.g. {next(iter(sources))}.h5"
        )
    rest = f"; {len(unused)} files belong to none of them (first: {unused[0]})" if unused else ""
    notes.append(f"coordinates: {len(found)} of {len(sources)} slides have a file{rest}")
    return found, problems


def index_stems(files: Mapping[str, Path]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The files by path and by name, without suffix and without TRIDENT's ending."""
    by_path: dict[str, list[str]] = {}
    by_name: dict[str, list[str]] = {}
    for text in sorted(files):
        stem = text.rpartition(".")[0]
        for each in {stem, stem.removesuffix(TRIDENT_ENDING)}:
            by_path.setdefault(each, []).append(text)
            by_name.setdefault(PurePosixPath(each).name, []).append(text)
    return by_path, by_name
