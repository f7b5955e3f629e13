"""Which slides there are, and what the table, the paths and the folders of masks and regions say about each."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from encoders.ingest.folder import FileFinder
from encoders.ingest.label_table import assign_roles, read_label_table
from encoders.ingest.pattern import compile_pattern, extract_groups, split_by_match
from encoders.ingest.source import Unreadable
from encoders.ingest.wsi.discover import discover_slides
from encoders.ingest.wsi.quality import TileQuality
from encoders.ingest.wsi.regions import read_regions
from encoders.ingest.wsi.slide_item import SlideItem
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.files import walk_files
from encoders.store.write import is_known, is_number


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
) -> tuple[list[SlideItem], list[str]]:
    """The slides in order, and what the reader should know. Raises InputError for what the user got wrong."""
    found, others = discover_slides(where)
    root = where if where.is_dir() else where.parent
    notes = [f"{n} files skipped: {kind}" for kind, n in sorted(others.items())]
    for folder, option in ((masks, "--masks"), (regions, "--regions")):
        if folder and not folder.exists():
            raise InputError(f"{option} {folder} does not exist")
    if masks and not masks.is_dir():
        raise InputError(f"--masks {masks} is a file; give the folder with NAME.png for every slide NAME")
    if (classes := [*include, *exclude]) and not regions:
        raise InputError(f"--include and --exclude choose among drawn regions ({', '.join(classes)}); pass --regions with their folder")
    facts: dict[str, dict[str, Any]] = {name: {"mpp": mpp} for name in found}
    if pattern:
        apply_path_pattern(facts, found, root, pattern, notes)
    if table:
        facts = apply_slide_table(facts, found, root, table, label, meta, notes)
    if not any("patient" in of.get("said", ()) for of in facts.values()):
        notes.append("warning: nothing names the patients (--labels or --pattern): every slide counts as a patient of its own")
    sources = {name: found[name].relative_to(root).as_posix() for name in facts}
    drawn = find_region_files(regions, sources, notes) if regions else {}
    check_region_classes(drawn.values(), include, exclude, notes)
    mask = {name: masks / f"{name}.png" for name in facts} if masks else {}
    made = [SlideItem(n, found[n], sources[n], mask=mask.get(n), regions=drawn.get(n), **of) for n, of in align_columns(facts).items()]
    return made, notes


def find_region_files(regions: Path, sources: dict[str, str], notes: list[str]) -> dict[str, Path]:
    """The GeoJSON of every slide that has one: by its name in OUT_DIR, its path, or its path without suffix.

    Raises InputError when no slide has one: they are misnamed, and what was to be left out would be in."""
    if not regions.is_dir():
        if len(sources) > 1:
            raise InputError(f"--regions {regions} is one file for {len(sources)} slides; give a folder with NAME.geojson for each")
        return dict.fromkeys(sources, regions)
    files = {path.relative_to(regions).as_posix(): path for path in walk_files(regions) if path.suffix.lower() in (".geojson", ".json")}
    out: dict[str, Path] = {}
    for name, source in sources.items():
        usual = (f"{stem}{suffix}" for stem in (name, source, source.rpartition(".")[0]) for suffix in (".geojson", ".json"))
        if (file := next((files[text] for text in usual if text in files), None)) is not None:
            out[name] = file
    loose = sorted(text for text, path in files.items() if path not in out.values())
    if not out:
        told = f"it holds {len(files)} GeoJSON files, e.g. {loose[0]}" if files else "it holds no GeoJSON file"
        raise InputError(
            f"--regions {regions} has regions of none of the {len(sources)} slides: {told}; expected e.g. {next(iter(sources))}.geojson"
        )
    notes.append(
        f"regions: of {len(out)} of {len(sources)} slides" + (f"; {len(loose)} files are of none of them, e.g. {loose[0]}" if loose else "")
    )
    return out


def check_region_classes(files: Iterable[Path], include: Sequence[str], exclude: Sequence[str], notes: list[str]) -> None:
    """Raises InputError for a class of --include that no file has, and for one of --exclude that looks misspelt, as nothing would tell."""
    seen: set[str] = set()
    for path in set(files):
        if seen.issuperset((*include, *exclude)):
            break  # as a rule after a file or two: exports of cells are large
        with suppress(Unreadable):  # its slide will be named
            seen |= {region.name for region in read_regions(path)}
    for name in [n for n in (*include, *exclude) if seen and n not in seen]:
        near = get_close_matches(name, list(seen), n=3)
        if name in include or (near and not {*near} & {*exclude}):
            raise unknown_name_error("class of regions", name, seen)
        notes.append(f"no region is called {name!r}; there are: {', '.join(sorted(map(repr, seen)))}")


def align_columns(facts: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The facts with the same columns in every slide, "" where nothing is known, and with the names of those that are numbers in all:
    every slide becomes a store of its own, and they are to open as one."""
    columns: dict[str, dict[str, list[str]]] = {}
    for kind in ("said", "meta", "labels"):
        names = sorted({name for of in facts.values() for name in of.get(kind, ())} - ({"patient", "slide"} if kind == "said" else set()))
        columns[kind] = {name: [of.get(kind, {}).get(name, "") for of in facts.values()] for name in names}
    every = columns["meta"] | columns["labels"]
    numbers = frozenset(n for n, values in every.items() if any(map(is_known, values)) and all(is_number(v) for v in values if is_known(v)))
    return {
        name: of | {k: dict.fromkeys(columns[k], "") | of.get(k, {}) for k in columns} | {"numbers": numbers} for name, of in facts.items()
    }


