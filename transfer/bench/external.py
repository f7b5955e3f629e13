"""External validation: everything is chosen on task A, and task B is only tested.

The two tasks are joined into one with the train and validation parts of A and the test part of B, so that the leak check, the seal and the
protocols work on it as on any other task; train patients of A are checked against test images of B as well. The user maps every class of A
to classes of B: similar names need not be the same finding.

Shapes: N images of A, M of B, C classes that are scored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.store.patient_ids import SameNames, list_same_names
from encoders.store.store import Store
from transfer.bench.class_names import NO_CLASS, describe_classes, find_class_name, unknown_class_error
from transfer.records.record import ExternalSource
from transfer.tasks.load import LoadedTask, load_task
from transfer.tasks.split import Split, hash_parts
from transfer.tasks.task import Task, read_task


class JoinedStore(Store):
    """The images of A, then those of B. Its data set is that of B, whose test patients an encoder must not have seen."""

    def __init__(self, a: Store, b: Store):
        super().__init__([*a.parts, *b.parts])
        self._dataset, self._datasets_of_b = b.dataset, sorted(set(b.datasets.tolist()))

    @property
    def dataset(self) -> str:
        return self._dataset

    def people(self, same: SameNames = (), plain: str | None = None) -> Array:
        """As of any store; the ids of B stay as they are if its data sets number the same people, as they do in the task B alone."""
        one = len({list_same_names(name, same)[0] for name in self._datasets_of_b}) == 1
        return super().people(same, self._datasets_of_b[0] if plain is None and one else plain)


@dataclass(frozen=True)
class ExternalRequest:
    """The task that is tested, the map of classes, and whether its test part or all of its images are tested."""

    task: str
    class_pairs: Sequence[str]
    part: Literal["test", "all"] = "test"


@dataclass
class ExternalTask(LoadedTask):
    """The rows of A, then those of B. components: A and B, whose features are computed and cached separately."""

    components: tuple[LoadedTask, ...] = ()
    source: ExternalSource | None = None

    @property
    def groups(self) -> dict[str, Array]:
        """The group columns of B, whose images are tested; empty or NaN for the rows of A."""
        a, b = self.components
        return {name: np.concatenate([np.full(len(a.key), np.nan if v.dtype.kind in "fiu" else ""), v]) for name, v in b.groups.items()}

    def record_identity(self, portion_identity: Mapping[str, Any]) -> dict[str, Any]:
        """As of any task, with the store of B, the source A, and a partition that no other table shares."""
        assert self.source is not None
        partition = json_digest([portion_identity["partition"], self.source.model_dump()])
        store = self.components[1].store.fingerprint
        return {**portion_identity, "store": store, "partition": partition, "selected_on": self.source}


def parse_label_map(class_pairs: Sequence[str], a: Task, b: Task) -> dict[str, list[str]]:
    """Class of A -> classes of B, in the order of A; [] for a class that B lacks. The key "-" has the classes of B that A lacks.

    class_pairs: `class of A:class of B`, with `-` for none.  Raises InputError for a missing, repeated or unknown class."""
    label_map: dict[str, list[str]] = {}
    for text in class_pairs:
        left, right = _split_pair(text, a, b)
        label_map.setdefault(left, []).extend([] if right == NO_CLASS else [right])
    of_a, of_b = [c for c in label_map if c != NO_CLASS], [c for classes in label_map.values() for c in classes]
    missing = [f"{c!r} of {a.name}" for c in a.classes if c not in of_a] + [f"{c!r} of {b.name}" for c in b.classes if c not in of_b]
    if missing:
        raise InputError(
            f"--map has no entry for {', '.join(missing)}; name every class: --map 'CLASS OF {a.name}:CLASS OF {b.name}', "
            f"with `-` on the side that lacks it. Classes of {a.name}: {describe_classes(a)}; of {b.name}: {describe_classes(b)}"
        )
    twice = sorted({c for c in of_b if of_b.count(c) > 1})
    if twice:
        raise InputError(f"--map names {', '.join(map(repr, twice))} of {b.name} more than once; name every class of {b.name} once")
    if not any(label_map[c] for c in of_a):
        raise InputError(f"--map maps no class of {a.name} to a class of {b.name}, so there is nothing to score; map at least one")
    return {c: label_map[c] for c in [*a.classes, NO_CLASS] if c in label_map}


def _split_pair(text: str, a: Task, b: Task) -> tuple[str, str]:
    """The two classes of `A:B`; class names may contain colons."""
    candidates = [(text[:i].strip(), text[i + 1 :].strip()) for i, letter in enumerate(text) if letter == ":"]
    for left, right in candidates:
        own, other = find_class_name(left, a), find_class_name(right, b)
        if own and other and (own, other) != (NO_CLASS, NO_CLASS):
            return own, other
    if not candidates:
        raise InputError(
            f"--map {text!r} is not CLASS:CLASS; classes of {a.name}: {describe_classes(a)}; of {b.name}: {describe_classes(b)}"
        )
    left, right = candidates[0]
    if (left, right) == (NO_CLASS, NO_CLASS):
        raise InputError(f"--map {text!r} names no class; leave it out")
    raise unknown_class_error(right, b) if find_class_name(left, a) else unknown_class_error(left, a)


def join_external_task(tasks: Sequence[LoadedTask], request: ExternalRequest, folds: int, same_people: SameNames = ()) -> ExternalTask:
    """The task to select on, joined with the task to test. Raises InputError unless there is exactly one to select on."""
    if folds > 1:
        raise InputError("--folds divides one task, and an external task is tested once; remove --folds")
    if len(tasks) != 1 or tasks[0].task.name == request.task:
        given = ", ".join(t.task.name for t in tasks)
        raise InputError(f"--external {request.task} needs exactly one other task to select on, named with --task; given: {given}")
    return join_tasks(tasks[0], load_task(read_task(request.task)), request, same_people)


def join_tasks(a: LoadedTask, b: LoadedTask, request: ExternalRequest, same_people: SameNames = ()) -> ExternalTask:
    """The two tasks as one. same_people: groups of data sets whose equal patient ids are the same people.

    Raises InputError when their kinds, modalities or classes do not match."""
    single = {"multiclass"} & {a.task.kind, b.task.kind}
    if single and a.task.kind != b.task.kind:
        raise InputError(f"{a.task.name} is {a.task.kind} and {b.task.name} is {b.task.kind}; an external test needs two tasks of one kind")
    if request.part not in ("test", "all"):
        raise unknown_name_error("part of the external task", request.part, ["test", "all"])
    if a.store.modality != b.store.modality:
        raise InputError(
            f"{a.task.name} is {a.store.modality} and {b.task.name} is {b.store.modality}; an external test needs stores of one modality"
        )
    label_map = parse_label_map(request.class_pairs, a.task, b.task)
    classes, y = _join_targets(label_map, a, b, bool(single))
    test_split = b.split if request.part == "test" else make_all_test_split(b)
    part = np.concatenate([np.where(a.split.part == "test", "", a.split.part), np.where(test_split.part == "test", "test", "")])
    part[~np.isfinite(y).any(axis=1)] = ""
    task = b.task.model_copy(
        update={"kind": a.task.kind if len(classes) > 1 or single else "binary", "classes": classes, "order": a.task.order}
    )
    if task.kind == "binary" and len(classes) > 1:
        task = task.model_copy(update={"kind": "multilabel"})
    # Equal ids in one data set are the same patient in both tasks, even if the parts of B number patients separately.
    same = [[*group] for group in (*a.task.same_people, *b.task.same_people, *same_people)]
    task = task.model_copy(update={"split": task.split.model_copy(update={"patients_by_split": False}), "same_people": same})
    store = JoinedStore(a.store, b.store)
    patient = store.people(same).astype(object)
    key, sha256, image_group = (np.concatenate(both) for both in ((a.key, b.key), (a.sha256, b.sha256), (a.image_group, b.image_group)))
    messages = [f"(of {a.task.name}) {s}" for s in a.messages] + list(b.messages)
    messages.append(f"chosen on {a.task.name}, tested on {int((part == 'test').sum())} images of {b.task.name}")
    source = ExternalSource(task=a.task.name, store=a.store.fingerprint, labels=a.labels_hash, split=a.split.hash, label_map=label_map)
    # All uses of the test part of B are counted together, whatever was selected on, so the split keeps the hash of B.
    split = Split(part.astype(object), test_split.hash, [])
    return ExternalTask(task, store, y, key, patient, sha256, image_group, split, messages, (a, b), source)


def _join_targets(label_map: Mapping[str, list[str]], a: LoadedTask, b: LoadedTask, single: bool) -> tuple[list[str], Array]:
    """Names and (N + M, C) targets. A label that B lacks is not trained on; a class that B lacks stays and is 0 in B."""
    classes = [c for c in a.task.classes if single or label_map[c]]
    y_a = a.y[:, [a.task.classes.index(c) for c in classes]]
    y_b = np.full((len(b.y), len(classes)), 0.0, dtype=np.float32)
    for column, c in enumerate(classes):
        y_b[:, column] = merge_labels(b.y[:, [b.task.classes.index(other) for other in label_map[c]]])
    if single:  # images of a class that A lacks cannot be classified correctly
        y_b[(np.isnan(b.y).any(axis=1)) | (y_b.sum(axis=1) == 0)] = np.nan
    return classes, np.concatenate([y_a, y_b]).astype(np.float32)


def merge_labels(y: Array) -> FloatArray:
    """(M,) 1 where any column is 1, 0 where all are 0, otherwise NaN; 0 without columns."""
    any_one = (np.nan_to_num(y) > 0.5).any(axis=1)
    return np.where(any_one, 1.0, np.where(np.isnan(y).any(axis=1), np.nan, 0.0))


def make_all_test_split(b: LoadedTask) -> Split:
    """All labeled images of B as its test part."""
    part = np.where(b.split.part != "", "test", "").astype(object)
    return replace(b.split, part=part, hash=hash_parts(b.key, part))
