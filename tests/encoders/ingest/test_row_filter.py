"""`--only`: which rows stay, and what is said about the others."""

import numpy as np
import pytest

from encoders.ingest.row_filter import filter_rows, read_number
from encoders.runtime.errors import InputError

COLUMNS = ["view", "age", "Finding Labels", "a=b", "x>=y"]


def rows(**columns):
    n = len(next(iter(columns.values())))
    blank = {name: [""] * n for name in COLUMNS}
    return [dict(zip(blank, values, strict=True)) for values in zip(*(blank | columns).values(), strict=True)]


VIEWS = rows(view=["PA", "AP", "LL", "PA", "ap", "", "PA|AP"])


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("view=PA", [0, 3]),
        ("view=PA|AP", [0, 1, 3]),
        ("view=AP|PA", [0, 1, 3]),
        ("view = PA | LL", [0, 2, 3]),
        (r"view=PA\|AP", [6]),
        (r"view=LL|PA\|AP", [2, 6]),
        ("view=", [5]),
        ("view=PA|", [0, 3, 5]),
        ("view!=PA", [1, 2, 4, 5, 6]),
        ("view!=PA|AP", [2, 4, 5, 6]),
        ("view==LL", [2]),
    ],
)
def test_texts_are_alternatives(text, kept):
    assert filter_rows(COLUMNS, VIEWS, [text]) == [VIEWS[i] for i in kept]


AGES = [*map(str, range(15, 95)), "18.0", "90.5", "-3", "1e1", "017Y", "018Y", "300D", "45,5", "", "unknown", "90+"]
BOUNDS = [
    ("18..90", 18, 90),
    ("..20", -np.inf, 20),
    ("60..", 60, np.inf),
    ("-5..-1", -5, -1),
    ("17.5..18.5", 17.5, 18.5),
    ("1e1..2e1", 10, 20),
]


@pytest.mark.parametrize(("text", "low", "high"), BOUNDS)
def test_a_range_includes_its_ends(text, low, high):
    truth = [*map(float, range(15, 95)), 18, 90.5, -3, 10, 17, 18, 300 / 365.25, 45.5, np.nan, np.nan, np.nan]
    table, notes = rows(age=AGES), []
    kept = filter_rows(COLUMNS, table, [f"age={text}"], notes)
    assert [row["age"] for row in kept] == [a for a, t in zip(AGES, truth, strict=True) if low <= t <= high]
    assert notes == [f"--only age={text}: 3 rows without a number in 'age' are left out ('' 1, 'unknown' 1, '90+' 1)"]


@pytest.mark.parametrize(("operator", "compare"), [(">=", np.greater_equal), (">", np.greater), ("<=", np.less_equal), ("<", np.less)])
@pytest.mark.parametrize("space", ["", " "])
def test_comparisons_equal_those_of_numpy(operator, compare, space):
    ages = np.random.default_rng(0).integers(0, 100, 200)
    kept = filter_rows(COLUMNS, rows(age=ages.astype(str)), [f"age{space}{operator}{space}18"])
    assert [int(row["age"]) for row in kept] == ages[compare(ages, 18)].tolist()


def test_ranges_and_texts_are_alternatives_and_filters_are_joined_with_and():
    table = rows(age=["3", "20", "70", "unknown"], view=["PA", "PA", "AP", "PA"])
    assert [r["age"] for r in filter_rows(COLUMNS, table, ["age=..17|65..|unknown"])] == ["3", "70", "unknown"]
    assert [r["age"] for r in filter_rows(COLUMNS, table, ["age=..17|65..|unknown", "view=PA"])] == ["3", "unknown"]


def test_the_longest_name_of_a_column_counts():
    table = rows(**{"a=b": ["1", "2"], "x>=y": ["5", "6"]})
    assert filter_rows(COLUMNS, table, ["a=b=2"]) == table[1:]
    assert filter_rows(COLUMNS, table, ["x>=y>=6"]) == table[1:]


def test_an_alternative_that_no_row_has_is_named():
    notes = []
    assert len(filter_rows(COLUMNS, VIEWS, ["view=PA|LAT"], notes)) == 2
    assert notes[0] == "--only view=PA|LAT: PA 2, LAT 0 rows"
    assert notes[1].startswith("warning: --only view=PA|LAT: no row has LAT; values of 'view': , AP, LL, PA")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("view", "is not column=value"),
        ("veiw=PA", "did you mean view"),
        ("vew>=3", "did you mean view"),
        ("view=XX", "no row has view=XX; values of 'view'"),
        ("age>=old", "compares with 'old', which is not a number"),
        ("age=90..18", r"the range 90..18 is empty; write the smaller number first, 18..90"),
        ("view=18..90", "no row has view=18..90"),
    ],
)
def test_a_filter_that_keeps_nothing_or_cannot_be_read_raises(text, message):
    with pytest.raises(InputError, match=message):
        filter_rows(COLUMNS, VIEWS, [text])


def test_what_is_a_number():
    assert read_number(" 058Y ") == 58
    assert read_number("006M") == 0.5
    assert all(read_number(text) is None for text in ("", "nan", "inf", "1,234", "0x10", "1_0", "PA", "90+"))
