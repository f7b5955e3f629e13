"""Recognises that records were scored on the official split of a data set with published results.

Everything is checked, nothing is assumed: the name of the data set in the store, that the task uses the stored split, the target columns,
the official number of images in the development and test parts, and that exactly the official test images were scored.
"""

from collections.abc import Sequence

import numpy as np

from encoders.runtime.errors import InputError
from transfer.records.record import Record
from transfer.records.record_ids import write_as_in
from transfer.report.published.sets import PublishedSet
from transfer.report.task_source import TaskSource, find_task_source
from transfer.tasks.load import open_task_store
from transfer.tasks.official_parts import read_split_column, read_split_texts
from transfer.tasks.task import read_task


def match_official_split(records: Sequence[Record], sets: Sequence[PublishedSet]) -> PublishedSet | str | None:
    """The data set whose official split these records (of one task) were scored on.

    A reason if the data set has published results but the task differs from its official split; None if no data set is recognised."""
    known = find_named_set(records[0].identity.task, sets)
    if known is None:
        return None
    if any(r.identity.selected_on is not None for r in records):
        return f"the encoders were trained on another data set than {known.title}"
    if any(r.identity.folds > 1 for r in records):
        return f"cross-validation does not use the official test part of {known.title}"
    source = find_task_source(records[0])
    if isinstance(source, str):
        return source
    return find_difference(known, source, records) or known


def find_named_set(task: str, sets: Sequence[PublishedSet]) -> PublishedSet | None:
    """The data set that the store of a registered task names; None if the task or its store is not available here."""
    try:
        name = open_task_store(read_task(task)).dataset.lower()
    except InputError:
        return None
    return next((known for known in sets if name in known.datasets), None)


def find_difference(known: PublishedSet, source: TaskSource, records: Sequence[Record]) -> str:
    """What differs between a task and the official one; "" if nothing does."""
    task, store = source.task, source.store
    if task.split.source is None:
        return f"the task splits {known.title} at random, not by its official split"
    if task.csv is not None:
        return f"the labels come from a CSV file, not from {known.title}"
    if sorted(map(normalize_label, task.classes)) != sorted(map(normalize_label, known.labels)):
        return f"the published task of {known.title} has other labels: {', '.join(known.labels)}"
    try:
        part = read_split_column(store, task.split)
        unmapped = read_split_texts(store, task.split)
    except InputError:
        return f"the official split of {known.title} cannot be read"
    assert part is not None
    assert unmapped is not None
    sizes = int(np.isin(part, ("train", "val")).sum()), int((part == "test").sum())
    if sizes != (known.development, known.test):
        return (
            f"the store has {sizes[0]:,} development and {sizes[1]:,} test images, "
            f"{known.title} officially has {known.development:,} and {known.test:,}"
        )
    renamed = {str(v).strip().lower() for v in unmapped[part == "test"]} - set(known.test_names)
    if renamed:
        return f"the test part of the task is {', '.join(sorted(renamed))} of the source, that of {known.title} is {known.test_names[0]}"
    for record in {r.identity.split: r for r in records}.values():
        official = set(write_as_in(record, store.column("key"))[part == "test"].tolist())
        scored = [str(key) for key in record.arrays["test_key"]]
        if set(scored) != official or len(scored) != known.test:
            return f"{len(scored):,} images were scored, not exactly the {known.test:,} official test images of {known.title}"
    return ""


def normalize_label(name: str) -> str:
    """A label without case, spaces and underscores: `Pleural_Thickening` equals `pleural thickening`."""
    return "".join(letter for letter in name.lower() if letter.isalnum())
