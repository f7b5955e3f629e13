"""The registered task and store behind a record, checked against it: a record itself holds hashes, but no name of a data set."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from encoders.runtime.errors import InputError
from transfer.records.record import Record
from transfer.records.record_ids import write_as_in
from transfer.tasks.labels import Targets
from transfer.tasks.load import open_task_store, read_targets
from transfer.tasks.task import Task, read_task

if TYPE_CHECKING:
    from encoders.store.store import Store


class TaskSource(NamedTuple):
    """The task as registered, its store, and the targets of all images of the store."""

    task: Task
    store: "Store"
    targets: Targets


def find_task_source(record: Record) -> TaskSource | str:
    """The task and store that the record was computed from; the reason, without any path, if they are not available here.

    The store must have the record's fingerprint, and the labels of the scored test images must equal those of the record."""
    name = record.identity.task
    try:
        task = read_task(name)
    except InputError:
        return f"task {name} is not registered in this working folder"
    try:
        store = open_task_store(task)
        if store.fingerprint != record.identity.store:
            return f"the store of task {name} has other images than the records"
        targets = read_targets(store, task)
    except InputError:
        return f"the store or the labels of task {name} cannot be read"
    if targets.classes != record.meta.classes:
        return f"task {name} now has other classes than the records"
    position = {key: i for i, key in enumerate(write_as_in(record, store.column("key")).tolist())}
    rows = [position.get(str(key), -1) for key in record.arrays["test_key"]]
    if min(rows, default=-1) < 0:
        return f"the records of task {name} do not score single images of its store"
    if not np.array_equal(targets.y[rows], record.arrays["test_y"], equal_nan=True):
        return f"task {name} now has other labels than the records"
    return TaskSource(task, store, targets)
