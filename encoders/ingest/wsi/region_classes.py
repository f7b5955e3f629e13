"""Classes of hand-drawn regions: which of them give tiles, and which the files of a cohort hold."""

from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path

from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.records import SlideRecord
from encoders.ingest.wsi.regions import is_excluded, is_included, read_regions
from encoders.runtime.errors import unknown_name_error


def check_region_classes(files: Iterable[Path], include: Sequence[str], exclude: Sequence[str], notes: list[str]) -> None:
    """Raises InputError for a class of --include that no file has, and for a class of --exclude that is probably misspelt."""
    seen: set[str] = set()
    for path in dict.fromkeys(files):
        if seen.issuperset((*include, *exclude)):
            break  # usually after one or two files; exports of cells are large
        with suppress(Unreadable):  # the slide itself is quarantined
            seen |= {region.name for region in read_regions(path)}
    for name in [n for n in (*include, *exclude) if seen and n not in seen]:
        near = get_close_matches(name, list(seen), n=3)
        if name in include or (near and not {*near} & {*exclude}):
            raise unknown_name_error("class of regions", name, seen)
        notes.append(f"no region has the class {name!r}; known classes: {', '.join(sorted(map(repr, seen)))}")


def describe_region_classes(records: Sequence[SlideRecord], include: Sequence[str], exclude: Sequence[str]) -> str:
    """The classes of the regions of all slides with the number of their areas, and what became of them; "" without regions."""
    drawn = [record["facts"]["regions"] for record in records if "facts" in record and "regions" in record["facts"]]
    counts = sum((Counter(classes) for classes in drawn), Counter[str]())

    def outcome(name: str) -> str:
        if is_excluded(name, include, exclude):
            return "excluded"
        return "included" if is_included(name, include, exclude) else "not in --include"

    parts = [f"{name!r}" if name else "no class" for name in counts]
    text = ", ".join(f"{part} {n} ({outcome(name)})" for part, (name, n) in sorted(zip(parts, counts.items(), strict=True)))
    return f"classes of regions in {len(drawn)} slides, with the number of areas: {text or 'none'}" if drawn else ""
