"""Label columns, read by name from a store or a table (`csv_labels.py`), as one target array.

Shapes: N images, C target columns (1 for a binary task, one per class or per label otherwise).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from encoders.ingest.dicom.header import PSEUDONYM_COLUMNS
from encoders.ingest.tables.combine import AGREEMENT_SUFFIX
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.unknown_values import count_unknown, describe_unknown, find_unknown
from transfer.tasks.options import TaskKind

if TYPE_CHECKING:
    from encoders.store.store import Store

NON_LABEL_COLUMNS = {"key", "patient", "sha256", "phash", "phash_signs", "source", "study", "slide", "volume", "x", "y"}
NON_LABEL_COLUMNS |= {*PSEUDONYM_COLUMNS.values()}
MAX_CLASSES = 100  # a numeric column with more values is a measurement, not a class


@dataclass
class LabelColumn:
    """One label column: codes (N,), NaN = unknown.

    classes: the text of each code, for a text column.  without_row: (N,) images without a row in the source; None: all have one.
    unknown_texts: the texts that mean unknown -> how many images have them; {} where the source does not state them.
    agreement: (N,) share of the votes of rows or readers for the value, NaN = unknown; None where the source does not state it."""

    name: str
    codes: Array
    classes: list[str] | None = None
    without_row: Array | None = None
    unknown_texts: dict[str, int] = field(default_factory=dict)
    agreement: Array | None = None


@dataclass
class Targets:
    """The targets of a task for every image of its store. y: (N, C) in {0, 1}, NaN = unknown.

    messages: sentences for the user about how the labels were read.
    soft_targets: (N, C) in [0, 1], NaN elsewhere: targets of uncertain labels, for train rows only; None: there are none.
    agreement: label column -> (N,) share of readers or rows that gave its value, NaN = unknown; of columns that state it."""

    y: Array
    kind: TaskKind
    classes: list[str]
    messages: list[str] = field(default_factory=list)
    soft_targets: Array | None = None
    agreement: dict[str, Array] = field(default_factory=dict)


def encode_column(name: str, values: Sequence[object] | Array) -> LabelColumn:
    """Text or numbers as codes; classes are sorted, so that their order does not depend on the order of rows."""
    unknown = find_unknown(values)
    texts = [str(v).strip() for v, hole in zip(values, unknown, strict=True) if not hole]
    codes, counts = np.full(len(unknown), np.nan, dtype=np.float32), count_unknown(values, unknown)
    try:
        codes[~unknown] = [float(t) for t in texts]
        return LabelColumn(name, codes, unknown_texts=counts)
    except ValueError:
        code = {text: i for i, text in enumerate(sorted(set(texts)))}
        codes[~unknown] = [code[t] for t in texts]
        return LabelColumn(name, codes, list(code), unknown_texts=counts)


def read_store_labels(store: "Store", names: Sequence[str]) -> list[LabelColumn]:
    """Label columns of a store; a /meta or /index column (e.g. sex, view) can also be one."""
    columns, labels = [], list(store.label_names())
    for name in names:
        if name in labels:
            without_row = np.concatenate([np.full(len(part), name not in part.groups.get("labels", ())) for part in store.parts])
            codes = np.asarray(store.labels(name), dtype=np.float32)
            texts, agreement = store.unknown_texts(name, ("labels",)), read_agreement(store, name)
            columns.append(LabelColumn(name, codes, store.classes(name), without_row, texts, agreement))
        elif store.has_column(name):
            column = encode_column(name, store.column(name))
            column.unknown_texts = store.unknown_texts(name) or column.unknown_texts
            columns.append(column)
        elif not labels:
            raise InputError(
                f"{store.paths[0]} was ingested without labels, so it has no label {name!r}; give a CSV file with --labels FILE.csv, "
                "ingest the store again with --labels and --label-column, or name one of its other columns: "
                f"{', '.join(list_other_columns(store)) or 'none'}"
            )
        else:
            raise unknown_name_error(
                "label column", name, [*labels, *list_other_columns(store)], f"(the store has labels {', '.join(labels)})"
            )
    return columns


def read_agreement(store: "Store", name: str) -> Array | None:
    """(N,) the share of readers or rows that gave the label, as `ingest --combine majority` stores it; None if it does not."""
    column = name + AGREEMENT_SUFFIX
    values = np.asarray(store.column(column)) if store.has_column(column) else np.zeros(0)
    return values.astype(np.float64) if len(values) and values.dtype.kind in "fiu" else None


def list_other_columns(store: "Store") -> list[str]:
    """Columns besides the labels that can serve as one: all but identifiers and positions."""
    return [name for name in store.columns() if name not in NON_LABEL_COLUMNS]


def describe_read_error(error: OSError | UnicodeDecodeError) -> str:
    """Why a file could not be read, without its path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def path_basename(name: str) -> str:
    """The last component of a path."""
    return name.rsplit("/", 1)[-1]


def keep_classes(column: LabelColumn, keep: Sequence[str]) -> LabelColumn:
    """The text column with every other class set to unknown, so that its images are excluded."""
    have = column.classes or []
    kept = np.isin(column.codes, [have.index(find_class(name, have, column.name)) for name in keep])
    return replace(column, codes=np.where(kept, column.codes, np.float32(np.nan)))


