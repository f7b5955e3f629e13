"""Labels that an encoder was trained with, as its manifest states them: those of test images are a leak, others change what scores mean.

Shapes: N images of a task, P images of an encoder's manifest, L label columns of the manifest.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from encoders.runtime.arrays import Array
from transfer.leakage.check import Leak, digests_to_bytes, is_member
from transfer.tasks.options import PARTS
from transfer.tasks.split import Split

CONSEQUENCES_OF_OWN = (
    "which is a label of this task: it is not self-supervised, label fractions and few-shot results had more labels than they state, and "
    "what is chosen on validation images that it saw is optimistic"
)
CONSEQUENCES_OF_OTHER = "which is no label of this task: it is not self-supervised alone"


def list_label_columns(manifest: Mapping[str, Array]) -> list[str]:
    """The columns of labels that an encoder was trained with; [] for self-supervised pretraining."""
    return [str(name) for name in manifest.get("label_names", ())]


def find_seen_labels(manifest: Mapping[str, Array], sha256: Array) -> Array:
    """(N, L) whether each label of each image was trained on."""
    images, labeled = np.asarray(manifest["sha256"]), np.asarray(manifest["labeled"], dtype=bool)
    ours = digests_to_bytes(sha256)
    return np.stack([is_member(ours, images[labeled[:, column]]) for column in range(labeled.shape[1])], axis=1)


def find_label_leaks(name: str, manifest: Mapping[str, Array], rows: Array, key: Array, sha256: Array) -> list[Leak]:
    """One leak per label column of test images that encoder `name` was trained with.  rows: of the test part.  key, sha256: (N,)."""
    columns = list_label_columns(manifest)
    seen = find_seen_labels(manifest, sha256[rows]) if columns else np.zeros((len(rows), 0), dtype=bool)
    return [
        Leak(
            f"images whose label {column!r} was trained on",
            f"the pretraining of {name} and test",
            int(hit.sum()),
            tuple(map(str, key[rows][hit])),
        )
        for column, hit in zip(columns, seen.T, strict=True)
        if hit.any()
    ]


def describe_seen_labels(name: str, manifest: Mapping[str, Array], task_labels: Sequence[str], split: Split, sha256: Array) -> list[str]:
    """Sentences on the labels that encoder `name` was trained with, and how many images of each part they belong to; [] without labels.

    task_labels: the label columns of the task.  sha256: (N,)."""
    columns = list_label_columns(manifest)
    if not columns:
        return []
    seen = find_seen_labels(manifest, sha256)
    own = {label.casefold() for label in task_labels}
    lines = []
    for column, hit in zip(columns, seen.T, strict=True):
        counts = {part: (int(hit[rows].sum()), len(rows)) for part in PARTS for rows in [split.rows(part)]}
        parts = ", ".join(f"{n:,} of {of:,} {part} images" for part, (n, of) in counts.items() if n)
        total = int(np.asarray(manifest["labeled"], dtype=bool)[:, columns.index(column)].sum())
        line = f"{name} was trained with the label {column!r} of {total:,} images{f' ({parts})' if parts else ', none of this task'}"
        lines.append(f"{line}, {CONSEQUENCES_OF_OWN if column.casefold() in own else CONSEQUENCES_OF_OTHER}")
    return lines
