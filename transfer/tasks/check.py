"""Does a user's copy of a data set hold what its task says? One finding a question; nothing is repaired.

Shapes: N images of the store.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from encoders.ingest.quarantine import read_quarantine
from encoders.runtime.errors import InputError
from transfer.tasks import labels, load, recipes
from transfer.tasks.split import PART_NAMES
from transfer.tasks.task import PARTS, Task

PIXEL_SAMPLE_SIZE = 1000  # images whose pixels are compared with their hash; all of a million would take minutes


@dataclass(frozen=True)
class CheckResult:
    """One question and its answer."""

    what: str
    expected: str
    found: str
    verdict: Literal["ok", "warning", "wrong"] = "ok"


def check_task(task: Task) -> list[CheckResult]:
    """All findings, in the order of the ways in which a copy goes wrong."""
    try:
        store = load.open_task_store(task)
        recipe = recipes.load_recipe(task.recipe) if task.recipe else None
    except InputError as wrong:
        return [CheckResult("store", "opens", str(wrong), "wrong")]
    found = [CheckResult("store", "opens", f"{len(store)} images, {store.modality}, data set {store.dataset}")]
    found += [*check_readable(store), *check_pixels(store), *check_patients(store)]
    try:
        part = load.read_split_column(store, task.split)
    except InputError as wrong:
        part = None
        found.append(CheckResult("official split", "can be read", str(wrong), "wrong"))
    found += check_labels(task, store, recipe)
    if part is not None:
        part = np.array([PART_NAMES.get(str(v).strip().lower(), str(v)) for v in part], dtype=object)
        found += [*check_official_lists(task, store), *check_counts(part, store, recipe), *check_overlap(task, part, store)]
    return [*found, *check_benchable(task)]


def check_readable(store: Any) -> Iterator[CheckResult]:
    """Files that ingest could not read."""
    n = sum(len(read_quarantine(path)) for path in store.paths)
    yield CheckResult("unreadable files", "none", f"{n}, see {store.paths[0]}.quarantine.csv" if n else "none", "wrong" if n else "ok")


def check_pixels(store: Any) -> Iterator[CheckResult]:
    """Whether stored images are still what was ingested; those that were compressed then can only be decoded."""
    from encoders.similarity.perceptual_hash import pixel_sha256

    rows, known = np.unique(np.linspace(0, len(store) - 1, min(PIXEL_SAMPLE_SIZE, len(store))).astype(int)), store.column("sha256")
    torn = []
    for i in rows:
        try:
            image, raw = store.image(int(i)), store.place(int(i))[0].attrs["codec"] == "raw"
            same = not raw or pixel_sha256(image) == str(known[i])
        except (OSError, ValueError, InputError):
            same = False
        torn += [] if same else [str(store.column("key")[i])]
    told = f"{len(torn)} of {len(rows)} looked at are not, e.g. {torn[0]}" if torn else f"{len(rows)} looked at"
    yield CheckResult("pixels", "as ingested", told, "wrong" if torn else "ok")


def check_patients(store: Any) -> Iterator[CheckResult]:
    """A set without patients can be split by image only."""
    alone = int((store.column("patient").astype(str) == store.column("key").astype(str)).sum())
    n = len(set(store.column("patient").tolist()))
    told = f"{n} patients" if not alone else f"{alone} of {len(store)} images name none and count as a patient each"
    yield CheckResult("patients", "named", told, "warning" if alone else "ok")


def check_labels(task: Task, store: Any, recipe: Any) -> Iterator[CheckResult]:
    """Every label column: is it there, and are its values known?"""
    try:
        columns, said = load.read_label_columns(store, task)
    except InputError as wrong:
        yield CheckResult("label columns", ", ".join(task.labels), str(wrong), "wrong")
        return
    yield from (CheckResult("labels", "joined", line, "ok") for line in said)
    for column in columns:
        yield _check_label_column(task, column, recipe)


def _check_label_column(task: Task, column: labels.LabelColumn, recipe: Any) -> CheckResult:
    what, known = f"label {column.name}", np.isfinite(column.codes)
    share = f"{int(known.sum())} of {len(known)} known"
    if column.classes is not None:
        have = sorted({column.classes[int(c)] for c in column.codes[known]})
        wanted = sorted(recipe.classes) if recipe is not None and recipe.classes else have
        wrong = [f"not {name!r}" for name in wanted if name not in have] + [f"also {name!r}" for name in have if name not in wanted]
        return CheckResult(what, ", ".join(wanted), f"{share}; {', '.join(wrong)}" if wrong else share, "wrong" if wrong else "ok")
    if task.kind == "multiclass":
        return CheckResult(what, "classes", f"{share}: {', '.join(f'{v:g}' for v in np.unique(column.codes[known])[:10])}")
    mark = task.policy.mark
    allowed = {0.0, 1.0} if task.policy.uncertain is None else {0.0, 1.0, mark}
    odd = Counter(column.codes[known].tolist())
    told = [f"{odd[v]} x {v:g}" for v in sorted(odd) if v not in allowed]
    told += [f"{mark:g} means uncertain? choose with --uncertain"] if mark in odd and mark not in allowed else []
    expected = ", ".join(f"{v:g}" for v in sorted(allowed))
    # A binary task may be made of other numbers by --positive.
    return CheckResult(
        what, expected, f"{share}; {'; '.join(told)}" if told else share, "wrong" if told and task.positive is None else "ok"
    )


def check_official_lists(task: Task, store: Any) -> Iterator[CheckResult]:
    """Names of the official lists that have no image."""
    have = {name for key in store.column("key") for name in (str(key), labels.path_basename(str(key)))}
    for part, path in task.split.lists.items():
        names = load.read_official_list(path)
        lost = [name for name in names if name not in have]
        told = f"{len(lost)} of {len(names)} have none, e.g. {lost[0]}" if lost else f"all {len(names)} have one"
        yield CheckResult(f"{part} list", "an image for every name", told, "wrong" if lost else "ok")


def check_counts(part: np.ndarray, store: Any, recipe: Any) -> Iterator[CheckResult]:
    """Documented numbers of images; images outside every part."""
    documented = {} if recipe is None else recipe.counts.get(store.dataset.lower(), recipe.counts.get("*", {}))
    for name, expected in documented.items():
        n = int((part == name).sum())
        yield CheckResult(f"{name} images", f"{expected:,}", f"{n:,}", "ok" if n == expected else "wrong")
    odd = Counter(str(v) for v in part if v not in PARTS)
    if odd:
        told = "; ".join(f"{n} images {f'with {name!r}' if name else 'without one'}" for name, n in odd.most_common(5))
        yield CheckResult("official part", "train, val, test", told, "wrong" if [name for name in odd if name] else "warning")


def check_overlap(task: Task, part: np.ndarray, store: Any) -> Iterator[CheckResult]:
    """Patients, and images to the last pixel, that stand in two parts."""
    for what, column in (("patients in two parts", "patient"), ("identical images in two parts", "sha256")):
        where: dict[str, set[str]] = {}
        for name, p in zip(store.column(column), part, strict=True):
            where.setdefault(str(name), set()).update([str(p)] if p else [])
        both = [name for name, parts in where.items() if len(parts) > 1]
        excused = column == "patient" and task.split.patients_by_split
        told = f"{len(both)}" + (" (equal ids are said to be different people)" if both and excused else "")
        yield CheckResult(what, "none", told if both else "none", "ok" if not both else "warning" if excused else "wrong")


def check_benchable(task: Task) -> Iterator[CheckResult]:
    """Whether the bench could use the task, and which labels a part has one class of only."""
    try:
        loaded = load.load_task(task)
    except InputError as wrong:
        yield CheckResult("task", "can be benched", str(wrong), "wrong")
        return
    lacking = []
    for name in PARTS:
        y = loaded.y[loaded.split.rows(name)]
        columns = [y[np.isfinite(y[:, c]), c] > 0.5 for c in range(y.shape[1])]
        lacking += [f"{task.classes[c]} ({name})" for c, hits in enumerate(columns) if len(np.unique(hits)) < 2]
    yield CheckResult(
        "task", "can be benched", "yes, in " + ", ".join(f"{n['patients']} {p}" for p, n in loaded.counts().items()) + " patients"
    )
    if lacking:
        yield CheckResult("both classes in every part", "yes", f"not {', '.join(lacking[:6])}", "warning")
