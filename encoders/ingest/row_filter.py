"""Rows of a table that `--only` selects: values with "or", comparisons of numbers, and ranges.

view=PA            the text PA
view=PA|AP         PA or AP; a text that contains | is written with \\|
age=18..90         a number from 18 to 90, both included; 18.. and ..90 are open
age>=18            also >, <, <= and !=
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from encoders.runtime.errors import InputError, unknown_name_error

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
RANGE = re.compile(rf"({NUMBER})?\s*\.\.\s*({NUMBER})?")
OPERATOR = re.compile(r"!=|>=|<=|>|<|==|=")
AGE_UNITS = {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}  # units in a year; an age as DICOM writes it, 058Y
FORMS = "--only split=train, --only 'view=PA|AP', --only age=18..90 or --only 'age>=18'"
MAX_VALUES_SHOWN = 10

Row = dict[str, str]


@dataclass(frozen=True)
class RowTest:
    """One part of a filter: whether a cell passes.  numeric: the cell must hold a number."""

    text: str
    numeric: bool
    passes: Callable[[str], bool]


def filter_rows(columns: Sequence[str], rows: list[Row], filters: Sequence[str], notes: list[str] | None = None) -> list[Row]:
    """The rows that satisfy every filter.  notes: receives sentences about how each filter was read and what it left out.

    Raises InputError for a filter that cannot be read, for an unknown column, and if no row is left."""
    for text in filters:
        name, tests = parse_filter(text, columns)
        rows = apply_filter(text, name, tests, rows, notes if notes is not None else [])
    return rows


def apply_filter(text: str, name: str, tests: Sequence[RowTest], rows: list[Row], notes: list[str]) -> list[Row]:
    """The rows that pass one of the tests on a column."""
    cells = Counter(row[name] for row in rows)
    passing = {test.text: {cell for cell in cells if test.passes(cell)} for test in tests}
    passed = set[str]().union(*passing.values())
    if not passed:
        raise InputError(f"no row has {text}; values of {name!r}: {describe_values(cells)}")
    counts = {part: sum(cells[cell] for cell in found) for part, found in passing.items()}
    if len(tests) > 1:
        notes.append(f"--only {text}: {', '.join(f'{part} {n:,}' for part, n in counts.items())} rows")
    absent = [part for part, n in counts.items() if not n]
    if absent:
        notes.append(f"warning: --only {text}: no row has {' or '.join(absent)}; values of {name!r}: {describe_values(cells)}")
    if any(test.numeric for test in tests):
        notes += describe_non_numbers(text, name, Counter({cell: n for cell, n in cells.items() if cell not in passed}))
    return [row for row in rows if row[name] in passed]


def parse_filter(text: str, columns: Sequence[str]) -> tuple[str, list[RowTest]]:
    """The column and the tests of a filter, of which a row must pass one.

    A name of a column may contain an operator: the longest name that is a column counts."""
    splits = [(text[: m.start()].strip(), m[0], text[m.end() :].strip()) for m in OPERATOR.finditer(text)]
    if not splits:
        raise InputError(f"--only {text!r} is not column=value; write e.g. {FORMS}")
    known = [split for split in splits if split[0] in columns]
    if not known:
        raise unknown_name_error("column", splits[0][0], columns, "(for --only)")
    name, operator, value = max(known, key=lambda split: len(split[0]))
    if operator in ("=", "=="):
        return name, [parse_value(part) for part in split_alternatives(value)]
    if operator == "!=":
        excluded = set(split_alternatives(value))
        return name, [RowTest(f"!= {value}", False, lambda cell: cell not in excluded)]
    return name, [compare_number(operator, value, text)]


def split_alternatives(value: str) -> list[str]:
    r"""`PA|AP` as two texts; `\|` is a bar."""
    return [part.replace(r"\|", "|").strip() for part in re.split(r"(?<!\\)\|", value)]


def parse_value(value: str) -> RowTest:
    """The test for a range or a text."""
    match = RANGE.fullmatch(value)
    if match is None or not (match[1] or match[2]):
        return RowTest(value, False, lambda cell: cell == value)
    low, high = float(match[1] or "-inf"), float(match[2] or "inf")
    if low > high:
        raise InputError(f"--only: the range {value} is empty; write the smaller number first, {match[2]}..{match[1]}")
    return RowTest(value, True, lambda cell: (number := read_number(cell)) is not None and low <= number <= high)


def compare_number(operator: str, value: str, text: str) -> RowTest:
    """The test for a comparison with a number."""
    if not re.fullmatch(NUMBER, value):
        raise InputError(f"--only {text!r} compares with {value!r}, which is not a number; write e.g. {FORMS}")
    limit = float(value)
    compare: dict[str, Callable[[float], bool]] = {
        ">": lambda number: number > limit,
        "<": lambda number: number < limit,
        ">=": lambda number: number >= limit,
        "<=": lambda number: number <= limit,
    }
    passes = compare[operator]
    return RowTest(f"{operator}{value}", True, lambda cell: (number := read_number(cell)) is not None and passes(number))


def read_number(cell: str) -> float | None:
    """The number in a cell, also with a decimal comma, or an age such as 058Y in years; None if there is none."""
    text = cell.strip()
    if age := re.fullmatch(r"(\d{1,3})([YMWD])", text.upper()):
        return int(age[1]) / AGE_UNITS[age[2]]
    if re.fullmatch(r"[+-]?\d+,\d{1,2}", text):
        text = text.replace(",", ".")
    return float(text) if re.fullmatch(NUMBER, text) else None


def describe_non_numbers(text: str, name: str, left_out: Counter[str]) -> list[str]:
    """A sentence about the rows that are left out because they do not hold a number; [] if there are none."""
    others = Counter({cell: n for cell, n in left_out.items() if read_number(cell) is None})
    if not others:
        return []
    shown = ", ".join(f"{cell!r} {n:,}" for cell, n in others.most_common(5))
    return [f"--only {text}: {others.total():,} rows without a number in {name!r} are left out ({shown})"]


def describe_filtered(filters: Sequence[str], left_out: int) -> list[str]:
    """A sentence about the rows that all filters left out; [] without filters."""
    return [f"{left_out} rows are left out by --only {' --only '.join(filters)}"] if filters else []


def describe_values(cells: Counter[str]) -> str:
    """The values of a column for a message; of many numbers, the range."""
    numbers = [number for cell in cells if (number := read_number(cell)) is not None]
    if len(numbers) > MAX_VALUES_SHOWN:
        return f"numbers from {min(numbers):g} to {max(numbers):g}"
    seen = sorted(cells)
    return ", ".join(seen[:MAX_VALUES_SHOWN]) + (", ..." if len(seen) > MAX_VALUES_SHOWN else "")
