"""`--sweep key=a,b`: the runs of a grid of settings, and their names.

A run is named after its values, e.g. `cxr_moco_seed0_lr0.03`, whatever the other runs are: a sweep that gets more values keeps its runs.
"""

import hashlib
import re
from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

from encoders.runtime.config import parse_override
from encoders.runtime.errors import InputError
from encoders.runtime.file_names import shorten_file_name
from encoders.runtime.limited_yaml import parse_yaml
from encoders.runtime.sweep_folder import SweepRun

HASH_LETTERS = 4  # of a value that a file name cannot show, such as a list
EXAMPLE = "--sweep seed=0,1,2"


class SweepAxis(NamedTuple):
    """A setting that varies, and its values as they were written."""

    key: str
    values: tuple[str, ...]


def parse_axis(text: str) -> SweepAxis:
    """`optim.lr=0.03,0.06` as its key and values.

    Commas within brackets and quotes separate nothing: `optim.betas=[0.9,0.95],[0.9,0.99]`. Raises InputError for a text without a key or
    values, an empty value, one that is not YAML, and one that is given twice."""
    key, equals, rest = text.partition("=")
    key, values = key.strip(), split_values(rest)
    if not equals or not re.fullmatch(r"[A-Za-z_][\w.]*", key) or key.endswith(".") or ".." in key:
        raise InputError(f"--sweep {text!r} is not a setting with values; write key=a,b, e.g. {EXAMPLE} or --sweep optim.lr=0.03,0.06")
    if "" in values:
        raise InputError(f"--sweep {text!r} has an empty value; write key=a,b, e.g. {EXAMPLE}, and null for no value")
    seen: dict[str, str] = {}
    for value in values:
        parse_override(f"{key}={value}")
        if (spelled := spell_value(value)) in seen:
            raise InputError(f"--sweep {key} has the value {seen[spelled]} twice ({value}); name each once")
        seen[spelled] = value
    return SweepAxis(key, tuple(values))


def parse_axes(texts: Sequence[str], overrides: Sequence[str] = ()) -> list[SweepAxis]:
    """The axes of a sweep. Raises InputError for a setting that is swept twice, or also set in `overrides`."""
    axes = [parse_axis(text) for text in texts]
    keys = [axis.key for axis in axes]
    if twice := next((key for key in keys if keys.count(key) > 1), None):
        values = [value for axis in axes if axis.key == twice for value in axis.values]
        raise InputError(f"--sweep {twice} is given twice; write its values in one: --sweep {twice}={','.join(values)}")
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key in keys:
            raise InputError(f"{key} is swept, and also set by {override!r}; remove one of them")
    return axes


def split_values(text: str) -> list[str]:
    """The parts of `text` between commas that are not within brackets or quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter in "[{(":
            depth += 1
        elif letter in ")}]":
            depth -= 1
        if letter == "," and depth <= 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def list_grid(name: str, axes: Sequence[SweepAxis]) -> list[SweepRun]:
    """The runs of every combination of values, the last axis fastest.  name: of the sweep.

    Raises InputError if two runs would have the same name."""
    labels = _label_keys([axis.key for axis in axes])
    runs: list[SweepRun] = []
    for values in product(*(axis.values for axis in axes)):
        words = [_spell_word(label, spell_value(value)) for label, value in zip(labels, values, strict=True)]
        settings = [f"{axis.key}={value}" for axis, value in zip(axes, values, strict=True)]
        runs.append(SweepRun(name=shorten_file_name("_".join([name, *words])), settings=settings))
    names = [run.name for run in runs]
    if clash := next((run for run in runs if names.count(run.name) > 1), None):
        raise InputError(f"two runs of the sweep would be called {clash.name!r}; run {' '.join(clash.settings)} under a --name of its own")
    return runs


def spell_value(text: str) -> str:
    """One spelling of a value, however it was written: 0.03 for `3e-2`, `.03` and `0.030`."""
    parsed = parse_yaml(text)
    if isinstance(parsed, str):
        word = parsed
        try:
            parsed = float(word)  # YAML reads 3e-2 as a word; the recipe reads it as a number
        except ValueError:
            return word if isinstance(parse_yaml(word), str) else repr(word)
    if isinstance(parsed, float):
        return repr(parsed).removesuffix(".0")
    if isinstance(parsed, bool | None):
        return {True: "true", False: "false", None: "null"}[parsed]
    return str(parsed)


def _label_keys(keys: Sequence[str]) -> list[str]:
    """What names a setting in the names of runs: its last word, or the whole key where two have the same last word."""
    short = [key.rpartition(".")[2] if not key.endswith(".name") else key.split(".")[-2] for key in keys]
    return [key.replace(".", "-") if short.count(word) > 1 else word for key, word in zip(keys, short, strict=True)]


def _spell_word(label: str, spelled: str) -> str:
    """`lr0.03`, `arch-resnet18`. What is not a letter, digit, `.`, `-` or `_` is left out, and a hash of the value added."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", spelled).strip("-.")
    if plain != spelled:
        plain = f"{plain}-{hashlib.sha256(spelled.encode()).hexdigest()[:HASH_LETTERS]}".lstrip("-")
    return f"{label}{plain}" if plain[:1].isdigit() else f"{label}-{plain}"
