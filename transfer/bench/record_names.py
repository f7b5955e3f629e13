"""The images and patients of a record that exists, compared with those of the store, and named as this process names them."""

from dataclasses import replace

import numpy as np

from transfer.bench.cell import Cell
from transfer.records.record import Record
from transfer.records.record_ids import describe_own_ids, hide_names, hide_record_ids, write_as_in
from transfer.tasks.options import Part


def has_same_patients(cell: Cell, known: Record) -> bool:
    """Whether the validation and test images (or slides) of a record still belong to the patients that the store names now.

    Pixels, labels and split can stay equal when patient ids change (an official split, ingested again with the patient column), and every
    interval is computed by patient."""
    parts: tuple[Part, ...] = ("val", "test") if known.meta.status == "ok" else ()
    for part in parts:
        slides, rows = cell.slides(part), cell.split.rows(part)
        now = (slides.key, slides.patient) if slides is not None else (cell.loaded.key[rows], cell.loaded.patient[rows])
        current = dict(zip(*(write_as_in(known, column).tolist() for column in now), strict=True))
        key, patient = (known.arrays[f"{part}_{name}"].astype(str).tolist() for name in ("key", "patient"))
        if any(current.get(k, p) != p for k, p in zip(key, patient, strict=True)):
            return False
    return True


def name_ids_again(known: Record, current: Cell) -> Record:
    """The record with the pseudonyms of this process; those of another kind, and names, are found by the store's names."""
    if known.meta.ids == "names":
        return hide_record_ids(known)
    arrays = dict(known.arrays)
    parts: tuple[Part, ...] = ("val", "test")
    for part in parts:
        slides, rows = current.slides(part), current.split.rows(part)
        names = {"key": current.loaded.key[rows], "patient": current.loaded.patient[rows]}
        if slides is not None:
            names = {"key": slides.key, "patient": slides.patient}
        for column, values in names.items():
            again = dict(zip(write_as_in(known, values).tolist(), hide_names(values).tolist(), strict=True))
            arrays[f"{part}_{column}"] = np.array([again.get(str(v), str(v)) for v in known.arrays[f"{part}_{column}"].tolist()])
    return replace(known, meta=known.meta.model_copy(update=describe_own_ids()), arrays=arrays)
