"""Which slides there are, and what the table, the paths and the folders of masks and regions say about each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from encoders.ingest.folder import Finder
from encoders.ingest.pattern import compiled, matching, parts
from encoders.ingest.table import read_table, roles
from encoders.ingest.wsi.discover import slides
from encoders.ingest.wsi.item import Item
from encoders.runtime.errors import InputError


def items_of(
    where: Path,
    mpp: float | None,
    masks: Path | None,
    regions: Path | None,
    table: Path | None,
    label: Sequence[str],
    meta: Sequence[str],
    pattern: str | None,
    classes: Sequence[str],
) -> tuple[list[Item], list[str]]:
    """The slides in order, and what the reader should know. Raises InputError for what the user got wrong."""
    found, others = slides(where)
    root = where if where.is_dir() else where.parent
    notes = [f"{n} files skipped: {kind}" for kind, n in sorted(others.items())]
    for folder, option in ((masks, "--masks"), (regions, "--regions")):
        if folder and not folder.exists():
            raise InputError(f"{option} {folder} does not exist")
    if classes and not regions:
        raise InputError(f"--include and --exclude choose among drawn regions ({', '.join(classes)}); pass --regions with their folder")
    facts: dict[str, dict[str, Any]] = {name: {"mpp": mpp} for name in found}
    if pattern:
        by_path(facts, found, root, pattern, notes)
    if table:
        facts = by_table(facts, found, root, table, label, meta, notes)
    if not any("patient" in of.get("said", ()) for of in facts.values()):
        notes.append("warning: nothing names the patients (--labels or --pattern): every slide counts as a patient of its own")
    files = {"mask": masks, "regions": regions}
    return [
        Item(name, found[name], found[name].relative_to(root).as_posix(), **beside(files, name, len(facts)), **facts[name])
        for name in facts
    ], notes


def beside(folders: dict[str, Path | None], name: str, slides: int) -> dict[str, Any]:
    """The mask and the regions of a slide: a mask must be there, regions only where some were drawn."""
    mask, regions = folders["mask"], folders["regions"]
    if regions and regions.is_dir():
        regions = regions / f"{name}.geojson"
    elif regions and slides > 1:
        raise InputError(f"--regions {regions} is one file for {slides} slides; give a folder with NAME.geojson for each")
    return {"mask": mask / f"{name}.png" if mask else None, "regions": regions if regions and regions.exists() else None}


def by_path(facts: dict[str, dict[str, Any]], found: dict[str, Path], root: Path, text: str, notes: list[str]) -> None:
    """Adds what the pattern finds in the paths; a slide that it does not fit stays out."""
    pattern = compiled(text)
    names = {found[name].relative_to(root).as_posix(): name for name in found}
    fit, others = matching(pattern, list(names))
    for path in others:
        del facts[names[path]]
    if others:
        notes.append(f"{len(others)} slides do not match --pattern and were left out, e.g. {others[0]}")
    for path in fit:
        said = parts(pattern, path)
        labels = {"label": said.pop("label")} if "label" in said else {}
        facts[names[path]] |= {"said": said, "labels": labels}


def by_table(
    facts: dict[str, dict[str, Any]],
    found: dict[str, Path],
    root: Path,
    path: Path,
    label: Sequence[str],
    meta: Sequence[str],
    notes: list[str],
) -> dict[str, dict[str, Any]]:
    """The slides that the table names, with what it says. A file may be named by path, file name, or name without suffix."""
    columns, rows = read_table(path)
    given = {"file": next((c for c in columns if c.lower() in ("slide", "slide_id")), None)} if "file" not in columns else {}
    role = roles(columns, {**given, "slide": ""}, list(label), list(meta))
    notes.extend(role.said(columns))
    find = Finder([found[name].relative_to(root).as_posix() for name in found])
    names = {found[name].relative_to(root).as_posix(): name for name in found} | {name: name for name in found}
    out: dict[str, dict[str, Any]] = {}
    for row in rows:
        name = names.get(find(row[role.file]))
        if name is None or name not in facts:
            continue
        if name in out:
            raise InputError(f"{path} names the slide {name} in two rows; keep one")
        said = {part: row[c] for part in ("patient", "split", "study") if (c := getattr(role, part)) and row[c]}
        of = facts[name]
        out[name] = of | {"mpp": of["mpp"] or micrometres(row, path), "said": of.get("said", {}) | said}
        out[name] |= {"meta": {c: row[c] for c in role.meta}, "labels": of.get("labels", {}) | {c: row[c] for c in role.label}}
    if not out:
        raise InputError(f"not one of the {len(rows)} slides in column {role.file!r} of {path} is among the {len(found)} found")
    notes.append(f"{len(rows)} rows, {len(rows) - len(out)} of them without a slide; {len(facts) - len(out)} slides without a row left out")
    return dict(sorted(out.items()))


def micrometres(row: dict[str, str], path: Path) -> float | None:
    """The column mpp of a row, where there is one that is filled."""
    text = row.get("mpp", "")
    try:
        return float(text) if text else None
    except ValueError:
        raise InputError(f"{path}: mpp is {text!r}; micrometres a pixel are expected, e.g. 0.25") from None
