"""Which kind of value a setting takes: `true` is no number and 1 is no `true`, although Python and pydantic read one as the other."""

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

NO_NUMBER = "expected a number, not true or false"
NO_BOOL = "expected true or false"


def find_wrong_kind(kind: object, value: object) -> str:
    """What is wrong with a value for a field of the type `kind`, also inside lists and mappings; "" if nothing is. The rest is pydantic's.

    Wrong are true or false for a number, and a number or a text for true or false."""
    members = list_union_members(kind)
    if isinstance(value, bool):
        return NO_NUMBER if any(map(_is_number, members)) and not any(map(_takes_bool, members)) else ""
    if isinstance(value, int | float | str):
        return NO_BOOL if members and all(member in (bool, None, type(None)) for member in members) and bool in members else ""
    if not isinstance(value, Mapping | list | tuple):
        return ""
    faults = [_find_wrong_element(member, value) for member in members if get_args(member) and get_origin(member) is not Literal]
    return faults[0] if faults and all(faults) else ""


def list_union_members(kind: object) -> list[object]:
    """The types that a type stands for: `int` and `None` of `int | None`."""
    if get_origin(kind) is Annotated:
        return list_union_members(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return [member for part in get_args(kind) for member in list_union_members(part)]
    return [kind]


def _find_wrong_element(kind: object, value: Mapping[Any, object] | list[object] | tuple[object, ...]) -> str:
    """The first fault of the elements of a list, or of the values of a mapping, for a type such as `tuple[float, float]`."""
    parts = [part for part in get_args(kind) if part is not Ellipsis]
    if isinstance(value, Mapping):
        return next((f"{key}: {fault}" for key, one in value.items() if (fault := find_wrong_kind(parts[-1], one))), "")
    kinds = parts if len(parts) == len(value) else [parts[0]] * len(value)
    return next((fault for part, one in zip(kinds, value, strict=True) if (fault := find_wrong_kind(part, one))), "")


def _is_number(kind: object) -> bool:
    return kind in (int, float) or (get_origin(kind) is Literal and any(type(one) is int for one in get_args(kind)))


def _takes_bool(kind: object) -> bool:
    return kind in (bool, object, Any) or (get_origin(kind) is Literal and any(type(one) is bool for one in get_args(kind)))
