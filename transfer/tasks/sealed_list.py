"""The list of a task's test images, which keeps their labels out of pretraining (encoders/store/sealed_images.py)."""

from pathlib import Path

import numpy as np

from encoders.store.patient_ids import hash_patients, list_same_names
from encoders.store.sealed_images import write_sealed_list
from transfer.tasks.load import LoadedTask


def write_test_list(loaded: LoadedTask) -> Path:
    """Writes hashes of the task's test images and of their patients, and returns the path.

    Patients are listed under every data set whose ids number the same people; with `patients_by_split` there are none, because an equal id
    in another part is another patient."""
    rows, store, task = loaded.split.rows("test"), loaded.store, loaded.task
    hashes = [np.zeros((0, 32), dtype=np.uint8)]
    if not task.split.patients_by_split:
        named = rows[store.names_patient()[rows]]
        patients, datasets = store.column("patient")[named], store.datasets[named]
        for dataset in np.unique(datasets).tolist():
            ids = np.unique(patients[datasets == dataset])
            hashes += [hash_patients(ids, name) for name in list_same_names(str(dataset), task.same_people)]
    return write_sealed_list(task.name, loaded.sha256[rows].tolist(), np.concatenate(hashes))
