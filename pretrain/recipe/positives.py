"""Images of the same patient, study or place: which image a second view shows, and which images are not negatives.

Source: Vu et al. 2021 (arXiv:2102.10663), MedAug.

Shapes: N rows of the store.
"""

import numpy as np

from encoders.loading import pairing
from encoders.loading.pairing import Partners
from encoders.runtime.arrays import Array, IntArray
from encoders.runtime.errors import InputError
from encoders.runtime.unknown_values import find_unknown
from encoders.store.store import Store

POSITIVE_KINDS = {  # value of data.positives: (column that it needs, what the second view shows)
    "study": ("study", "another image of its study"),
    "patient": ("patient", "another image of its patient"),
    "neighbour": ("slide", "an adjacent tile"),
}


def find_partners(kind: str, store: Store, rows: IntArray, views: int) -> Partners | None:
    """The partners of each row in use, of which the second view may be; None where both views are of the same image.

    kind: a value of data.positives.  rows: in use.  views: that the method takes of an image.
    Raises InputError when the store lacks a column, when no row has a partner, and for a method with one view."""
    if kind == "image":
        return None
    if views < 2:
        raise InputError(f"data.positives={kind}: this method takes one view of an image; use data.positives=image or another method")
    column, description = POSITIVE_KINDS[kind]
    for needed in ("slide", "x", "y") if kind == "neighbour" else (column,):
        if not store.has_column(needed):
            raise InputError(
                f"data.positives={kind}: {store.paths[0]} has no column {needed!r} (it has {', '.join(store.columns())}); "
                "ingest it with that column, or use data.positives=image"
            )
    groups = dataset_patient_names(store) if kind == "patient" else _names_within_patient(store, column)
    partners = (
        pairing.adjacent_tile_partners(groups, store.column("x"), store.column("y"), rows)
        if kind == "neighbour"
        else pairing.same_group_partners(groups, rows)
    )
    if not partners.paired_share:
        raise InputError(f"data.positives={kind}: no training image of {store.paths[0]} has {description}; use data.positives=image")
    return partners


def dataset_patient_names(store: Store) -> Array:
    """(N,) `dataset:patient` of each row: equal patient ids of two data sets are different patients."""
    return _join_names(store.datasets, store.column("patient"))


def patient_codes(store: Store) -> IntArray:
    """(N,) one integer per patient."""
    return np.unique(dataset_patient_names(store), return_inverse=True)[1].astype(np.int64)


def _names_within_patient(store: Store, column: str) -> Array:
    """(N,) `dataset:patient:value` of each row; "" where the value is unknown."""
    names = store.column(column).astype(str)
    return np.where(find_unknown(names, names=True), "", _join_names(dataset_patient_names(store), names))


def _join_names(outer: Array, inner: Array) -> Array:
    return np.array([f"{a}:{b}" for a, b in zip(outer, inner, strict=True)])


def describe_positives(kind: str, partners: Partners | None, excludes_same_patient: bool | None) -> list[str]:
    """Notes on how positives are chosen; [] for two views of the same image.

    excludes_same_patient: whether other images of a patient are masked out of the negatives; None for a method without negatives."""
    if partners is None:
        return []
    share = f"{100 * partners.paired_share:.0f} %"
    notes = [f"the second view shows {POSITIVE_KINDS[kind][1]} for {share} of the images and the same image for the rest"]
    if excludes_same_patient is False:
        notes.append("other images of a patient still count as negatives; method.exclude_same_patient=true masks them out")
    return notes
