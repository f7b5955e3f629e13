"""Checks a local copy of a data set against its task and recipe. One result per question; nothing is changed.

Shapes: N images of the store.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from encoders.doctor.report import HIGH_FLOOR
from encoders.ingest.dicom.hidden_names import HiddenNames
from encoders.ingest.quarantine import read_quarantine
from encoders.ingest.tables.file_finder import FileFinder
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.unknown_values import describe_unknown, is_unknown
from encoders.store.patient_ids import SameNames, simplify_id
from transfer.tasks import labels, load
from transfer.tasks.official_parts import match_list, read_official_list
from transfer.tasks.options import PARTS
from transfer.tasks.recipes import Recipe, load_recipe
from transfer.tasks.task import Task

if TYPE_CHECKING:
    from encoders.store.store import Store
    from transfer.tasks.load import LoadedTask

PIXEL_SAMPLE_SIZE = 1000  # images whose pixels are compared with their hash; checking a million would take minutes


@dataclass(frozen=True)
class CheckResult:
    """One question and its answer."""

    question: str
    expected: str
    found: str
    verdict: Literal["ok", "warning", "wrong"] = "ok"


def check_task(task: Task) -> list[CheckResult]:
    """The results of all checks, from the store's files to the usable task."""
    try:
        store = load.open_task_store(task)
        recipe = load_recipe(task.recipe) if task.recipe else None
    except InputError as error:
        return [CheckResult("store", "opens", str(error), "wrong")]
    results = [CheckResult("store", "opens", f"{len(store)} images, {store.modality}, data set {store.dataset}")]
    results += [*check_readable(store), *check_pixels(store), *check_patients(store, task.same_people)]
    try:
        part = load.read_split_column(store, task.split)
    except InputError as error:
        part = None
        results.append(CheckResult("official split", "can be read", str(error), "wrong"))
    results += check_labels(task, store, recipe)
    if part is not None:
        part = np.array(["" if is_unknown(v) else str(v) for v in part], dtype=object)
        results += [*check_official_lists(task, store), *check_counts(part, store, recipe), *check_overlap(task, part, store)]
    return [*results, *check_benchable(task)]


def check_readable(store: "Store") -> Iterator[CheckResult]:
    """Files that ingest could not read."""
    n = sum(len(read_quarantine(path)) for path in store.paths)
    yield CheckResult("unreadable files", "none", f"{n}, see {store.paths[0]}.quarantine.csv" if n else "none", "wrong" if n else "ok")


def check_pixels(store: "Store") -> Iterator[CheckResult]:
    """Whether a sample of the stored images still has the hashes of ingest. Images stored as JPEG are only decoded."""
    from encoders.similarity.perceptual_hash import pixel_sha256

    rows, known = np.unique(np.linspace(0, len(store) - 1, min(PIXEL_SAMPLE_SIZE, len(store))).astype(int)), store.column("sha256")
    damaged = []
    for i in rows:
        try:
            image, raw = store.image(int(i)), store.locate(int(i))[0].attrs["codec"] == "raw"
            same = not raw or pixel_sha256(image) == str(known[i])
        except (OSError, ValueError, InputError):
            same = False
        damaged += [] if same else [str(store.column("key")[i])]
    answer = f"{len(damaged)} of {len(rows)} checked images differ, e.g. {damaged[0]}" if damaged else f"{len(rows)} images checked"
    yield CheckResult("pixels", "as ingested", answer, "wrong" if damaged else "ok")


def check_patients(store: "Store", same_people: SameNames) -> Iterator[CheckResult]:
    """Whether images name their patients; images that do not can only be split by image."""
    alone = int((~store.names_patient()).sum())
    n = len(set(store.people(same_people).tolist()))
    texts = store.unknown_texts("patient")
    unknown = f" ({describe_unknown(texts)})" if sum(texts.values()) == alone else ""
    answer = f"{alone} of {len(store)} images name no patient; each counts as a patient of its own{unknown}" if alone else f"{n} patients"
    yield CheckResult("patients", "named", answer, "warning" if alone else "ok")


def check_labels(task: Task, store: "Store", recipe: Recipe | None) -> Iterator[CheckResult]:
    """Whether every label column exists and has the expected values."""
    try:
        columns, messages = load.read_label_columns(store, task)
    except InputError as error:
        yield CheckResult("label columns", ", ".join(task.labels), str(error), "wrong")
        return
    yield from (CheckResult("labels", "joined", message, "ok") for message in messages)
    for column in columns:
        yield _check_label_column(task, column, recipe)


def _check_label_column(task: Task, column: labels.LabelColumn, recipe: Recipe | None) -> CheckResult:
    question, known = f"label {column.name}", np.isfinite(column.codes)
    share = f"{int(known.sum())} of {len(known)} known"
    if column.classes is not None:
        have = sorted({column.classes[int(c)] for c in column.codes[known]})
        documented = sorted(recipe.classes) if recipe is not None and recipe.classes else have
        differing = [f"missing {name!r}" for name in documented if name not in have]
        differing += [f"unexpected {name!r}" for name in have if name not in documented]
        answer = f"{share}; {', '.join(differing)}" if differing else share
        return CheckResult(question, ", ".join(documented), answer, "wrong" if differing else "ok")
    if task.kind == "multiclass":
        return CheckResult(question, "classes", f"{share}: {', '.join(f'{v:g}' for v in np.unique(column.codes[known])[:10])}")
    mark = task.policy.mark
    allowed = {0.0, 1.0} if task.policy.uncertain is None else {0.0, 1.0, mark}
    counts = Counter(column.codes[known].tolist())
    problems = [f"{counts[v]} x {v:g}" for v in sorted(counts) if v not in allowed]
    problems += [f"if {mark:g} marks uncertain labels, choose a policy with --uncertain"] if mark in counts and mark not in allowed else []
    expected = ", ".join(f"{v:g}" for v in sorted(allowed))
    answer = f"{share}; {'; '.join(problems)}" if problems else share
    # With --positive, a binary task may use other numbers.
    return CheckResult(question, expected, answer, "wrong" if problems and task.positive is None else "ok")


