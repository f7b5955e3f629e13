"""Which images' labels a run may use, and the values that it gets.

The labels of test images are never used: of rows that the column `split` of the store gives to a test part, and of the test images and
test patients of every registered task (encoders/store/sealed_images.py). These images count as unlabeled.

Shapes: N rows of the store, P rows of the corpus.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from encoders.runtime.arrays import Array, BoolArray, FloatArray, IntArray
from encoders.runtime.errors import InputError
from encoders.store.sealed_images import find_sealed_images
from encoders.store.store import Store
from pretrain.loop.corpus import read_wanted_keys
from pretrain.recipe.target_columns import TargetColumn

LabelRole: TypeAlias = Literal["auxiliary", "positives"]

# Words in a value of the column `split` that name a test part, or may name one: rather a label too few than one of a test image.
TEST_STEM = re.compile(r"test|tst|holdout|heldout|eval")
TEST_TOKENS = {"te", "ts"}
NUMBERED_PARTS = {0.0, 1.0, 2.0}  # train, val, test


@dataclass(frozen=True)
class UsedLabel:
    """A column of labels in a run. values: (N,) class indices or standardised numbers; NaN where no label is used.

    names: of the classes; None for a number, with its `mean` and `std`.  share: of labeled images among those drawn.
    counts: what became of the labels of the corpus; adds up to its number of images."""

    name: str
    role: LabelRole
    weight: float
    column: str
    values: Array
    names: tuple[str, ...] | None
    share: float
    mean: float = 0.0
    std: float = 1.0
    is_metadata: bool = False
    counts: Mapping[str, int] = field(default_factory=dict)


def exclude_test_images(store: Store, tasks: Sequence[str], label_keys: str | None) -> dict[str, BoolArray]:
    """Reason -> (N,) images whose labels are not used.  tasks: whose test images are left out.  label_keys: a file of keys."""
    reasons: dict[str, BoolArray] = {}
    if store.has_column("split"):
        splits = np.array([str(value).strip() for value in store.column("split").tolist()])
        reasons |= {f"in the split {value!r}": splits == value for value in find_test_splits(set(splits.tolist()))}
    reasons |= {f"of the test part of task {task!r} or its patients": find_sealed_images(task, store) for task in tasks}
    if label_keys is not None:
        reasons["not in data.label_keys"] = ~np.isin(store.column("key"), read_wanted_keys(label_keys, store, "data.label_keys"))
    return reasons


def find_test_splits(values: set[str]) -> list[str]:
    """The values of a column `split` that name a test part, or may name one, sorted."""
    try:
        numbers = {value: float(value) for value in values}
    except ValueError:
        numbers = {}
    if numbers and {*numbers.values()} == NUMBERED_PARTS:
        return sorted(value for value, number in numbers.items() if number == max(NUMBERED_PARTS))
    return sorted(value for value in values if names_test_part(value))


def names_test_part(value: str) -> bool:
    """Whether a text such as `Test_set`, `hold-out` or `te` names a test part."""
    words = re.findall(r"[^\W\d_]+", value.casefold())
    return bool(TEST_STEM.search("".join(words)) or TEST_TOKENS & {*words})


def use_label(
    name: str,
    role: LabelRole,
    weight: float,
    read: TargetColumn,
    rows: IntArray,
    drawn: FloatArray,
    reasons: Mapping[str, BoolArray],
    setting: str,
) -> UsedLabel:
    """The label with the values that may be used.

    rows: (P,) of the corpus.  drawn: (P,) how often each is drawn, relative to the others.  reasons: of `exclude_test_images`.
    setting: that names the column, for messages.  Raises InputError unless two different labels may be used."""
    left = np.zeros(len(read.values), dtype=bool)
    left[rows] = True
    lost: dict[str, int] = {}
    for reason, where in {"without a label": ~np.isfinite(read.values) & ~read.uncertain, "uncertain": read.uncertain, **reasons}.items():
        lost[reason] = int((left & where).sum())
        left &= ~where
    distinct = np.unique(read.values[left])
    if len(distinct) < 2:
        held = f"all {int(left.sum()):,} labels are {_name_value(read, distinct[0])!r}" if len(distinct) else "no label may be used"
        counted = "".join(f"; {n:,} {reason}" for reason, n in lost.items() if n)
        raise InputError(f"{setting}={read.column}: {held} (of {len(rows):,} training images{counted}); choose another label")
    values = np.full(len(read.values), np.nan)
    share, mean, std = float(drawn[left[rows]].sum() / drawn.sum()), 0.0, 1.0
    names: tuple[str, ...] | None = None
    if read.names is None:
        mean, std = float(read.values[left].mean()), float(read.values[left].std())
        values[left] = (read.values[left] - mean) / std
        kept = {"labeled": int(left.sum())}
    else:
        names = tuple(read.names[int(code)] for code in distinct)  # only the classes that occur
        values[left] = np.searchsorted(distinct, read.values[left])
        kept = {f"labeled {text!r}": int((values == i).sum()) for i, text in enumerate(names)}
    counts = {**kept, **{reason: n for reason, n in lost.items() if n}}
    return UsedLabel(name, role, weight, read.column, values, names, share, mean, std, read.is_metadata, counts)


def _name_value(read: TargetColumn, value: float) -> str:
    return f"{value:g}" if read.names is None else read.names[int(value)]
