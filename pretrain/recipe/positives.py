"""Images that belong together: what a second view may be of, and what is not to be a negative.

Source: Vu et al. 2021 (arXiv:2102.10663), MedAug.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.loading import pairing
from encoders.loading.pairing import Partners
from encoders.runtime.errors import InputError
from encoders.store.store import Store

POSITIVE_KINDS = {
    "study": ("study", "another image of its study"),
    "patient": ("patient", "another image of its patient"),
    "neighbour": ("slide", "a tile that touches it"),
}


def find_partners(kind: str, store: Store, rows: NDArray[np.int64], views: int) -> Partners | None:
    """Who may stand in for whom in the second view, among the rows in use; None where a view is of the same image.

    Raises InputError when the store does not say it, when nobody has a partner, and for a method with one view."""
    if kind == "image":
        return None
    if views < 2:
        raise InputError(f"data.positives={kind}: this method looks at one view of an image; leave it at image, or choose another method")
    column, told = POSITIVE_KINDS[kind]
    for needed in ("slide", "x", "y") if kind == "neighbour" else (column,):
        if not store.has(needed):
            raise InputError(
                f"data.positives={kind}: {store.paths[0]} has no column {needed!r} (it has {', '.join(store.columns())}); "
                "ingest it with that column, or use data.positives=image"
            )
    groups = dataset_patient_names(store) if kind == "patient" else _names_within_patient(store, column)
    made = (
        pairing.adjacent_tile_partners(groups, store.column("x"), store.column("y"), rows)
        if kind == "neighbour"
        else pairing.same_group_partners(groups, rows)
    )
    if not made.share:
        raise InputError(f"data.positives={kind}: no image of {store.paths[0]} that is trained on has {told}; use data.positives=image")
    return made


def dataset_patient_names(store: Store) -> NDArray[Any]:
    """(N,) data set and patient of each row: two data sets' patients are different people."""
    return _join_names(
        np.repeat([part.attrs["dataset"] for part in store.parts], [len(part) for part in store.parts]), store.column("patient")
    )


def patient_codes(store: Store) -> NDArray[np.int64]:
    """(N,) a number for each person."""
    return np.unique(dataset_patient_names(store), return_inverse=True)[1].astype(np.int64)


def _names_within_patient(store: Store, column: str) -> NDArray[Any]:
    names = store.column(column).astype(str)
    return np.where(names == "", "", _join_names(dataset_patient_names(store), names))


def _join_names(outer: NDArray[Any], inner: NDArray[Any]) -> NDArray[Any]:
    return np.array([f"{a}:{b}" for a, b in zip(outer, inner, strict=True)])


def describe_positives(kind: str, made: Partners | None, excluded: bool | None) -> list[str]:
    """What acts, in sentences.  excluded: whether other images of a patient are spared as negatives; None for a method without any."""
    said = []
    if made is not None:
        said.append(
            f"the second view is of {POSITIVE_KINDS[kind][1]} for {100 * made.share:.0f} % of the images, of the image itself for the rest"
        )
        if excluded is False:
            said.append("and yet other images of a patient count as negatives: method.exclude_same_patient=true spares them")
    return said