def find_class(name: str, classes: Sequence[str], column: str) -> str:
    """The class of this name, whatever its case. Raises InputError naming the nearest ones."""
    found = name if name in classes else next((text for text in classes if text.casefold() == name.casefold()), None)
    if found is None:
        raise unknown_name_error(f"class of {column!r}", name, classes)
    return found


def merge_spellings(column: LabelColumn) -> tuple[LabelColumn, list[str]]:
    """The text column with one class for names that differ only in case, by the most frequent spelling; and a sentence about them.

    Parts of a data set often differ in it: the folder `tumor` of the training slides, the text `Tumor` in the table of the test slides."""
    groups: dict[str, list[str]] = {}
    for name in column.classes or ():
        groups.setdefault(name.casefold(), []).append(name)
    several = [names for names in groups.values() if len(names) > 1]
    if not several:
        return column, []
    assert column.classes is not None
    counts = {name: int((column.codes == code).sum()) for code, name in enumerate(column.classes)}
    chosen = {name: max(names, key=lambda text: counts[text]) for names in groups.values() for name in names}
    classes = sorted({*chosen.values()})
    codes = np.full(len(column.codes), np.nan, dtype=np.float32)
    for code, name in enumerate(column.classes):
        codes[column.codes == code] = classes.index(chosen[name])
    told = "; ".join(f"{' and '.join(f'{name!r} ({counts[name]:,})' for name in names)} as {chosen[names[0]]!r}" for names in several)
    return replace(column, codes=codes, classes=classes), [f"classes of {column.name!r} that differ only in case are one: {told}"]


def build_targets(columns: Sequence[LabelColumn], kind: TaskKind | None = None, positive: str | None = None) -> Targets:
    """The columns as one target array; `kind` is inferred if it is None, and a message says so.

    Raises InputError when a column does not fit the kind."""
    inferred = kind is None
    if len(columns) > 1 and kind not in (None, "multilabel"):
        raise InputError(f"{len(columns)} label columns form a multilabel task; give one --label for a {kind} task")
    for column in columns:
        if not np.isfinite(column.codes).any():
            texts = f" ({describe_unknown(column.unknown_texts)})" if column.unknown_texts else ""
            raise InputError(f"label column {column.name!r} has no known value{texts}; choose another one with --label")
    if kind is None:
        kind = "multilabel" if len(columns) > 1 else _infer_kind(columns[0], positive)
    if kind == "multiclass":
        result = _one_hot(columns[0])
    else:
        parts = [_binarize(c, positive) for c in columns]
        y = np.stack([p[0] for p in parts], axis=1)  # (N, C)
        result = Targets(y, kind, [p[1] for p in parts])
    result.messages += [f"kind {kind}" + (" (inferred)" if inferred else "") + f": {', '.join(result.classes)}"]
    return result


def _index_classes(column: LabelColumn) -> tuple[list[str], Array]:
    """Names of the classes that occur, and (N,) the index of each image among them, NaN = unknown."""
    known = np.isfinite(column.codes)
    values = np.unique(column.codes[known])
    if column.classes is None and ((values != np.round(values)).any() or len(values) > MAX_CLASSES):
        raise InputError(
            f"label column {column.name!r} holds {len(values)} different numbers from {values[0]:g} to {values[-1]:g}: a measurement, not "
            "classes; convert it to classes first"
        )
    names = [column.classes[int(v)] if column.classes else f"{v:g}" for v in values]
    index = np.full(len(column.codes), np.nan, dtype=np.float32)
    index[known] = np.searchsorted(values, column.codes[known])
    return names, index


def _infer_kind(column: LabelColumn, positive: str | None) -> TaskKind:
    return "binary" if positive is not None or len(_index_classes(column)[0]) <= 2 else "multiclass"


def _one_hot(column: LabelColumn) -> Targets:
    names, index = _index_classes(column)
    if len(names) < 2:
        raise InputError(f"label column {column.name!r} has only the class {names}; a task needs at least two")
    y = (index[:, None] == np.arange(len(names))).astype(np.float32)  # (N, C)
    y[~np.isfinite(index)] = np.nan
    return Targets(y, "multiclass", names)


def _binarize(column: LabelColumn, positive: str | None) -> tuple[Array, str]:
    """The column as 0/1 (NaN = unknown) and its name; `positive` is the class that becomes 1, by default the last of two."""
    names, index = _index_classes(column)
    if column.classes is None and set(names) <= {"0", "1"} and positive in (None, "1"):
        return column.codes.copy(), column.name
    if positive is None and len(names) != 2:
        raise InputError(
            f"label column {column.name!r} has {len(names)} classes ({', '.join(names[:8])}); name the positive one with --positive"
        )
    chosen = names[-1] if positive is None else find_class(positive, names, column.name)
    y = np.where(np.isfinite(index), index == names.index(chosen), np.float32(np.nan)).astype(np.float32)
    return y, f"{column.name}={chosen}"
