"""Typed configuration: defaults in a model, overridden by YAML, overridden by `key=value` on the command line."""

import math
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from encoders.runtime.errors import InputError
from encoders.runtime.limited_yaml import parse_yaml, read_yaml_text
from encoders.runtime.read_errors import describe_reason
from encoders.runtime.sealed_json import digest_plain_json
from encoders.runtime.setting_kinds import find_wrong_kind


class Config(BaseModel):
    """Base class of every configuration: frozen, an unknown key is an error, and so are true for a number and 1 for true."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), validate_default=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_wrong_kind(cls, value: object, info: ValidationInfo) -> object:
        if info.field_name is not None and (problem := find_wrong_kind(cls.model_fields[info.field_name].annotation, value)):
            raise ValueError(problem)
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _complete_group(cls, value: object, info: ValidationInfo) -> object:
        """A group of which some settings are given has the others from the field's default, which may differ from those of its class."""
        default = None if info.field_name is None else cls.model_fields[info.field_name].default
        return merge_settings(default.model_dump(), value) if isinstance(default, BaseModel) and isinstance(value, Mapping) else value


MAIN_KEYS = {"method": "name", "augment": "preset"}  # of groups of settings whose fields depend on what they name
PLAIN_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
MAX_INTEGER = 2**63 - 1  # libraries take no larger one
MAX_NESTING = 20  # of mappings and lists in settings; the deepest of ours has 4
LONGEST_VALUE = 80  # characters of a wrong value in a message
MOST_FAULTS = 8  # that a message lists
LONGEST_FAULT = 400  # characters
C = TypeVar("C", bound=BaseModel)


def load_config(kind: type[C], path: str | Path | None = None, overrides: Sequence[str] = ()) -> C:
    """`kind` with its defaults, overridden by the YAML file, overridden by `key=value`.

    Raises InputError naming the file, the key, what was expected, and the nearest known key."""
    raw = merge_settings(read_yaml(path) if path else {}, *map(parse_override, overrides))
    return validate_config(kind, raw, str(path) if path else "the command line")


def validate_config(kind: type[C], raw: Mapping[str, Any], origin: str, within: str = "") -> C:
    """`raw` as a `kind`. Raises InputError, which lists every wrong key with what was expected.

    origin: where `raw` came from, for the message.  within: the section that `raw` is, for keys as the user writes them (`method` gives
    `method.temperature`)."""
    if problem := find_unusable(raw, within):
        raise InputError(f"{origin}: {problem}")
    try:
        return kind.model_validate(raw)
    except ValidationError as error:
        raise InputError(explain_errors(error, kind, origin, within)) from error


def find_unusable(value: object, where: str = "", depth: int = 0) -> str:
    """What no setting can be, with its key: a number beyond 64 bits, NaN, inf, a text that is no Unicode, deep nesting; "" if none is.

    where: the key of `value`."""
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return f"{where or 'the value'}: the number has {value.bit_length()} bits, at most 63 are read"
    if isinstance(value, float) and not math.isfinite(value):
        return f"{where or 'the value'}: expected a finite number (given: {value})"
    if isinstance(value, str) and not is_unicode(value):
        return f"{where or 'the value'}: the text is not valid Unicode"
    if not isinstance(value, Mapping | list | tuple):
        return ""
    if depth > MAX_NESTING:
        return f"{shorten_text(where)}: nested more than {MAX_NESTING} deep"
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for key, inner in items:
        if isinstance(key, str) and not is_unicode(key):
            return f"{where or 'the top'}: a key is not valid Unicode"
        if problem := find_unusable(inner, f"{where}.{key}" if where else str(key), depth + 1):
            return problem
    return ""


def is_unicode(text: str) -> bool:
    """Whether a text can be written: a lone surrogate, which stands for a byte that is no UTF-8, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def shorten_text(text: str) -> str:
    """The beginning of a text that is too long for a message."""
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises InputError when it is missing, malformed or not a mapping."""
    try:
        content = parse_yaml(read_yaml_text(Path(path)))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, ValueError) as error:  # not YAML, or no text
        raise InputError(f"{path} is not YAML: {describe_reason(error)}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, expected `key: value` lines")
    return dict(content)


