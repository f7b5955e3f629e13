"""Identity of patients: how ids are normalised, hashed for manifests, and kept apart between data sets.

Ids are compared in Unicode NFC without spaces around them. Ids that are equal only after further changes (`7`, `007` and `7.0`; `P7` and
`p7`) may be the same patient or not, so they are never merged; their common `simplify_id` lets the leakage check report them.

Shapes: N images, P patients.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.unknown_values import find_unknown

MAX_EXACT_INTEGER = 2.0**53  # floats above it do not represent every integer
NEAR_MARK = "nearly equal"  # keeps hashes of simplified ids apart from those of ids
SameNames = Sequence[Sequence[str]]  # groups of data sets that number the same people


def normalise_id(text: object) -> str:
    """The id of a patient, or the name of a data set, as it is compared and hashed: Unicode NFC, without spaces around it."""
    return unicodedata.normalize("NFC", str(text)).strip()


def simplify_id(text: object) -> str:
    """What nearly equal ids have in common: `7`, `007` and `7.0` give `7`; `P7`, `p7` and `P-007` give `p7`.

    Letters lose case and accents, full-width forms become ordinary ones, numbers lose leading zeros and `.0`, separators are unified."""
    letters = (c for c in unicodedata.normalize("NFKD", str(text)) if not unicodedata.combining(c))
    plain = " ".join("".join(letters).casefold().split())
    if re.fullmatch(r"\d+(\.\d*)?(e\+?\d{1,2})?", plain) and (number := float(plain)).is_integer() and number < MAX_EXACT_INTEGER:
        return str(int(number))
    plain = re.sub(r"[\s_\-]+", "-", plain).strip("-")
    plain = re.sub(r"(?<=[^\W\d_])-(?=\d)", "", plain)  # p-7 is p7
    return re.sub(r"(?<!\d)0+(?=\d)", "", plain)


def name_patients(patients: Iterable[object], keys: Iterable[object]) -> Array:
    """(N,) normalised patient ids; an image whose patient is unknown counts as a patient of its own, named by its key."""
    raw, own = list(patients), [str(k) for k in keys]
    unknown = find_unknown(raw, names=True)
    pairs = zip(raw, own, unknown, strict=True)
    return np.array([key if hole or str(p) == key else normalise_id(p) for p, key, hole in pairs], dtype=str)


def list_same_names(name: str, same: SameNames) -> list[str]:
    """The data sets that number the same people as `name`, sorted, itself included.

    same: groups of names; groups that share a name are one group."""
    found = {normalise_id(name)}
    groups = [{normalise_id(n) for n in group} for group in same]
    while wider := [group for group in groups if group & found and not group <= found]:
        found.update(*wider)
    return sorted(found)


def separate_people(patients: Array, datasets: Array, same: SameNames = (), plain: str | None = None) -> Array:
    """(N,) one name per person: equal ids of two data sets are two people, unless `same` says that these number the same people.

    patients, datasets: (N,).  A name is the id, preceded by its data set (the first of those that number the same people) when there are
    several.  plain: the data set whose ids stay as they are; None: the only one, if there is only one."""
    heads = {str(d): list_same_names(str(d), same)[0] for d in np.unique(datasets).tolist()}
    bare = list_same_names(plain, same)[0] if plain is not None else next(iter(heads.values())) if len({*heads.values()}) == 1 else None
    if {*heads.values()} <= {bare}:
        return patients
    pairs = zip(patients.tolist(), datasets.tolist(), strict=True)
    return np.array([str(p) if heads[str(d)] == bare else f"{heads[str(d)]}:{p}" for p, d in pairs], dtype=str)


def hash_patients(patients: Iterable[object], dataset: str) -> Array:
    """(P, 32) SHA-256 of `dataset:patient`, as in manifests: pseudonymised, not anonymous."""
    name = normalise_id(dataset)
    return _digests(f"{name}:{normalise_id(p)}" for p in patients)


def hash_simplified(patients: Iterable[object], dataset: str) -> Array:
    """(P, 32) hashes that are equal for nearly equal ids of one data set."""
    name = normalise_id(dataset)
    return _digests(f"{NEAR_MARK}:{name}:{simplify_id(p)}" for p in patients)


def _digests(texts: Iterable[str]) -> Array:
    return np.array([list(hashlib.sha256(t.encode()).digest()) for t in texts], dtype=np.uint8).reshape(-1, 32)
