"""YAML of users is read within limits of size, depth and aliases, and every malformed value is one sentence."""

import pytest
import yaml

from encoders.runtime import limited_yaml
from encoders.runtime.config import load_config, parse_override, read_yaml
from encoders.runtime.errors import InputError
from encoders.runtime.limited_yaml import MAX_CHARACTERS, parse_written_yaml, parse_yaml
from encoders.zoo.card import Card
from encoders.zoo.names import parse_name


def laughs(levels, width=10):
    """Each level is a list of aliases to the one before: width ** levels values in a few bytes."""
    lines = ["a0: &a0 [lol]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (laughs(9), "aliases stand for more"),
        (laughs(40, 2), "aliases stand for more"),
        ("a: &a [*a]", "aliases stand for more"),
        ("a: &a {b: *a}", "aliases stand for more"),
        ("[" * 200, "nested more than"),
        ("{a: " * 200, "nested more than"),
        ("- " * 2000 + "x", "nested more than"),
        ("#" * (MAX_CHARACTERS + 1), "characters"),
        ("a: 2001-99-99", "month"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("a: [", "expected"),
        ("\t- x", "cannot start any token"),
        ("a: \x00", "special characters"),
        ("steps: 2:0", "2:0 in line 1 is a number of base 60"),
        ("a:\n- 1\n- -1:30.5", "-1:30.5 in line 3 is a number of base 60"),
        ("{a: {b: 010}}", "010 in line 1 is a number of base 8"),
        ("07: x", "07 in line 1 is a number of base 8"),
    ],
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_what_is_malformed_or_too_large_is_refused_at_once(text, words, tmp_path):
    for parse in (parse_yaml, parse_written_yaml) if len(text) < 1000 else (parse_written_yaml,):
        with pytest.raises(yaml.YAMLError, match=words):
            parse(text)
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match=r"x\.yaml is not YAML"):
        read_yaml(tmp_path / "x.yaml")
    with pytest.raises(InputError, match=r"x\.yaml is not YAML"):
        load_config(Card, tmp_path / "x.yaml")


def test_many_values_without_aliases_are_too_many_as_well(monkeypatch):
    monkeypatch.setattr(limited_yaml, "MAX_VALUES", 20)
    assert len(parse_yaml(f"[{'1,' * 19}]")) == 19
    with pytest.raises(yaml.YAMLError, match="more than 20 values"):
        parse_yaml(f"[{'1,' * 20}]")


def test_aliases_within_the_limits_are_read():
    assert parse_yaml("a: &x {lr: 0.1}\nb: *x\nc: {<<: *x, wd: 0}") == {"a": {"lr": 0.1}, "b": {"lr": 0.1}, "c": {"lr": 0.1, "wd": 0}}
    assert len(parse_yaml(laughs(4))["a3"]) == 10


@pytest.mark.parametrize(
    "text", ["batch=[", "batch={", "a.b=2001-99-99", "batch=" + "[" * 900, "batch=&a [*a]", "batch=!!binary x", "x=*y"]
)
def test_overrides_that_are_no_yaml_are_one_sentence(text):
    with pytest.raises(InputError, match="is not YAML"):
        parse_override(text)


@pytest.mark.parametrize(
    "option",
    ["mean=x", "std=", "mean=0.5/", "mean=nan", "mean=1e999", "std=[1, 2]", "seed=²", "seed=٣", "seed=-1", "seed=" + "9" * 40, "size=["],
)
def test_options_of_names_that_have_no_value_are_one_sentence(option):
    with pytest.raises(InputError, match="random_resnet10t:"):
        parse_name(f"random_resnet10t:{option}")


@pytest.mark.parametrize(("option", "field", "value"), [("mean=0.5", "mean", (0.5,)), ("std=0.2/1e-1/.3", "std", (0.2, 0.1, 0.3))])
def test_numbers_of_names_are_read(option, field, value):
    name = parse_name(f"random_resnet10t:{option},seed=3")
    assert (name.preprocess[field], name.seed) == (value, 3)


@pytest.mark.parametrize("size", [1000, 200_000, MAX_CHARACTERS])
@pytest.mark.parametrize("unit", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_does_not_end_the_process_where_libyaml_reads(unit, size):
    with pytest.raises(yaml.YAMLError, match="nested more than"):
        parse_written_yaml(unit * (size // len(unit)))


@pytest.mark.parametrize(
    "text",
    ["", "~", "a: &x {b: 1}\nc: *x", "a: {b: [1, 0.5, -0.0, 1e22, null, true, 'é', 2026-01-02]}\n? 1\n: 2\n", "- |\n x\n  y\n- 'a: b'\n"],
)
def test_a_written_file_is_read_as_any_other(text):
    assert repr(parse_written_yaml(text)) == repr(parse_yaml(text))


def test_a_key_twice_is_refused_in_a_written_file():
    with pytest.raises(yaml.YAMLError, match="the key 'b' is given twice"):
        parse_written_yaml("a: {b: 1, c: 2, b: 3}")


@pytest.mark.parametrize(
    ("text", "want"), [("0", 0), ("0.5", 0.5), ("0x10", 16), ("1_000", 1000), ("-0", 0), ("'2:0'", "2:0"), ("'010'", "010"), ("08", "08")]
)
def test_other_numbers_and_quoted_texts_are_what_they_seem(text, want):
    assert parse_yaml(f"a: {text}") == parse_written_yaml(f"a: {text}") == {"a": want}
