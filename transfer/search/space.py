"""The space of a search: `lr,weight_decay=0.01..0.1,layer_decay=0.65|0.75|0.9` as parameters, and its one canonical text.

A range `low..high` is drawn on a logarithmic or a linear scale, which `:log` or `:linear` behind it chooses; values with bars between them
are drawn as they are.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast, get_args

import yaml

from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.json_types import Json
from encoders.runtime.limited_yaml import parse_yaml
from transfer.search.parameters import FIXED, SEARCHED, SHORT_NAMES, Scale, parameter_name

PREFIX = "finetune."
WIDE = 10.0  # a range that the user gives for another setting is logarithmic if its ends differ by at least this factor
FORM = "write lr=1e-5..1e-3, layer_decay=0.65|0.75|0.9 or, with its own range, lr"


@dataclass(frozen=True)
class SearchParameter:
    """A setting that is searched. choices: its values; () for a range from low to high."""

    setting: str
    choices: tuple[Json, ...] = ()
    low: float = 0.0
    high: float = 0.0
    scale: Scale = "linear"

    def __str__(self) -> str:
        """The canonical text, which is read as an equal parameter."""
        if self.choices:
            return f"{self.setting}={'|'.join(map(format_choice, self.choices))}"
        return f"{self.setting}={self.low:g}..{self.high:g}:{self.scale}"

    def value(self, share: float, integer: bool = False) -> Json:
        """The value at a share in [0, 1) of the choices or of the range, of which both ends are included, to three digits."""
        if self.choices:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        if integer:  # each whole number has as much of the scale as it would have if it were rounded to
            return math.floor(self._scaled(share, self.low, self.high + 1 - 1e-9))
        return float(f"{self._scaled(share, self.low, self.high):.3g}")

    def _scaled(self, share: float, low: float, high: float) -> float:
        if self.scale == "log":
            return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        return low + share * (high - low)


def parse_space(text: str) -> list[SearchParameter]:
    """The parameters, in the order of their settings. Raises InputError for what cannot be read, or is named twice."""
    found: dict[str, SearchParameter] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        parameter = _parse_parameter(part)
        if parameter.setting in found:
            raise InputError(f"--search names {parameter_name(parameter.setting)} more than once; give it one range")
        found[parameter.setting] = parameter
    return [found[setting] for setting in sorted(found)]


def canonical_space(text: str) -> str:
    """The text of the space with every range written out: equal spaces have equal texts."""
    return ",".join(map(str, parse_space(text)))


def _parse_parameter(part: str) -> SearchParameter:
    name, equals, values = (piece.strip() for piece in part.partition("="))
    name = name.removeprefix(PREFIX)
    setting = SHORT_NAMES.get(name, name)
    if (group := setting.partition(".")[0]) in FIXED:
        raise InputError(f"--search {name}: this is not searched: {FIXED[group]}")
    known = SEARCHED.get(setting)
    if not equals:
        if known is None:
            if "." in setting:
                raise InputError(f"--search {name}: it has no range of its own; give one, e.g. {name}=0..1 or {name}=1|2|4")
            raise unknown_name_error("setting to search", name, list(map(parameter_name, SEARCHED)), "Others need a range, NAME=LOW..HIGH.")
        values = known.range
    if not values:
        raise InputError(f"--search {part!r} has no value; {FORM}")
    if ".." not in values:
        return SearchParameter(setting, tuple(_parse_choices(part, values)))
    return _parse_range(part, setting, values, None if known is None else known.scale)


def _parse_choices(part: str, values: str) -> list[Json]:
    choices = [_parse_value(part, value.strip()) for value in values.split("|")]
    if len(choices) < 2 or len({json.dumps(choice) for choice in choices}) < len(choices):
        raise InputError(f"--search {part!r}: expected a range LOW..HIGH, or at least two different values with | between them; {FORM}")
    return choices


def _parse_value(part: str, text: str) -> Json:
    """A number, true, false, null or a word."""
    for number in (int, float):
        try:
            value = number(text)
        except ValueError:
            continue
        if math.isfinite(value):
            return value
    try:
        parsed = parse_yaml(text)
    except yaml.YAMLError:
        parsed = {}
    if text == "" or not isinstance(parsed, str | bool | None):
        raise InputError(f"--search {part!r}: {text!r} is no value; {FORM}")
    return cast(Json, parsed)


def _parse_range(part: str, setting: str, values: str, scale: Scale | None) -> SearchParameter:
    ends, colon, own = values.partition(":")
    if colon and own not in get_args(Scale):
        raise InputError(f"--search {part!r}: the scale is {own!r}; write :log or :linear")
    try:
        low, high = (float(end) for end in ends.split(".."))
    except ValueError as error:
        raise InputError(f"--search {part!r}: expected two numbers, LOW..HIGH; {FORM}") from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise InputError(f"--search {part!r}: the lower end must be below the upper one; {FORM}")
    chosen: Scale = cast(Scale, own) if colon else scale or ("log" if low > 0 and high >= WIDE * low else "linear")
    if chosen == "log" and low <= 0:
        raise InputError(f"--search {part!r}: a logarithmic range starts above 0; write a lower end above 0, or :linear behind it")
    return SearchParameter(setting, (), low, high, chosen)


def format_choice(value: Json) -> str:
    """A value as it is written in a space."""
    return value if isinstance(value, str) else json.dumps(value)


def describe_settings(settings: Sequence[tuple[str, Json]]) -> str:
    """`lr 0.0003, weight_decay 0.05`; `the settings as given` for none."""
    return ", ".join(f"{parameter_name(name)} {format_choice(value)}" for name, value in settings) or "the settings as given"
