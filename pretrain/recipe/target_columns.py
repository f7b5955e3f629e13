"""Columns of a store as targets of a supervised loss: a label, or metadata such as view, sex, age, stain or organ.

Text is classes, and so are 0 and 1 (with -1 for uncertain, which counts as unknown). Other numbers are either classes or a measurement,
and the recipe has to say which. Columns that identify an image, its patient or its place are no targets.

Shapes: N rows of the store.
"""

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from encoders.ingest.dicom.header import PSEUDONYM_COLUMNS
from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.unknown_values import find_unknown
from encoders.store.store import Store

TargetKind: TypeAlias = Literal["classes", "number"]

IDENTIFYING_COLUMNS = {"key", "patient", "sha256", "phash", "phash_signs", "source", "study", "slide", "volume", "x", "y", "split"}
IDENTIFYING_COLUMNS |= {*PSEUDONYM_COLUMNS.values()}
UNCERTAIN = -1.0  # beside 0 and 1, as in CheXpert
MAX_TARGET_CLASSES = 1000  # a column with more is an identifier or a measurement
BINARY = frozenset((0.0, 1.0))
METADATA_WORDS = {"view", "projection", "position", "sex", "gender", "age", "stain", "organ", "site", "hospital", "scanner", "device"}


@dataclass(frozen=True)
class TargetColumn:
    """values: (N,) codes of `names`, or numbers; NaN = unknown.  names: of the codes; None for a measurement.  uncertain: (N,).

    is_metadata: whether it describes how an image was taken, or of whom, rather than what it shows."""

    column: str
    values: Array
    names: tuple[str, ...] | None
    uncertain: BoolArray
    is_metadata: bool = False
    is_text: bool = False


def list_target_columns(store: Store) -> list[str]:
    """The columns that can be targets: labels first, then metadata."""
    labels = list(store.label_names())
    return labels + [name for name in store.columns() if name not in IDENTIFYING_COLUMNS and name not in labels]


def read_target_column(store: Store, column: str, kind: TargetKind | None, setting: str) -> TargetColumn:
    """The column as a target.  kind: None: classes for text and for 0 and 1.  setting: that names the column, for messages.

    Raises InputError for a column that does not exist or identifies images, and for numbers of which it is not clear what they are."""
    known = list_target_columns(store)
    if column in store.label_names():
        raw, names = np.asarray(store.labels(column), dtype=np.float64), store.classes(column)
    elif column in known:
        raw, names = encode_values(store.column(column))
    else:
        raise describe_no_target(store, column, known, setting)
    raw = np.where(np.isfinite(raw), raw, np.nan)
    is_metadata = store.has_column(column) or bool({*re.split(r"[^a-z]+", column.lower())} & METADATA_WORDS)
    if names is not None:
        raw, names = merge_case(raw, names)
        if kind == "number":
            raise InputError(f"{setting}={column}: the column holds text ({', '.join(names[:3])}), not numbers; set kind=classes")
        if len(names) > MAX_TARGET_CLASSES:
            raise InputError(f"{setting}={column}: the column holds {len(names):,} different texts, such as {names[0]!r}, and no classes")
        return TargetColumn(column, raw, tuple(names), np.zeros(len(raw), dtype=bool), is_metadata, is_text=True)
    seen = np.unique(raw[np.isfinite(raw)])
    uncertain = raw == UNCERTAIN
    if uncertain.any() and {*seen.tolist()} <= {UNCERTAIN, *BINARY}:
        raw, seen = np.where(uncertain, np.nan, raw), seen[seen != UNCERTAIN]
    else:
        uncertain = np.zeros(len(raw), dtype=bool)
    if kind == "number":
        return TargetColumn(column, raw, None, uncertain, is_metadata)
    if kind is None and not {*seen.tolist()} <= BINARY:
        raise InputError(
            f"{setting}={column}: the column holds {len(seen):,} different numbers from {seen[0]:g} to {seen[-1]:g}; set kind=number for a "
            "measurement or kind=classes for classes"
        )
    if len(seen) > MAX_TARGET_CLASSES or (seen != np.round(seen)).any():
        raise InputError(
            f"{setting}={column}: the column holds {len(seen):,} different numbers from {seen[0]:g} to {seen[-1]:g}, which are no classes; "
            "set kind=number"
        )
    codes = np.full(len(raw), np.nan)
    codes[np.isfinite(raw)] = np.searchsorted(seen, raw[np.isfinite(raw)])
    return TargetColumn(column, codes, tuple(f"{value:g}" for value in seen), uncertain, is_metadata)


def merge_case(codes: Array, names: list[str]) -> tuple[Array, list[str]]:
    """Codes (N,) and names in which texts that differ only in case (`AP`, `ap`) are one class, by the most frequent spelling."""
    counts = np.bincount(codes[np.isfinite(codes)].astype(np.int64), minlength=len(names))
    chosen: dict[str, int] = {}
    for i, name in enumerate(names):
        best = chosen.get(name.casefold())
        chosen[name.casefold()] = i if best is None or counts[i] > counts[best] else best
    merged = sorted(names[i] for i in chosen.values())
    table = np.array([merged.index(names[chosen[name.casefold()]]) for name in names], dtype=np.float64)
    out = np.full(len(codes), np.nan)
    out[np.isfinite(codes)] = table[codes[np.isfinite(codes)].astype(np.int64)]
    return out, merged


def encode_values(values: Array) -> tuple[Array, list[str] | None]:
    """(N,) numbers, NaN = unknown; or codes of the sorted texts, and these texts."""
    if values.dtype.kind in "fiub":
        return values.astype(np.float64), None
    unknown = find_unknown(values)
    texts = np.array([str(v).strip() for v in values.tolist()])
    codes = np.full(len(texts), np.nan)
    try:
        codes[~unknown] = texts[~unknown].astype(np.float64)
        return codes, None
    except ValueError:
        names = sorted(set(texts[~unknown].tolist()))
        codes[~unknown] = np.searchsorted(np.array(names), texts[~unknown])
        return codes, names


def describe_no_target(store: Store, column: str, known: list[str], setting: str) -> InputError:
    """The error for a column that is no target, which names those that are."""
    listed = f"its columns that can be predicted: {', '.join(known)}" if known else "it has no label and no metadata; ingest it with them"
    if store.has_column(column):
        return InputError(f"{setting}={column}: this column of {store.paths[0].name} identifies images and is no label; {listed}")
    return unknown_name_error("column", column, known, f"({setting}; the store is {store.paths[0].name}; {listed})")