def apply_path_pattern(facts: dict[str, dict[str, Any]], found: dict[str, Path], root: Path, text: str, notes: list[str]) -> None:
    """Adds what the pattern finds in the paths; a slide that it does not fit stays out."""
    pattern = compile_pattern(text)
    names = {found[name].relative_to(root).as_posix(): name for name in found}
    fit, others = split_by_match(pattern, list(names))
    for path in others:
        del facts[names[path]]
    if others:
        notes.append(f"{len(others)} slides do not match --pattern and were left out, e.g. {others[0]}")
    for path in fit:
        said = extract_groups(pattern, path)
        labels = {"label": said.pop("label")} if "label" in said else {}
        facts[names[path]] |= {"said": said, "labels": labels}


def apply_slide_table(
    facts: dict[str, dict[str, Any]],
    found: dict[str, Path],
    root: Path,
    path: Path,
    label: Sequence[str],
    meta: Sequence[str],
    notes: list[str],
) -> dict[str, dict[str, Any]]:
    """The slides that the table names, with what it says. A file may be named by path, file name, or name without suffix."""
    columns, rows = read_label_table(path)
    given = {"file": next((c for c in columns if c.lower() in ("slide", "slide_id")), None)} if "file" not in columns else {}
    role = assign_roles(columns, {**given, "slide": ""}, list(label), list(meta), "call it file or slide")
    if taken := [name for name in role.meta if name in TileQuality._fields]:
        raise InputError(f"the column {taken[0]!r} of {path} would hide what is measured of every tile; rename it")
    notes.extend(role.said(columns, ["mpp"]))
    find = FileFinder([found[name].relative_to(root).as_posix() for name in found])
    names = {found[name].relative_to(root).as_posix(): name for name in found} | {name: name for name in found}
    out: dict[str, dict[str, Any]] = {}
    strangers: list[str] = []
    for row in rows:
        name = names.get(find(row[role.file]))
        if name is None or name not in facts:
            strangers.append(row[role.file])
            continue
        if name in out:
            raise InputError(f"{path} names the slide {name} in two rows; keep one")
        said = {part: row[c] for part in ("patient", "split", "study") if (c := getattr(role, part)) and row[c]}  # "": see `alike`
        of = facts[name]
        out[name] = of | {"mpp": of["mpp"] or read_mpp(row, path), "said": of.get("said", {}) | said}
        out[name] |= {"meta": {c: row[c] for c in role.meta}, "labels": of.get("labels", {}) | {c: row[c] for c in role.label}}
    if not out:
        raise InputError(f"not one of the {len(rows)} slides in column {role.file!r} of {path} is among the {len(found)} found")
    left = [name for name in facts if name not in out]
    notes.append(
        f"{len(rows)} rows, {len(strangers)} of them without a slide{format_first(strangers)}; {len(left)} slides without a row{format_first(left)}"
    )
    return dict(sorted(out.items()))


def format_first(names: Sequence[str]) -> str:
    return f" (first: {names[0]})" if names else ""


def read_mpp(row: dict[str, str], path: Path) -> float | None:
    """The column mpp of a row, where there is one that is filled."""
    text = row.get("mpp", "")
    if not is_known(text):
        return None
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.01 <= value <= 50:
        raise InputError(f"{path}: mpp is {text!r}; micrometres a pixel are expected, e.g. 0.25")
    return value
