"""Label columns, read by name from a store or from a CSV file, as one target array.

Shapes: N images, C columns of the target (1 for a binary task, classes, or labels).
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from encoders.ingest.label_table import guess_separator
from encoders.runtime.errors import InputError, unknown_name_error

MISSING_VALUES = {"", "nan", "na", "none", "null", "n/a"}
NON_LABEL_COLUMNS = {"key", "patient", "sha256", "phash", "source", "study", "slide", "x", "y"}
MAX_CLASSES = 100  # a numeric column with more values is a measurement, not a class


@dataclass
class LabelColumn:
    """One label column: codes (N,), NaN = unknown, and what the codes mean if they came from text.

    absent: (N,) images that the source has no row for; None: it has one for all."""

    name: str
    codes: np.ndarray
    classes: list[str] | None = None
    absent: np.ndarray | None = None


@dataclass
class Targets:
    """The target of a task for every image of its store. y: (N, C) in {0, 1}, NaN = unknown.

    soft: (N, C) targets in [0, 1] of labels that only train rows may use, NaN elsewhere; None: there are none."""

    y: np.ndarray
    kind: str
    classes: list[str]
    said: list[str] = field(default_factory=list)
    soft: np.ndarray | None = None


def encode_column(name: str, texts: Sequence[Any]) -> LabelColumn:
    """Text or numbers as codes; classes are sorted, so that their order does not depend on the rows'."""
    known = [str(t).strip() for t in texts]
    holes = np.array([t.lower() in MISSING_VALUES for t in known], dtype=bool)
    codes = np.full(len(known), np.nan, dtype=np.float32)
    try:
        codes[~holes] = [float(t) for t, hole in zip(known, holes, strict=True) if not hole]
        return LabelColumn(name, codes)
    except ValueError:
        classes = sorted({t for t, hole in zip(known, holes, strict=True) if not hole})
        codes[~holes] = [classes.index(t) for t, hole in zip(known, holes, strict=True) if not hole]
        return LabelColumn(name, codes, classes)


def read_store_labels(store: Any, names: Sequence[str]) -> list[LabelColumn]:
    """Label columns of a store; a /meta or /index column (sex, view) serves as well."""
    columns, labels = [], list(store.label_names())
    for name in names:
        if name in labels:
            absent = np.concatenate([np.full(len(part), name not in part.groups.get("labels", ())) for part in store.parts])
            columns.append(LabelColumn(name, np.asarray(store.labels(name), dtype=np.float32), store.classes(name), absent))
        elif store.has(name):
            columns.append(encode_column(name, store.column(name)))
        elif not labels:
            raise InputError(
                f"{store.paths[0]} was ingested without labels, so it has no {name!r}; bring them with --labels FILE.csv, ingest again "
                f"with --labels and --label-column, or name one of its other columns: {', '.join(list_other_columns(store)) or 'none'}"
            )
        else:
            raise unknown_name_error(
                "label column", name, [*labels, *list_other_columns(store)], f"(the store has labels {', '.join(labels)})"
            )
    return columns


def list_other_columns(store: Any) -> list[str]:
    """Columns besides labels that can be one: not those that tell images apart or say where they are."""
    return [name for name in store.columns() if name not in NON_LABEL_COLUMNS]


def read_csv_labels(path: str | Path, store: Any, names: Sequence[str], on: str | None = None) -> tuple[list[LabelColumn], list[str]]:
    """Label columns of a CSV file, joined to the store by name, and what is to be said about the join.

    on: the column that names the image; by default `key` or `file`."""
    rows, header = _read_csv(path)
    if on is not None and on not in header:
        raise unknown_name_error(f"column of {path}", on, header, "(it is to name the images)")
    on = on or next((c for c in ("key", "file") if c in header), None)
    if on is None:
        raise InputError(
            f"{path} has no column `key` or `file` to join on; name the one with the images by --file-column; "
            f"its columns: {', '.join(header)}"
        )
    for name in names:
        if name not in header:
            raise unknown_name_error(f"column of {path}", name, header)
    at = _match_rows(path, on, [r[on] for r in rows], store)  # row of the table for each image, -1 = none
    columns = []
    for name in names:
        column = encode_column(name, [r[name] for r in rows])
        column.codes = np.where(at >= 0, column.codes[at], np.float32(np.nan))
        column.absent = at < 0
        columns.append(column)
    images, lines = int((at < 0).sum()), len(rows) - len(set(at[at >= 0].tolist()))
    said = [f"{Path(path).name}: {len(rows) - lines} of {len(rows)} rows matched an image on `{on}`"]
    said += [f"{lines} rows of {Path(path).name} match no image of the store"] if lines else []
    said += [f"{images} images have no row in {Path(path).name} and are left out"] if images else []
    return columns, said


def _read_csv(path: str | Path) -> tuple[list[dict[str, str]], list[str]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            head = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=guess_separator(head))
            rows = list(reader)
    except (OSError, UnicodeDecodeError) as wrong:
        raise InputError(f"cannot read the labels {path}: {getattr(wrong, 'strerror', None) or wrong}") from wrong
    if not rows:
        raise InputError(f"{path} has no rows; expected a header and one row an image")
    short = [i for i, r in enumerate(rows, 2) if None in r.values() or None in r]
    if short:
        raise InputError(f"{path}: line {short[0]} has another number of fields than the header ({len(short)} such lines)")
    return rows, list(reader.fieldnames or [])


