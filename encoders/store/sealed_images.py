"""The test images of registered tasks, as hashes in `tasks/NAME.test.npz`: pretraining with labels leaves the labels of these images out.

A task writes its list when it is added (transfer/tasks/sealed_list.py). The list holds hashes of images and of patients, and no name.

Shapes: N images of a store, M test images and K test patients of a task.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.runtime.paths import tasks_dir
from encoders.store.patient_ids import hash_patients
from encoders.store.store import Store

LIST_SUFFIX = ".test.npz"


def sealed_list_path(task: str) -> Path:
    """The file with the test images of a task."""
    return tasks_dir() / f"{task}{LIST_SUFFIX}"


def write_sealed_list(task: str, sha256: Sequence[str], patient_hash: Array) -> Path:
    """Writes the list of a task and returns its path.  sha256: of its M test images, hex.  patient_hash: (K, 32), see `hash_patients`."""
    images = np.array([list(bytes.fromhex(str(digest))) for digest in sha256], dtype=np.uint8).reshape(-1, 32)
    path = sealed_list_path(task)
    with atomic_write(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, sha256=images, patient_hash=patient_hash)
    return path


def list_sealed_tasks() -> tuple[list[str], list[str]]:
    """The registered tasks with a list, and those without one, which an earlier version added; both sorted."""
    names = sorted(path.stem for path in tasks_dir().glob("*.yaml"))
    known = [name for name in names if sealed_list_path(name).is_file()]
    return known, sorted({*names} - {*known})


def find_sealed_images(task: str, store: Store) -> BoolArray:
    """(N,) whether each image of the store is a test image of the task, or of one of its test patients.

    Raises InputError if the task has no list or it cannot be read."""
    path = sealed_list_path(task)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            images, patients = arrays["sha256"], arrays["patient_hash"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"cannot read {path}, the test images of task {task!r} ({error}); write it again: transfer tasks keys {task} --out FILE"
        ) from error
    digests = np.array([list(bytes.fromhex(str(h))) for h in store.column("sha256")], dtype=np.uint8).reshape(-1, 32)
    return rows_among(digests, images) | (store.names_patient() & rows_among(hash_store_patients(store), patients))


def hash_store_patients(store: Store) -> Array:
    """(N, 32) hash of the patient of each image."""
    patients, datasets = store.column("patient"), store.datasets
    hashes = np.zeros((len(store), 32), dtype=np.uint8)
    for name in np.unique(datasets).tolist():
        ids, first = np.unique(patients[datasets == name], return_inverse=True)
        hashes[datasets == name] = hash_patients(ids, str(name))[first]
    return hashes


def rows_among(ours: Array, theirs: Array) -> BoolArray:
    """(N,) whether each row of `ours` (N, 32) is a row of `theirs` (M, 32)."""
    known = {row.tobytes() for row in np.ascontiguousarray(theirs)}
    return np.array([row.tobytes() in known for row in np.ascontiguousarray(ours)], dtype=bool)