def check_official_lists(task: Task, store: "Store") -> Iterator[CheckResult]:
    """Whether every name of the official lists has an image."""
    key = [str(k) for k in store.column("key")]
    finder, hidden = FileFinder(list(dict.fromkeys(key))), HiddenNames(store)
    for part, path in task.split.lists.items():
        names = read_official_list(path)
        _, lost = match_list(names, key, finder, hidden)
        answer = f"{len(lost)} of {len(names)} names have none, e.g. {lost[0]}" if lost else f"all {len(names)} names have one"
        yield CheckResult(f"{part} list", "an image for every name", answer, "wrong" if lost else "ok")


def check_counts(part: Array, store: "Store", recipe: Recipe | None) -> Iterator[CheckResult]:
    """Whether the parts have the documented numbers of images, and whether every image has a part."""
    documented = {} if recipe is None else recipe.counts.get(store.dataset.lower(), recipe.counts.get("*", {}))
    for name, expected in documented.items():
        n = int((part == name).sum())
        yield CheckResult(f"{name} images", f"{expected:,}", f"{n:,}", "ok" if n == expected else "wrong")
    others = Counter(str(v) for v in part if v not in PARTS)
    if others:
        answer = "; ".join(f"{n} images {f'with {name!r}' if name else 'without a part'}" for name, n in others.most_common(5))
        yield CheckResult("official part", "train, val, test", answer, "wrong" if [name for name in others if name] else "warning")


def check_overlap(task: Task, part: Array, store: "Store") -> Iterator[CheckResult]:
    """Whether patients or identical images are in two parts."""
    people = store.people(task.same_people)
    for question, names in (("patients in two parts", people), ("identical images in two parts", store.column("sha256"))):
        parts_of: dict[str, set[str]] = {}
        for name, p in zip(names.tolist(), part, strict=True):
            parts_of.setdefault(name, set()).update([str(p)] if p else [])
        both = [name for name, parts in parts_of.items() if len(parts) > 1]
        excused = names is people and task.split.patients_by_split
        answer = f"{len(both)}" + (" (--patients-by-split: equal ids are different patients)" if both and excused else "")
        yield CheckResult(question, "none", answer if both else "none", "ok" if not both else "warning" if excused else "wrong")
    similar: dict[str, dict[str, set[str]]] = {}  # simplified id -> id -> parts
    for name, p in set(zip(people[known := store.names_patient()].tolist(), part[known].tolist(), strict=True)):
        similar.setdefault(simplify_id(name), {}).setdefault(name, set()).update([str(p)] if p else [])
    apart = [ids for ids in similar.values() if len(ids) > 1 and len(set().union(*ids.values())) > 1]
    if apart and not task.split.patients_by_split:
        answer = f"{len(apart)} groups, e.g. {' ~ '.join(map(repr, sorted(apart[0])[:3]))}; if they are the same, ingest again with one id"
        yield CheckResult("patients with nearly equal ids in two parts", "none", answer, "warning")


def check_benchable(task: Task) -> Iterator[CheckResult]:
    """Whether the task can be benchmarked, and which labels have only one class in a part."""
    try:
        loaded = load.load_task(task)
    except InputError as error:
        yield CheckResult("task", "can be benchmarked", str(error), "wrong")
        return
    one_class = []
    for name in PARTS:
        y = loaded.y[loaded.split.rows(name)]
        columns = [y[np.isfinite(y[:, c]), c] > 0.5 for c in range(y.shape[1])]
        one_class += [f"{task.classes[c]} ({name})" for c, hits in enumerate(columns) if len(np.unique(hits)) < 2]
    patients = ", ".join(f"{n['patients']} {part}" for part, n in loaded.counts().items())
    yield CheckResult("task", "can be benchmarked", f"yes, with {patients} patients")
    if one_class:
        yield CheckResult("both classes in every part", "yes", f"not for {', '.join(one_class[:6])}", "warning")
    yield from check_floor(loaded)


def check_floor(loaded: "LoadedTask") -> Iterator[CheckResult]:
    """How well the targets are predicted from histogram and thumbnail alone, by cross-validation over train and validation patients.

    Test images are not used."""
    from encoders.doctor.floor import SAMPLE, can_measure_floor, measure_floor, read_pixel_features, spread_rows

    rows = spread_rows(np.concatenate([loaded.split.rows("train"), loaded.split.rows("val")]), SAMPLE)
    x, best = None, 0.0
    high: list[str] = []
    for c, name in enumerate(loaded.task.classes):
        known = np.isfinite(loaded.y[rows, c])
        values, people = loaded.y[rows[known], c] > 0.5, loaded.patient[rows[known]]
        if not can_measure_floor(values, people):
            continue
        x = read_pixel_features(loaded.store, rows) if x is None else x
        area = measure_floor(name, x[known], values, people)["auroc"]
        best, high = max(best, area), [*high, f"{name} {area:.2f}"] if area > HIGH_FLOOR else high
    if x is not None:
        answer = f"{', '.join(high[:6])}: the classes may differ in how images were acquired" if high else f"at most {best:.2f}"
        expected = f"AUROC at most {HIGH_FLOOR} from histogram and thumbnail"
        yield CheckResult("acquisition shortcut", expected, answer, "warning" if high else "ok")
