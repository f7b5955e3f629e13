"""Does a user's copy of a data set hold what its task says? One finding a question; nothing is repaired.

Shapes: N images of the store.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from encoders.ingest.quarantine import quarantined
from encoders.runtime.errors import InputError
from transfer import data, labels, recipes
from transfer.split import NAMES
from transfer.task import PARTS, Task

SAMPLE = 1000  # images whose pixels are compared with their hash; all of a million would take minutes


@dataclass(frozen=True)
class Finding:
    """One question and its answer."""

    what: str
    expected: str
    found: str
    verdict: Literal["ok", "warning", "wrong"] = "ok"


def check(task: Task) -> list[Finding]:
    """All findings, in the order of the ways in which a copy goes wrong."""
    try:
        store = data.opened(task)
        recipe = recipes.load(task.recipe) if task.recipe else None
    except InputError as wrong:
        return [Finding("store", "opens", str(wrong), "wrong")]
    found = [Finding("store", "opens", f"{len(store)} images, {store.modality}, data set {store.dataset}")]
    found += [*unreadable(store), *pixels(store), *named_patients(store)]
    try:
        part = data.split_column(store, task.split)
    except InputError as wrong:
        part = None
        found.append(Finding("official split", "can be read", str(wrong), "wrong"))
    found += label_values(task, store, recipe)
    if part is not None:
        part = np.array([NAMES.get(str(v).strip().lower(), str(v)) for v in part], dtype=object)
        found += [*listed(task, store), *counts(part, store, recipe), *apart(task, part, store)]
    return [*found, *loads(task)]


def unreadable(store: Any) -> Iterator[Finding]:
    """Files that ingest could not read."""
    n = sum(len(quarantined(path)) for path in store.paths)
    yield Finding("unreadable files", "none", f"{n}, see {store.paths[0]}.quarantine.csv" if n else "none", "wrong" if n else "ok")


def pixels(store: Any) -> Iterator[Finding]:
    """Whether stored images are still what was ingested; those that were compressed then can only be decoded."""
    from encoders.duplicates import pixel_sha256

    rows, known = np.unique(np.linspace(0, len(store) - 1, min(SAMPLE, len(store))).astype(int)), store.column("sha256")
    torn = []
    for i in rows:
        try:
            image, raw = store.image(int(i)), store.place(int(i))[0].attrs["codec"] == "raw"
            same = not raw or pixel_sha256(image) == str(known[i])
        except (OSError, ValueError, InputError):
            same = False
        torn += [] if same else [str(store.column("key")[i])]
    told = f"{len(torn)} of {len(rows)} looked at are not, e.g. {torn[0]}" if torn else f"{len(rows)} looked at"
    yield Finding("pixels", "as ingested", told, "wrong" if torn else "ok")


def named_patients(store: Any) -> Iterator[Finding]:
    """A set without patients can be split by image only."""
    alone = int((store.column("patient").astype(str) == store.column("key").astype(str)).sum())
    n = len(set(store.column("patient").tolist()))
    told = f"{n} patients" if not alone else f"{alone} of {len(store)} images name none and count as a patient each"
    yield Finding("patients", "named", told, "warning" if alone else "ok")


def label_values(task: Task, store: Any, recipe: Any) -> Iterator[Finding]:
    """Every label column: is it there, and are its values known?"""
    try:
        columns, said = data.read_columns(store, task)
    except InputError as wrong:
        yield Finding("label columns", ", ".join(task.labels), str(wrong), "wrong")
        return
    yield from (Finding("labels", "joined", line, "ok") for line in said)
    for column in columns:
        yield _values(task, column, recipe)


def _values(task: Task, column: labels.Column, recipe: Any) -> Finding:
    what, known = f"label {column.name}", np.isfinite(column.codes)
    share = f"{int(known.sum())} of {len(known)} known"
    if column.classes is not None:
        have = sorted({column.classes[int(c)] for c in column.codes[known]})
        wanted = sorted(recipe.classes) if recipe is not None and recipe.classes else have
        wrong = [f"not {name!r}" for name in wanted if name not in have] + [f"also {name!r}" for name in have if name not in wanted]
        return Finding(what, ", ".join(wanted), f"{share}; {', '.join(wrong)}" if wrong else share, "wrong" if wrong else "ok")
    if task.kind == "multiclass":
        return Finding(what, "classes", f"{share}: {', '.join(f'{v:g}' for v in np.unique(column.codes[known])[:10])}")
    mark = task.policy.mark
    allowed = {0.0, 1.0} if task.policy.uncertain is None else {0.0, 1.0, mark}
    odd = Counter(column.codes[known].tolist())
    told = [f"{odd[v]} x {v:g}" for v in sorted(odd) if v not in allowed]
    told += [f"{mark:g} means uncertain? choose with --uncertain"] if mark in odd and mark not in allowed else []
    expected = ", ".join(f"{v:g}" for v in sorted(allowed))
    # A binary task may be made of other numbers by --positive.
    return Finding(what, expected, f"{share}; {'; '.join(told)}" if told else share, "wrong" if told and task.positive is None else "ok")


def listed(task: Task, store: Any) -> Iterator[Finding]:
    """Names of the official lists that have no image."""
    have = {name for key in store.column("key") for name in (str(key), labels.last(str(key)))}
    for part, path in task.split.lists.items():
        names = data.names_in(path)
        lost = [name for name in names if name not in have]
        told = f"{len(lost)} of {len(names)} have none, e.g. {lost[0]}" if lost else f"all {len(names)} have one"
        yield Finding(f"{part} list", "an image for every name", told, "wrong" if lost else "ok")


def counts(part: np.ndarray, store: Any, recipe: Any) -> Iterator[Finding]:
    """Documented numbers of images; images outside every part."""
    documented = {} if recipe is None else recipe.counts.get(store.dataset.lower(), recipe.counts.get("*", {}))
    for name, expected in documented.items():
        n = int((part == name).sum())
        yield Finding(f"{name} images", f"{expected:,}", f"{n:,}", "ok" if n == expected else "wrong")
    odd = Counter(str(v) for v in part if v not in PARTS)
    if odd:
        told = "; ".join(f"{n} images {f'with {name!r}' if name else 'without one'}" for name, n in odd.most_common(5))
        yield Finding("official part", "train, val, test", told, "wrong" if [name for name in odd if name] else "warning")


def apart(task: Task, part: np.ndarray, store: Any) -> Iterator[Finding]:
    """Patients, and images to the last pixel, that stand in two parts."""
    for what, column in (("patients in two parts", "patient"), ("identical images in two parts", "sha256")):
        where: dict[str, set[str]] = {}
        for name, p in zip(store.column(column), part, strict=True):
            where.setdefault(str(name), set()).update([str(p)] if p else [])
        both = [name for name, parts in where.items() if len(parts) > 1]
        excused = column == "patient" and task.split.patients_by_split
        told = f"{len(both)}" + (" (equal ids are said to be different people)" if both and excused else "")
        yield Finding(what, "none", told if both else "none", "ok" if not both else "warning" if excused else "wrong")


def loads(task: Task) -> Iterator[Finding]:
    """Whether the bench could use the task, and which labels a part has one class of only."""
    try:
        loaded = data.load(task)
    except InputError as wrong:
        yield Finding("task", "can be benched", str(wrong), "wrong")
        return
    lacking = []
    for name in PARTS:
        y = loaded.y[loaded.split.rows(name)]
        columns = [y[np.isfinite(y[:, c]), c] > 0.5 for c in range(y.shape[1])]
        lacking += [f"{task.classes[c]} ({name})" for c, hits in enumerate(columns) if len(np.unique(hits)) < 2]
    yield Finding(
        "task", "can be benched", "yes, in " + ", ".join(f"{n['patients']} {p}" for p, n in loaded.counts().items()) + " patients"
    )
    if lacking:
        yield Finding("both classes in every part", "yes", f"not {', '.join(lacking[:6])}", "warning")
