"""Counts of patients, and the minimum number of them for a verdict."""

from weakref import ref

import numpy as np

from encoders.runtime.arrays import Array, IntArray

MIN_PATIENTS = 20  # per class; with fewer, the coverage of the intervals is not guaranteed (tests/transfer/stats/test_coverage.py)
_coded_arrays: dict[int, tuple["ref[Array]", Array, IntArray]] = {}  # by id of an array that cannot be written to, as those of records


def name_patients(patient: Array) -> tuple[Array, IntArray]:
    """(G,) sorted names of the patients, and the code of each row's patient (N,) from 0. Both can be shared and must not be changed."""
    values = np.asarray(patient)
    known = _coded_arrays.get(id(values))
    if known is not None and known[0]() is values:
        return known[1:]
    names, code = np.unique(values.astype(str), return_inverse=True)
    code = code.reshape(-1)
    if not values.flags.writeable and values.flags.owndata:
        _remember(values, names, code)
    return names, code


def _remember(values: Array, names: Array, code: IntArray) -> None:
    number = id(values)

    def forget(_: object) -> None:
        _coded_arrays.pop(number, None)

    names.flags.writeable = code.flags.writeable = False
    _coded_arrays[number] = ref(values, forget), names, code


def encode_patients(patient: Array) -> tuple[IntArray, int]:
    """(N,) patients as integer codes from 0, and the number of patients."""
    names, code = name_patients(patient)
    return code, len(names)


def patients_per_class(y: Array, patient: Array) -> IntArray:
    """(C, 2) number of patients with a negative and with a positive row, for every label."""
    y = to_columns(y)
    code, n = encode_patients(patient)
    return np.array([[count_codes(code[y[:, c] == value], n) for value in (0, 1)] for c in range(y.shape[1])])


def count_codes(code: IntArray, n: int) -> int:
    """The number of different patients. code: patients as integers below n; counting them is faster than sorting."""
    return int(np.count_nonzero(np.bincount(code, minlength=n)))


def count_fewest_patients(y: Array, patient: Array) -> int | None:
    """The smallest number of patients in a class, over the labels with both classes; None when no label has both."""
    counts = patients_per_class(y, patient)
    defined = counts[(counts > 0).all(axis=1)]
    return int(defined.min()) if len(defined) else None


def few_patients_note(y: Array, patient: Array) -> str:
    """The warning for fewer than MIN_PATIENTS patients in a class, or ""."""
    few = count_fewest_patients(y, patient)
    if few is None:
        return "no label has patients of both classes"
    return f"insufficient patients: {few} in the smaller class, at least {MIN_PATIENTS} are needed" if few < MIN_PATIENTS else ""


def to_columns(a: Array) -> Array:
    """(N, C); (N,) becomes (N, 1)."""
    a = np.asarray(a)
    return a[:, None] if a.ndim == 1 else a
