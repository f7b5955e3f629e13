"""What an ingest tells its user at the end: channels, bit depths, splits, patients and values that are unknown, and remarks on images.

Shapes: N rows.
"""

from collections.abc import Mapping

import numpy as np

from encoders.ingest.damage import DAMAGE_ACCEPTED
from encoders.ingest.quarantine import group_reasons
from encoders.ingest.shard_io import ShardRow
from encoders.runtime.arrays import Array
from encoders.runtime.local_notes import show_key
from encoders.runtime.unknown_values import count_unknown, describe_unknown, find_unknown, find_unknown_patients, is_unknown
from encoders.store.patient_ids import simplify_id
from encoders.store.write import NAME_COLUMNS, ColumnValues


def list_unknown_values(
    index: Mapping[str, ColumnValues], meta: Mapping[str, ColumnValues], labels: Mapping[str, ColumnValues]
) -> list[str]:
    """Lines about unknown values: how many a column has, and which texts were read as unknown; one line for all columns of meta."""
    groups = ({n: index[n] for n in NAME_COLUMNS if n in index}, labels, meta)
    notes: list[list[str]] = [[], [], []]
    for group, columns in enumerate(groups):
        for name, values in columns.items():
            unknown = find_unknown(values, names=group == 0)
            if unknown.any() and not (name == "patient" and all(v in (None, "") for v in values)):  # a source without patients says so
                alone = "; each of these images counts as a patient of its own" if name == "patient" else ""
                texts = describe_unknown(count_unknown(values, unknown))
                notes[group].append(f"column {name!r}: {texts} (of {len(values):,} images){alone}")
    return [*notes[0], *notes[1], *(["meta: " + "; ".join(notes[2])] if notes[2] else [])]


def list_ingest_notes(
    channels: int | None, dtype: np.dtype[np.generic], rows: list[ShardRow], index: Mapping[str, ColumnValues], people: Array
) -> list[str]:
    """What the user should know about the whole set.

    channels: of the source, None if they follow from the images.  people: (N,) patients, named by the key of the image if unknown."""
    notes = []
    gray = sum(row["shape"][2] == 1 for row in rows)
    if channels is None:
        all_gray = f"all {len(rows)} images are gray in every pixel: stored with 1 channel"
        mixed = f"{len(rows) - gray} of {len(rows)} images have colour: all are stored with 3 channels"
        notes.append(all_gray if gray == len(rows) else mixed)
    shallow = sum(row["dtype"] == "uint8" for row in rows)
    if dtype == np.uint16 and shallow:
        notes.append(
            f"{shallow} images have 8 bits and {len(rows) - shallow} have 16: all are stored with 16, with the same black and white"
        )
    splits: dict[str, set[str]] = {}
    for patient, split in zip(people.tolist(), index.get("split", []), strict=False):
        splits.setdefault(patient, set()).update([] if is_unknown(split) else [str(split)])
    both = sorted(patient for patient, names in splits.items() if len(names) > 1)
    if both:
        notes.append(f"warning: {len(both)} patients are in more than one split (first: {both[0]}); an evaluation on this split would leak")
    return notes + list_similar_patients(people[people != np.asarray(index["key"], dtype=str)])


def list_similar_patients(patients: Array) -> list[str]:
    """A warning about patients whose ids are nearly equal, such as 7 and 007; [] without any.  patients: (N,), the known ones."""
    alike: dict[str, list[str]] = {}
    for patient in np.unique(patients).tolist():
        alike.setdefault(simplify_id(patient), []).append(patient)
    several = [ids for ids in alike.values() if len(ids) > 1]
    if not several:
        return []
    examples = "; ".join(" ~ ".join(map(repr, ids[:3])) for ids in several[:3])
    return [
        f"warning: {len(several)} groups of patient ids are nearly equal, e.g. {examples}; they count as different patients: if they are "
        "the same, give them one id and ingest again"
    ]


def hide_zero_patients(index: dict[str, ColumnValues]) -> list[str]:
    """Removes patient ids that are placeholders only as zeros (see `find_unknown_patients`), and returns a note about them."""
    patients = index.get("patient", [])
    hidden = find_unknown_patients(patients) & ~find_unknown(patients, names=True)
    if not hidden.any():
        return []
    texts = describe_unknown(count_unknown(patients, hidden))
    index["patient"] = [None if hole else value for value, hole in zip(patients, hidden, strict=True)]
    return [f"column 'patient': {texts} (of {len(patients):,} images): a zero names no patient where no other patient is numbered"]


def count_remarks(rows: list[ShardRow]) -> list[str]:
    """A line for every kind of remark: how many images have it, and the first of them."""
    seen: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        for kind, detail in row.get("remarks", []):
            seen.setdefault(kind, []).append((str(row["index"]["key"]), detail))
    return [
        f"warning: {len(each):,} images: {kind}{describe_damages(each) if kind == DAMAGE_ACCEPTED else describe_first(each)}"
        for kind, each in sorted(seen.items())
    ]


def describe_first(each: list[tuple[str, str]]) -> str:
    """The first image of a remark.  each: key and detail."""
    key, detail = each[0]
    return f" (first: {show_key(key)}{': ' if detail else ''}{detail})"


def describe_damages(each: list[tuple[str, str]]) -> str:
    """How many images are damaged in which way, and the first of each.  each: key and the words of the decoder."""
    return ": " + "; ".join(f"{len(keys):,} {kind} (first: {show_key(keys[0])})" for kind, keys in group_reasons(each).items())
