"""The files of regions of a cohort, and which slide each belongs to."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from encoders.ingest.list_files import list_files, strip_partial_suffix
from encoders.runtime.errors import InputError

PLAIN_SUFFIXES = (".geojson", ".json", ".xml")
REGION_SUFFIXES = (*PLAIN_SUFFIXES, *(suffix + packed for packed in (".gz", ".zip") for suffix in PLAIN_SUFFIXES), ".zip")


def find_region_files(regions: Path, sources: Mapping[str, str], notes: list[str]) -> dict[str, Path]:
    """The files of regions of slides: by name in OUT_DIR, path, file name, or these without suffix. Slides without a file are left out.

    sources: name of a slide -> its path, relative to the folder of slides.
    Raises InputError if no slide has a file: then the names are wrong, and regions to exclude would be included."""
    if not regions.is_dir():
        if len(sources) > 1:
            raise InputError(f"--regions {regions} is one file for {len(sources)} slides; name a folder with NAME.geojson for each")
        return dict.fromkeys(sources, regions)
    listed = list_files(regions, REGION_SUFFIXES)
    broken = [each.name for each in listed.broken if strip_partial_suffix(each.name).lower().endswith(REGION_SUFFIXES)]
    files = {strip_partial_suffix(name): regions / name for name in [*broken, *listed.names]}  # a broken one costs its slide
    by_stem: dict[str, list[str]] = {}
    for text in sorted(files, key=lambda text: (_suffix_order(text), text)):
        by_stem.setdefault(strip_region_suffix(text), []).append(text)
    chosen: dict[str, str] = {}
    for name, stems in list_usual_stems(sources).items():
        if own := [text for stem in stems for text in by_stem.get(stem, [])]:
            chosen[name] = own[0]
            if len(own) > 1:
                notes.append(f"regions of {name}: {own[0]} is used, not {', '.join(own[1:])}")
    unused = sorted(set(files) - set(chosen.values()))
    if not chosen:
        content = f"it holds {len(files)} files of regions, e.g. {unused[0]}" if files else "it holds no GeoJSON or ASAP XML"
        raise InputError(
            f"--regions {regions} has regions for none of the {len(sources)} slides: {content}; expected e.g. {next(iter(sources))}.geojson"
        )
    without = [name for name in sources if name not in chosen]
    notes.append(
        f"regions: {len(chosen)} of {len(sources)} slides have a file"
        + (f"; {len(without)} have none (first: {without[0]})" if without else "")
        + (f"; {len(unused)} files are not used (first: {unused[0]})" if unused else "")
    )
    return {name: files[text] for name, text in chosen.items()}


def list_usual_stems(sources: Mapping[str, str]) -> dict[str, list[str]]:
    """Name of a slide -> the names that its file of regions may have, without the suffix of regions; the most specific first.

    The file name alone counts only if no other slide has it."""
    stems: dict[str, list[str]] = {}
    owners: dict[str, set[str]] = {}
    for name, source in sources.items():
        file = PurePosixPath(source).name
        full = [name, source, source.rpartition(".")[0]]
        stems[name] = list(dict.fromkeys([*full, file, file.rpartition(".")[0]]))
        for stem in stems[name]:
            owners.setdefault(stem, set()).add(name)
    return {name: [stem for k, stem in enumerate(own) if stem and (k < 1 or len(owners[stem]) == 1)] for name, own in stems.items()}


def strip_region_suffix(name: str) -> str:
    """`a.svs` for `a.svs.geojson.gz`."""
    return name[: -len(_suffix_of(name))] if _suffix_of(name) else name


def _suffix_of(name: str) -> str:
    return max((suffix for suffix in REGION_SUFFIXES if name.lower().endswith(suffix)), key=len, default="")


def _suffix_order(name: str) -> int:
    return REGION_SUFFIXES.index(suffix) if (suffix := _suffix_of(name)) else len(REGION_SUFFIXES)
