"""Lists of findings in a cell: every spelling of a list gives the items that were put in, wherever they stand."""

import itertools
import json

import numpy as np
import pytest

from encoders.ingest.label_lists import find_item_separator, holds_lists, list_items, parse_items, read_findings
from encoders.runtime.errors import InputError

SPELLINGS = {
    "Python": str,
    "JSON": json.dumps,
    "JSON twice": lambda items: json.dumps(json.dumps(items)),
    "JSON in lists": lambda items: json.dumps([items[:1], items[1:]]),
    "tuple": lambda items: str(tuple(items)),
    "set": lambda items: "{" + ", ".join(map(repr, items)) + "}",
    "NumPy": lambda items: str(np.array(items)),
    "NumPy with a name": lambda items: f"array({items}, dtype=object)",
    "no quotes": lambda items: f"[{', '.join(items)}]",
    "no brackets": lambda items: ", ".join(map(repr, items)),
    "cut off": lambda items: str(items)[:-1],
    "spaces": lambda items: str([f" {item} " for item in items]),
    "double quotes": lambda items: "[" + ",".join(f'"{item}"' for item in items) + "]",
    "bars": "|".join,
    "bars and spaces": " | ".join,
    "commas": ", ".join,
    "semicolons": ";".join,
    "lines": "\n".join,
}

BLANKS = ("", "  ", "[]", "['']", "[ ]", '[""]', "nan", "N/A", "[nan]", "[null]", "[None]", "|", "{}", "unknown")


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("items", [p for n in (1, 2, 3) for p in itertools.permutations(["pneumonia", "pleural effusion", "mass"], n)])
def test_every_spelling_of_a_list_gives_its_items_at_any_place(spelling, items):
    text = SPELLINGS[spelling](list(items))
    assert parse_items(text, find_item_separator([text])) == list(items)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("['Hodgkin\\'s', 'mass']", ["Hodgkin's", "mass"]),
        ('["Hodgkin\'s", "mass"]', ["Hodgkin's", "mass"]),
        ("['Hodgkin's', 'mass']", ["Hodgkin's", "mass"]),
        ("['opacity, left' 'mass']", ["opacity, left", "mass"]),
        ('["\\u00e9panchement"]', ["épanchement"]),
        ("[‘mass’, ‘nodule’]", ["mass", "nodule"]),
        ("mass (left)", ["mass (left)"]),
        ("['mass (left)']", ["mass (left)"]),
        ("a|b|", ["a", "b"]),
        ("|a||b", ["a", "b"]),
        ("['a', None, 'b', nan]", ["a", "b"]),
        ("['a', '']", ["a"]),
        ("[3, 5]", ["3", "5"]),
        ("['a' 'b'\n 'c']", ["a", "b", "c"]),
        ("None", ["None"]),
        ("No Finding", ["No Finding"]),
        *(
            (blank, [])
            for blank in ("", "  ", "[]", "['']", "[ ]", '[""]', "nan", "N/A", "[nan]", "[null]", "[None]", "|", "{}", "unknown")
        ),
    ],
)
def test_items_of_unusual_cells(text, items):
    assert parse_items(text, "|") == items


def test_a_finding_is_positive_wherever_it_stands_and_a_blank_is_unknown():
    cells = ["['a', 'b']", "b|a", "c|a|b", "c", "", "[]", "No Finding", "none", "['normal']", "A|x", "a_b"]
    found = read_findings("Labels", cells, ["a", "No finding"])
    assert found.values["a"] == ["1", "1", "1", "0", "", "", "0", "0", "0", "1", "0"]
    assert found.values["No finding"] == ["0", "0", "0", "0", "", "", "1", "0", "0", "0", "0"]
    assert found.unknown == {"": 1, "[]": 1}
    assert sum(v == "" for v in found.values["a"]) == sum(found.unknown.values())
    told = " ".join(found.describe("Labels"))
    assert "separated by '|': a 4, No finding 1 (of 11 cells)" in told
    assert "2 unknown: '' 1, '[]' 1" in told


def test_random_lists_in_mixed_spellings_are_read_as_they_were_written():
    rng, names = np.random.default_rng(0), [f"finding {c}" for c in "abcdefg"]
    literal = [SPELLINGS[s] for s in ("Python", "JSON", "tuple", "NumPy", "bars")]
    truth = [[n for n in rng.permutation(names) if rng.random() < 0.4] for _ in range(300)]
    cells = [str(literal[rng.integers(5)](list(map(str, items)))) if items else "" for items in truth]
    found = read_findings("x", cells, names)
    for name in names:
        assert found.values[name] == [("1" if name in items else "0") if items else "" for items in truth]


def test_names_with_commas_are_kept_whole_where_bars_separate_or_where_they_are_wanted():
    assert read_findings("x", ["mass, left|nodule", "nodule"], ["nodule"]).counts == {"nodule": 2, "mass, left": 1}
    assert read_findings("x", ["mass, left", "a, b"], ["mass, left", "b"]).values == {"mass, left": ["1", "0"], "b": ["0", "1"]}
    with pytest.raises(InputError, match=r"separated by '\|'.*'mass, left', which contains mass; say with --list-separator"):
        read_findings("x", ["mass, left|nodule", "mass"], ["mass"])
    assert read_findings("x", ["mass, left|nodule", "mass"], ["mass"], "|").values["mass"] == ["0", "1"]
    assert read_findings("x", ["a/b", "b/c"], ["b"], "/").values["b"] == ["1", "1"]
    assert read_findings("x", ["a b", "b c"], ["b"], " ").values["b"] == ["1", "1"]


@pytest.mark.parametrize("cells", [["['pneumonia', 'mass']", "['nodule']"], ['["pneumonia"]'], ["pneumonia|mass"], ["['pneumonia' 'x']"]])
@pytest.mark.parametrize("name", ["pneumnia", "zzz", "['pneumonia'"])
def test_an_unknown_finding_names_items_without_brackets_or_quotes(cells, name):
    with pytest.raises(InputError) as told:
        read_findings("Labels", cells, [name])
    hint = str(told.value).split(";", 1)[1]
    assert "pneumonia" in hint
    assert not set(hint) & set("[]{}'\"")


def test_what_is_no_list_of_findings_raises():
    with pytest.raises(InputError, match="JSON object"):
        read_findings("x", ['{"pneumonia": 1}'], ["pneumonia"])
    with pytest.raises(InputError, match="named twice"):
        read_findings("x", ["a|b"], ["a", "A"])
    with pytest.raises(InputError, match="no cell of column 'x' lists a finding"):
        read_findings("x", ["", "[]"], ["a"])


def test_lists_are_told_from_classes():
    assert holds_lists(["['a']", "['b']"])
    assert holds_lists(["a|b", "b"])
    assert not holds_lists(["benign", "malignant", "n/a"])
    assert not holds_lists(["mild, left", "severe"])
    assert list_items(["a|B", "b", "b", ""]) == {"b": 3, "a": 1}
