"""Which texts mean "unknown": one list and one rule for labels, patients, splits, slides and meta columns.

A value is unknown if it is None, NaN, or a text of `UNKNOWN_TEXTS`; upper and lower case, spaces around it and underscores make no
difference. Some of these texts are also ordinary words, such as `none` in a column of findings. They are classes if words outside the list
stand in the same column, and unknown among numbers, and always unknown as the name of a patient, a slide, a study or a part of a split.

Shapes: N values of a column.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array

# True: the text may also name a class, beside other words.
UNKNOWN_TEXTS: dict[str, bool] = {
    **dict.fromkeys(("", "nan", "-nan", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "null", "<null>", "nat"), False),
    **dict.fromkeys(("none", "empty", "blank", "missing", "undefined", "no data", "-", "--", "---", ".", "?"), True),
    **dict.fromkeys(("unknown", "unk", "not known", "not available", "not applicable", "not recorded"), True),
    **dict.fromkeys(("unspecified", "not specified", "unnamed", "no name", "noname", "no id"), True),
    **dict.fromkeys(("anonymous", "anonymized", "anonymised", "anonym", "anon", "deidentified", "de-identified"), True),
    **dict.fromkeys(("removed", "redacted"), True),
}
MAX_TEXTS_SHOWN = 12  # texts in a message; the others are counted together


def is_unknown(value: object, beside_words: bool = False) -> bool:
    """Whether a value is unknown. beside_words: its column holds other words, so that `none` and the like are classes."""
    if not isinstance(value, str):
        return value is None or value != value or str(value) == "<NA>"  # NaN is unequal to itself; <NA> is pandas.NA
    may_be_class = _look_up(value)
    return may_be_class is False or (may_be_class is True and not beside_words)


def find_unknown(values: Iterable[object] | Array, names: bool = False) -> NDArray[np.bool_]:
    """(N,) whether each value of a column is unknown.

    names: the column names patients, slides, studies or parts of a split, in which no text of the list is a value."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        return np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
    items = values.tolist() if isinstance(values, np.ndarray) else list(values)
    beside_words = not names and any(map(_is_other_word, {v for v in items if isinstance(v, str)}))
    return np.array([is_unknown(v, beside_words) for v in items], dtype=bool)


def count_unknown(values: Sequence[object] | Array, unknown: NDArray[np.bool_]) -> dict[str, int]:
    """Text of each unknown value -> how often it occurs, the most frequent first; None counts as an empty text."""
    texts = ("" if v is None else str(v).strip() for v, hole in zip(values, unknown, strict=True) if hole)
    return dict(sorted(Counter(texts).items(), key=lambda item: (-item[1], item[0])))


def describe_unknown(counts: Mapping[str, int]) -> str:
    """`20 unknown: 'N/A' 12, '' 8`."""
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    texts = ", ".join(f"{text!r} {n:,}" for text, n in shown[:MAX_TEXTS_SHOWN])
    rest = sum(n for _, n in shown[MAX_TEXTS_SHOWN:])
    texts += f", {len(shown) - MAX_TEXTS_SHOWN} other texts {rest:,}" if rest else ""
    return f"{sum(counts.values()):,} unknown: {texts}"


def add_counts(each: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The counts of several columns or files added."""
    total: Counter[Any] = Counter()
    for counts in each:
        total.update(counts)
    return dict(total)


@lru_cache(maxsize=1 << 16)
def _look_up(text: str) -> bool | None:
    """The entry of UNKNOWN_TEXTS for a text; None if it has none."""
    return UNKNOWN_TEXTS.get(" ".join(unicodedata.normalize("NFKC", text).casefold().replace("_", " ").split()))


def _is_other_word(text: str) -> bool:
    """Whether a text is neither in the list nor a number."""
    if _look_up(text) is not None:
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False