def _match_rows(path: str | Path, on: str, values: list[str], store: Any) -> np.ndarray:
    """For each image the row of the table, -1 = none; a column other than `key` may name the key, its last part, or the source file."""
    where = {v: i for i, v in enumerate(values)}
    if len(where) < len(values):
        twice = sorted({v for v in values if values.count(v) > 1})[:3] if len(values) < 5000 else []
        raise InputError(f"{path}: {len(values) - len(where)} rows repeat a value of `{on}` {twice or ''}; one row an image is expected")
    best = np.full(len(store), -1)
    for name in ("key", "source") if on != "key" else ("key",):
        if store.has(name):
            texts = [str(v) for v in store.column(name)]
            at = np.array([where.get(v, -1) for v in texts])
            best = at if (at >= 0).sum() > (best >= 0).sum() else best
            if on != "key" and len({path_basename(v) for v in texts}) == len(texts):
                at = np.array([where.get(path_basename(v), -1) for v in texts])
                best = at if (at >= 0).sum() > (best >= 0).sum() else best
    if not (best >= 0).any():
        have = ", ".join(map(repr, list(store.column("key"))[:2]))
        raise InputError(f"no row of {path} matches an image: its `{on}` is like {values[0]!r}, the keys of the store are like {have}")
    return best


def path_basename(name: str) -> str:
    """The last part of a path."""
    return name.rsplit("/", 1)[-1]


def split_findings(column: LabelColumn, names: Sequence[str], separator: str) -> list[LabelColumn]:
    """A column of findings in one text (`Effusion|Mass`) as a column of 0 and 1 for each name; an empty text is unknown.

    Raises InputError for a name that is nowhere among the findings."""
    texts = column.classes or []
    held = [{part.strip() for part in text.split(separator)} for text in texts]
    every = set().union(*held)
    for name in names:
        if name not in every:
            raise unknown_name_error(f"finding of {column.name!r}", name, every)
    known = np.isfinite(column.codes)
    made = []
    for name in names:
        has = np.array([name in parts for parts in held], dtype=np.float32)
        codes = np.full(len(column.codes), np.nan, dtype=np.float32)
        codes[known] = has[column.codes[known].astype(int)]
        made.append(LabelColumn(name, codes, None, column.absent))
    return made


def keep_classes(column: LabelColumn, keep: Sequence[str]) -> LabelColumn:
    """A text column in which every class that is not to be kept is unknown, so that its images are left out."""
    have = column.classes or []
    for name in keep:
        if name not in have:
            raise unknown_name_error(f"class of {column.name!r}", name, have)
    kept = np.isin(column.codes, [have.index(name) for name in keep])
    return LabelColumn(column.name, np.where(kept, column.codes, np.float32(np.nan)), column.classes, column.absent)


def build_targets(columns: Sequence[LabelColumn], kind: str | None = None, positive: str | None = None) -> Targets:
    """The columns as one target; `kind` is inferred when it is not given, and what was inferred is said.

    Raises InputError when a column does not fit the kind."""
    inferred = kind is None
    if len(columns) > 1 and kind not in (None, "multilabel"):
        raise InputError(f"{len(columns)} label columns make a multilabel task; give one --label for a {kind} task")
    for column in columns:
        if not np.isfinite(column.codes).any():
            raise InputError(f"label column {column.name!r} holds no known value")
    if kind is None:
        kind = "multilabel" if len(columns) > 1 else _infer_kind(columns[0], positive)
    if kind == "multiclass":
        result = _one_hot(columns[0])
    else:
        parts = [_binarize(c, positive) for c in columns]
        y = np.stack([p[0] for p in parts], axis=1)  # (N, C)
        result = Targets(y, kind, [p[1] for p in parts])
    result.said += [f"kind {kind}" + (" (inferred)" if inferred else "") + f": {', '.join(result.classes)}"]
    return result


def _index_classes(column: LabelColumn) -> tuple[list[str], np.ndarray]:
    """Names of the classes that occur, and for each image the index among them (NaN = unknown)."""
    known = np.isfinite(column.codes)
    found = np.unique(column.codes[known])
    if column.classes is None and ((found != np.round(found)).any() or len(found) > MAX_CLASSES):
        raise InputError(
            f"label column {column.name!r} holds {len(found)} numbers from {found[0]:g} to {found[-1]:g}: a measurement, not classes; "
            "make classes of it first"
        )
    names = [column.classes[int(v)] if column.classes else f"{v:g}" for v in found]
    index = np.full(len(column.codes), np.nan, dtype=np.float32)
    index[known] = np.searchsorted(found, column.codes[known])
    return names, index


def _infer_kind(column: LabelColumn, positive: str | None) -> str:
    return "binary" if positive is not None or len(_index_classes(column)[0]) <= 2 else "multiclass"


def _one_hot(column: LabelColumn) -> Targets:
    names, index = _index_classes(column)
    if len(names) < 2:
        raise InputError(f"label column {column.name!r} holds only {names}; a task needs two classes")
    y = (index[:, None] == np.arange(len(names))).astype(np.float32)  # (N, C)
    y[~np.isfinite(index)] = np.nan
    return Targets(y, "multiclass", names)


def _binarize(column: LabelColumn, positive: str | None) -> tuple[np.ndarray, str]:
    """The column as 0/1 and its name; `positive` names the class that is 1, by default the last of two."""
    names, index = _index_classes(column)
    if column.classes is None and set(names) <= {"0", "1"} and positive in (None, "1"):
        return column.codes.copy(), column.name
    if positive is None and len(names) != 2:
        raise InputError(f"label column {column.name!r} holds {len(names)} classes ({', '.join(names[:8])}); name the one with --positive")
    chosen = names[-1] if positive is None else positive
    if chosen not in names:
        raise unknown_name_error(f"class of {column.name!r}", chosen, names)
    y = np.where(np.isfinite(index), index == names.index(chosen), np.float32(np.nan)).astype(np.float32)
    return y, f"{column.name}={chosen}"
