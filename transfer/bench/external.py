"""External validation: everything is chosen on task A, task B is only tested.

Two tasks become one whose train and validation parts are A's and whose test part is B's, so that the gate, the seal and the protocols work
on it as on any other; A's train patients are held against B's test images too. Which class of A is which of B is said by the user, class by
class: names that look alike are not the same finding.

Shapes: N images of A, M of B, C classes that are scored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.store.store import Store
from transfer.records.record import ExternalSource
from transfer.tasks.load import LoadedTask
from transfer.tasks.split import Split, hash_parts
from transfer.tasks.task import Task

NO_CLASS = "-"


class JoinedStore(Store):
    """The images of A, then those of B. Its data set is B's: whose test patients an encoder may have seen."""

    def __init__(self, a: Store, b: Store):
        super().__init__([*a.parts, *b.parts])
        self._dataset = b.dataset

    @property
    def dataset(self) -> str:
        return self._dataset


@dataclass(frozen=True)
class ExternalRequest:
    """Which task is tested, how classes correspond, and whether on its test part or on all of its images."""

    task: str
    pairs: Sequence[str]
    part: str = "test"


@dataclass
class ExternalTask(LoadedTask):
    """A's rows, then B's. pieces: the tasks as they are, whose features are computed and cached apart."""

    pieces: tuple[LoadedTask, ...] = ()
    source: ExternalSource | None = None

    @property
    def groups(self) -> dict[str, np.ndarray]:
        """B's, whose images are tested; empty for A's rows."""
        n, theirs = len(self.pieces[0].key), self.pieces[1].groups
        return {name: np.concatenate([np.full(n, np.nan if v.dtype.kind in "fiu" else ""), v]) for name, v in theirs.items()}


def parse_label_map(pairs: Sequence[str], a: Task, b: Task) -> dict[str, list[str]]:
    """Class of A -> classes of B, in A's order; no class: B does not have it. The key "-" holds what of B is left out.

    pairs: `class of A:class of B`, either side `-` for none.  Raises InputError for a class that is not named, named twice, or unknown."""
    found: dict[str, list[str]] = {}
    for text in pairs:
        left, right = _split_pair(text, a, b)
        found.setdefault(left, []).extend([] if right == NO_CLASS else [right])
    mine, theirs = [c for c in found if c != NO_CLASS], [c for named in found.values() for c in named]
    missing = [f"{c!r} of {a.name}" for c in a.classes if c not in mine] + [f"{c!r} of {b.name}" for c in b.classes if c not in theirs]
    if missing:
        raise InputError(
            f"--map says nothing of {', '.join(missing)}; name every class: --map 'CLASS OF {a.name}:CLASS OF {b.name}', "
            "or `-` on the side that lacks it"
        )
    twice = sorted({c for c in theirs if theirs.count(c) > 1})
    if twice:
        raise InputError(f"--map names {', '.join(map(repr, twice))} of {b.name} more than once")
    if not any(found[c] for c in mine):
        raise InputError(f"--map leaves no class of {a.name} that {b.name} has; there would be nothing to score")
    return {c: found[c] for c in [*a.classes, NO_CLASS] if c in found}


def _split_pair(text: str, a: Task, b: Task) -> tuple[str, str]:
    """The two classes of `A:B`; either may hold colons itself."""
    known = [*a.classes, NO_CLASS], [*b.classes, NO_CLASS]
    cuts = [(text[:i], text[i + 1 :]) for i, letter in enumerate(text) if letter == ":"]
    fit = [cut for cut in cuts if cut[0] in known[0] and cut[1] in known[1] and cut != (NO_CLASS, NO_CLASS)]
    if fit:
        return fit[0]
    if not cuts:
        raise InputError(
            f"--map {text!r} is not CLASS:CLASS; classes of {a.name}: {', '.join(a.classes)}; of {b.name}: {', '.join(b.classes)}"
        )
    left, right = cuts[0]
    raise (
        unknown_name_error(f"class of {a.name}", left, known[0])
        if left not in known[0]
        else unknown_name_error(f"class of {b.name}", right, known[1])
    )


