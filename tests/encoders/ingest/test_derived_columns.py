"""Columns of 0 and 1 from comparisons."""

import pytest

from encoders.ingest.tables.derived_columns import derive_columns
from encoders.ingest.tables.table import Table
from encoders.runtime.errors import InputError

TABLE = Table("t.csv", ["id", "EncodedPixels", "view"], [
    {"id": "a", "EncodedPixels": "-1", "view": "PA"},
    {"id": "b", "EncodedPixels": "12 3 4", "view": "AP"},
    {"id": "c", "EncodedPixels": "", "view": "LL"},
])  # fmt: skip


def column(comparison):
    table = derive_columns(TABLE, [comparison])
    return [row[table.columns[-1]] for row in table.rows]


@pytest.mark.parametrize(
    ("comparison", "cells"),
    [
        ("pneumothorax=EncodedPixels!=-1", ["0", "1", ""]),
        ("none=EncodedPixels==-1", ["1", "0", ""]),
        ("frontal=view==PA|AP", ["1", "1", "0"]),
        ("lateral = view != PA | AP", ["0", "0", "1"]),
    ],
)
def test_a_comparison_becomes_a_column_and_empty_cells_stay_unknown(comparison, cells):
    assert column(comparison) == cells


def test_several_comparisons_are_added_and_counted():
    table = derive_columns(TABLE, ["x=EncodedPixels!=-1", "frontal=view==PA|AP"])
    assert table.columns == [*TABLE.columns, "x", "frontal"]
    assert table.notes == ["column 'x' = EncodedPixels != -1: 1 of 3 rows", "column 'frontal' = view == PA|AP: 2 of 3 rows"]
    assert TABLE.columns == ["id", "EncodedPixels", "view"]


@pytest.mark.parametrize(
    ("comparison", "why"),
    [
        ("EncodedPixels", "expected NAME=COLUMN==VALUE"),
        ("x=EncodedPixels=1", "expected NAME=COLUMN==VALUE"),
        ("x=EncodedPixel!=-1", "did you mean EncodedPixels"),
        ("view=EncodedPixels!=-1", "has a column 'view' already"),
        ("x=view==pa", "is false for every row; values of 'view': 'AP', 'LL', 'PA'"),
        ("x=view!=pa", "is true for every row"),
    ],
)
def test_a_comparison_that_cannot_be_right_is_refused(comparison, why):
    with pytest.raises(InputError, match=why):
        column(comparison)
