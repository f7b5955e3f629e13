"""One list of texts that mean unknown, and one rule for classes, numbers and names."""

import math

import numpy as np
import pytest

from encoders.runtime.unknown_values import (
    UNKNOWN_TEXTS,
    add_counts,
    count_unknown,
    describe_unknown,
    find_unknown,
    find_unknown_patients,
    is_unknown,
    is_unknown_patient,
)

NEVER_A_VALUE = ["", "  ", "nan", "NaN", "NA", "N/A", "n/a", "null", "NULL", "<NA>", "#N/A", None, math.nan, np.float32("nan")]
ALSO_A_WORD = ["none", "None", "NONE", " none ", "empty", "ANONYMOUS", "Unknown", "not_available", "no name", "?", "-", "de-identified"]


@pytest.mark.parametrize("value", NEVER_A_VALUE)
def test_a_missing_cell_is_unknown_in_every_kind_of_column(value):
    for column in ([value, "sick", "well"], [value, "1", "2"], [value, value]):
        for names in (False, True):
            assert find_unknown(column, names).tolist() == [v is value for v in column]


@pytest.mark.parametrize("value", ALSO_A_WORD)
def test_a_word_of_the_list_is_a_class_beside_other_words_and_unknown_otherwise(value):
    assert find_unknown([value, "mass", "nodule"]).tolist() == [False] * 3
    assert find_unknown([value, "1+", ""]).tolist() == [False, False, True]
    for column in ([value, "1", "2.5"], [value, 0, 1.0], [value, "", "nan"], [value] * 2, [value, "007"]):
        assert find_unknown(column)[0], f"{value!r} is not a class in {column}"
    assert find_unknown([value, "p1"], names=True).tolist() == [True, False]


@pytest.mark.parametrize("value", ["0", "-1", "-1.0", "p1", "nana", "Nona", "no finding", "normal", "negative", "007", 0, 0.0, False])
def test_values_that_only_look_alike_are_known(value):
    assert not is_unknown(value)
    assert not find_unknown([value, value], names=True).any()


def test_arrays_of_numbers_and_text_are_read_as_lists_are():
    assert find_unknown(np.array([1.0, np.nan])).tolist() == [False, True]
    assert find_unknown(np.array([1, 2])).tolist() == [False, False]
    assert find_unknown(np.array(["none", "a", "NA"])).tolist() == [False, False, True]
    assert find_unknown(np.array(["none", 3, None], dtype=object)).tolist() == [True, False, True]


def test_the_texts_are_counted_most_frequent_first():
    values = ["N/A"] * 12 + [""] * 8 + ["a"] * 60
    assert describe_unknown(count_unknown(values, find_unknown(values))) == "20 unknown: 'N/A' 12, '' 8"
    assert count_unknown([None, "", "nan", math.nan], np.ones(4, dtype=bool)) == {"": 2, "nan": 2}
    assert add_counts([{"": 1}, {"": 2, "NA": 1}]) == {"": 3, "NA": 1}
    many = {f"{i}": i for i in range(1, 15)}
    assert describe_unknown(many).startswith("105 unknown: '14' 14, '13' 13, ")
    assert describe_unknown(many).endswith("'3' 3, 2 other texts 3")


def test_the_list_holds_texts_in_the_form_in_which_they_are_looked_up():
    assert all(is_unknown(text) and is_unknown(f" {text.upper()} ") for text in UNKNOWN_TEXTS)


PLACEHOLDERS = ["ANONYMOUS", "anon", "", "UNKNOWN", "Anonymized^Patient", "ANON^^^", "anonymised^", "^^^^", "Anonymous_Patient_000", "XXXX"]
PLACEHOLDERS += ["0", "0000", "0.0", "De-identified^^", "[REMOVED]", "*****", "Unknown^Unknown", "patient anonymous"]


@pytest.mark.parametrize("text", PLACEHOLDERS)
def test_placeholders_of_patients_are_unknown(text):
    assert is_unknown_patient(text)
    assert find_unknown_patients(["P7", text, text]).tolist() == [False, True, True]


@pytest.mark.parametrize("text", ["ANON_17", "ANON0017", "Anonymized^123", "P0", "10", "007", "Patient", "case 3", "x1"])
def test_pseudonyms_are_known_patients(text):
    assert not is_unknown_patient(text)
    assert find_unknown_patients([text]).tolist() == [False]


@pytest.mark.parametrize(
    ("column", "unknown"),
    [(["0", "1", "2"], 0), (["000", "001"], 0), (["0", "P1", "12"], 1), (["0", "0"], 2), (np.array([0, 1]), 0), (np.array([0, 7]), 1)],
)
def test_zero_is_a_patient_only_where_patients_are_numbered_from_zero(column, unknown):
    assert find_unknown_patients(column).sum() == unknown


def test_marks_of_a_label_stay_classes():
    assert find_unknown(["+", "-", "++"]).tolist() == [False, False, False]
    assert find_unknown(["0", "1", "0"]).tolist() == [False, False, False]
    assert not any(map(is_unknown, ["nan%", "+", "unknown+", "none/few"]))