def join_tasks(a: LoadedTask, b: LoadedTask, ask: ExternalRequest) -> ExternalTask:
    """The two tasks as one. Raises InputError when their kinds, modalities or classes do not go together."""
    single = {"multiclass"} & {a.task.kind, b.task.kind}
    if single and a.task.kind != b.task.kind:
        raise InputError(f"{a.task.name} is {a.task.kind} and {b.task.name} is {b.task.kind}; neither can stand for the other")
    if ask.part not in ("test", "all"):
        raise unknown_name_error("part of the external task", ask.part, ["test", "all"])
    if a.store.modality != b.store.modality:
        raise InputError(
            f"{a.task.name} is {a.store.modality}, {b.task.name} is {b.store.modality}: an external test is of the same kind of image"
        )
    pairs = parse_label_map(ask.pairs, a.task, b.task)
    classes, y = _join_targets(pairs, a, b, bool(single))
    tested = b.split if ask.part == "test" else make_all_test_split(b)
    part = np.concatenate([np.where(a.split.part == "test", "", a.split.part), np.where(tested.part == "test", "test", "")])
    part[~np.isfinite(y).any(axis=1)] = ""
    task = b.task.model_copy(update={"kind": a.task.kind if len(classes) > 1 or single else "binary", "classes": classes})
    if task.kind == "binary" and len(classes) > 1:
        task = task.model_copy(update={"kind": "multilabel"})
    # Equal ids of one data set are one person between the tasks, whatever holds between B's own parts.
    task = task.model_copy(update={"split": task.split.model_copy(update={"patients_by_split": False})})
    patient = np.concatenate(_join_patients(a, b))
    columns = {name: np.concatenate([getattr(a, name), getattr(b, name)]) for name in ("key", "sha256", "picture")}
    said = [f"(of {a.task.name}) {s}" for s in a.said] + list(b.said)
    said.append(f"chosen on {a.task.name}, tested on {int((part == 'test').sum())} images of {b.task.name}")
    source = ExternalSource(task=a.task.name, store=a.store.fingerprint, labels=a.labels_hash, split=a.split.hash, label_map=pairs)
    # Looks at B's test part are counted together, whoever was trained where; so the split keeps B's hash.
    split = Split(part.astype(object), tested.hash, [])
    names = columns["key"], patient, columns["sha256"], columns["picture"]
    return ExternalTask(task, JoinedStore(a.store, b.store), y, *names, split, said, (a, b), source)


def _join_targets(pairs: Mapping[str, list[str]], a: LoadedTask, b: LoadedTask, single: bool) -> tuple[list[str], np.ndarray]:
    """Names and (N + M, C) target. A label that B lacks is not trained on either; a class that B lacks stays, and is empty there."""
    classes = [c for c in a.task.classes if single or pairs[c]]
    mine = a.y[:, [a.task.classes.index(c) for c in classes]]
    theirs = np.full((len(b.y), len(classes)), 0.0, dtype=np.float32)
    for column, c in enumerate(classes):
        theirs[:, column] = merge_labels(b.y[:, [b.task.classes.index(other) for other in pairs[c]]])
    if single:  # images of a class that A does not know cannot be right
        theirs[(np.isnan(b.y).any(axis=1)) | (theirs.sum(axis=1) == 0)] = np.nan
    return classes, np.concatenate([mine, theirs]).astype(np.float32)


def merge_labels(y: np.ndarray) -> np.ndarray:
    """(M,) 1 where any column is, 0 where all are, else unknown; 0 of no column."""
    any_one = (np.nan_to_num(y) > 0.5).any(axis=1)
    return np.where(any_one, 1.0, np.where(np.isnan(y).any(axis=1), np.nan, 0.0))


def _join_patients(a: LoadedTask, b: LoadedTask) -> list[np.ndarray]:
    """A's patients and B's; those of another data set are other people, even if their numbers are alike."""
    theirs = set(b.store.datasets.tolist())
    plain = theirs if len(theirs) == 1 else set()  # the data set whose patients keep their names
    told = lambda of: [str(p) if d in plain else f"{d}:{p}" for d, p in zip(of.store.datasets.tolist(), of.patient, strict=True)]  # noqa: E731
    return [np.array(told(of), dtype=object) for of in (a, b)]


def make_all_test_split(b: LoadedTask) -> Split:
    """All labeled images of B as its test part."""
    part = np.where(b.split.part != "", "test", "").astype(object)
    return replace(b.split, part=part, hash=hash_parts(b.key, part))


def list_component_tasks(loaded: LoadedTask) -> tuple[LoadedTask, ...]:
    """The tasks that a task is made of; of an ordinary one itself."""
    return loaded.pieces if isinstance(loaded, ExternalTask) else (loaded,)


def build_identity(loaded: LoadedTask, plain: Mapping[str, Any]) -> dict[str, Any]:
    """What of a task and a portion goes into a record: of an external one the tested store, and a partition that no other table shares."""
    if not isinstance(loaded, ExternalTask) or loaded.source is None:
        return {"store": loaded.store.fingerprint, **plain}
    apart = {"partition": json_digest([plain["partition"], loaded.source.model_dump()]), "selected_on": loaded.source}
    return {"store": loaded.pieces[1].store.fingerprint, **plain, **apart}
