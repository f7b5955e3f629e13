"""The images that an encoder is trained on, as hashes: the arrays of its manifest.

Shapes: P images.
"""

import numpy as np

from encoders.runtime.arrays import Array, IntArray
from encoders.similarity.turned_search import read_signs
from encoders.store.patient_ids import hash_patients, hash_simplified
from encoders.store.store import Store


def build_manifest(store: Store, rows: IntArray) -> dict[str, Array]:
    """The images `rows` (P,) as hashes: pseudonymised, not anonymous (whoever holds the images can recompute the hashes).

    `datasets` and `dataset_patients` are the data sets by name and their numbers of known patients: only patients of a data set of the
    same name can be compared.  `patient_near_hash` is equal for nearly equal ids, such as 7 and 007.  `phash_trimmed`, the hash without
    uniform borders, is missing if the store is of an earlier version."""
    pixels = [list(bytes.fromhex(str(h))) for h in store.column("sha256")[rows]]
    patients, of = store.column("patient")[rows], np.array([str(name) for name in store.datasets[rows]])
    hashes, near, counts = np.zeros((len(rows), 32), np.uint8), [np.zeros((0, 32), np.uint8)], []
    names = np.unique(of)
    for name in names:
        ids, first = np.unique(patients[of == name], return_inverse=True)
        hashes[of == name] = hash_patients(ids, str(name))[first]
        known = np.unique(patients[(of == name) & store.names_patient()[rows]])
        near.append(hash_simplified(known, str(name)))
        counts.append(len(known))
    return {
        "store_fingerprint": np.array([part.fingerprint for part in store.parts]),
        "sha256": np.array(pixels, dtype=np.uint8).reshape(-1, 32),
        "phash": np.asarray(store.column("phash")[rows], dtype=np.uint8),
        **({"phash_trimmed": read_signs(store)[rows, 2]} if store.has_column("phash_signs") else {}),
        "patient_hash": hashes,
        "patient_near_hash": np.unique(np.concatenate(near), axis=0),
        "datasets": names.astype(str),
        "dataset_patients": np.array(counts, dtype=np.int64),
    }
