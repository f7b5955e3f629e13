"""Which texts mean "unknown": one list and one rule for labels, patients, splits, slides and meta columns.

A value is unknown if it is None, NaN, or a text of `UNKNOWN_TEXTS`; upper and lower case, spaces around it and underscores make no
difference. Some of these texts are also ordinary words, such as `none` in a column of findings. They are classes if words outside the list
stand in the same column, and unknown among numbers, and always unknown as the name of a patient, a slide, a study or a part of a split.

De-identification also writes placeholders of several words, such as `Anonymized^Patient` or `^^^^`, and the patient 0. Placeholders with
another number, such as `ANON_17`, tell patients apart and are known.

Shapes: N values of a column.
"""

import re
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
PLACEHOLDER_WORDS = {text for text, may_be_class in UNKNOWN_TEXTS.items() if may_be_class and text.replace("-", "").isalpha()} | {
    *("anonymize", "anonymise", "anonyme", "anonymus", "anonymisiert", "anonymizado", "anonimo", "pseudonymized", "pseudonymised"),
    *("deid", "unidentified", "null", "nan", "na", "xxx"),
}
FILLER_WORDS = {"patient", "patients", "subject", "person", "name", "id", "case", "no", "not", "the"}  # only beside a placeholder
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


def is_unknown_patient(value: object) -> bool:
    """Whether the id of a patient identifies nobody: unknown, a placeholder, or a zero. One rule for headers, tables and slides.

    Where a whole column is known, use `find_unknown_patients`."""
    return is_unknown(value) or _is_zero(value)


def find_unknown_patients(values: Iterable[object] | Array) -> NDArray[np.bool_]:
    """(N,) whether each id of a column of patients identifies nobody.

    A zero is a placeholder, unless the column also holds a one: then patients are numbered from zero."""
    items = values.tolist() if isinstance(values, np.ndarray) else list(values)
    unknown = find_unknown(items, names=True)
    numbered = any(re.fullmatch(r"0*1(\.0*)?", str(v).strip()) for v in set(items) if v is not None)
    return unknown if numbered else unknown | np.array([_is_zero(v) for v in items], dtype=bool)


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
    """The entry of UNKNOWN_TEXTS for a text, True for a placeholder of several words; None if it is neither."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().replace("_", " ").split())
    found = UNKNOWN_TEXTS.get(plain)
    return True if found is None and _is_placeholder(plain) else found


def _is_placeholder(plain: str) -> bool:
    """Whether a text has only marks that stand for removed letters, only the letter x, or only words and zeros that identify nobody."""
    if plain and set(plain) <= set("^*_.?-# "):
        return True
    words = [word for word in re.split(r"[\s^_=*,;:<>()\[\]{}]+", plain) if word.strip("-")]
    words = ["xxx" if len(word) > 2 and set(word) == {"x"} else word.strip("-") for word in words]
    return any(word in PLACEHOLDER_WORDS for word in words) and all(
        word in PLACEHOLDER_WORDS or word in FILLER_WORDS or not word.strip("0") for word in words
    )


def _is_zero(value: object) -> bool:
    """Whether a value is zero in any spelling: 0, 000, 0.0."""
    return isinstance(value, str | int | float | np.number) and re.fullmatch(r"0+(\.0*)?", str(value).strip()) is not None


def _is_other_word(text: str) -> bool:
    """Whether a text is neither in the list nor a number."""
    if _look_up(text) is not None:
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False