def parse_override(text: str) -> dict[str, Any]:
    """`a.b=1` as {"a": {"b": 1}}; the value is read as YAML. Raises InputError when there is no `=`."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        if (written := re.fullmatch(r"-*([A-Za-z_][\w.]*):(\S+)", text)) is not None:
            raise InputError(f"{shorten_text(text)!r} is not a setting; did you mean {written[1]}={written[2]}?")
        raise InputError(f"{shorten_text(text)!r} is not a setting; write key=value, e.g. batch=64 or optim.lr=1e-3")
    try:
        parsed = parse_yaml(value)
    except yaml.YAMLError as error:
        raise InputError(f"the value of {shorten_text(key)!r} is not YAML: {describe_reason(error)}") from error
    if isinstance(parsed, int) and not isinstance(parsed, bool) and not PLAIN_INTEGER.fullmatch(value.strip()):
        raise InputError(f"{shorten_text(text)!r} would be read as {parsed:,}: YAML has other bases; write the number with digits alone")
    *parents, leaf = key.strip().split(".")
    if len(parents) > MAX_NESTING or "" in (leaf, *parents):
        raise InputError(f"{shorten_text(key)!r} is not the name of a setting; write key=value, e.g. batch=64 or optim.lr=1e-3")
    tree: dict[str, Any] = {leaf: parsed}
    for part in reversed(parents):
        tree = {part: tree}
    return tree


def merge_settings(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """The trees merged leaf by leaf; later ones override earlier ones. An empty group, as in `model_args={}`, clears the group."""
    merged: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            both = isinstance(value, Mapping) and len(value) > 0 and isinstance(merged.get(key), Mapping)
            merged[key] = merge_settings(merged[key], value) if both else value
    return merged


def explain_errors(error: ValidationError, kind: type[BaseModel], origin: str, within: str = "") -> str:
    """Every wrong key, what was given and what was expected, in one line."""
    lines = []
    for fault in error.errors(include_url=False):
        key = ".".join(str(part) for part in (within, *fault["loc"]) if part != "")
        if fault["type"] == "extra_forbidden":
            known = _known_fields(kind, fault["loc"][:-1])
            near = get_close_matches(str(fault["loc"][-1]), known, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"known here: {', '.join(known)}"
            lines.append(f"{key}: unknown key; {hint}")
        elif fault["type"] == "missing":
            lines.append(f"{key}: is required and was not given")
        elif fault["type"] in ("model_type", "dict_type") and isinstance(fault["input"], str | int | float):
            known = _known_fields(kind, fault["loc"])
            main = known[0] if known else MAIN_KEYS.get(key, "KEY")
            lines.append(f"{key} is a group of settings; write {key}.{main}={fault['input']}")
        else:
            given = "" if isinstance(fault["input"], Mapping) else f" (given: {shorten_text(repr(fault['input']))})"
            lines.append(
                f"{key}: {fault['msg'].removeprefix('Value error, ')}{given}" if key else fault["msg"].removeprefix("Value error, ")
            )
    shown = lines[:MOST_FAULTS] + ([f"and {len(lines) - MOST_FAULTS} more"] if len(lines) > MOST_FAULTS else [])
    return f"{origin}: " + " ".join("; ".join(map(_shorten_line, shown)).split())


def _shorten_line(line: str) -> str:
    """A line of a message, with the beginning of a key or a value that is too long."""
    return line if len(line) <= LONGEST_FAULT else f"{line[: LONGEST_FAULT - 3]}..."


def _known_fields(kind: type[BaseModel], where: Sequence[int | str]) -> list[str]:
    """The field names of the model at the path `where` below `kind`; [] when the path leaves the typed part."""
    for part in where:
        field = kind.model_fields.get(str(part))
        if field is None:
            continue  # the tag of a discriminated union is an element of the path, but not a key
        models = [m for m in (field.annotation, *get_args(field.annotation)) if isinstance(m, type) and issubclass(m, BaseModel)]
        if not models:
            return []
        kind = models[0]
    return list(kind.model_fields)


def to_yaml(cfg: BaseModel) -> str:
    """The resolved configuration, with every key, as YAML that `load_config` reads back to an equal object."""
    return yaml.safe_dump(cfg.model_dump(mode="json"), sort_keys=False, width=120)


def json_digest(value: object, digits: int = 16) -> str:
    """The first hex digits of the SHA-256 of `value` as canonical JSON: equal values have equal digests on every machine."""
    return digest_plain_json(value.model_dump(mode="json") if isinstance(value, BaseModel) else value, digits)
