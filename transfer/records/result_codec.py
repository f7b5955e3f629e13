"""Results as JSON and back without loss: numbers keep every bit (NaN and infinity too), arrays their type and shape.

A result is built from None, bool, int, float, str, arrays, lists, tuples, dicts with text keys, dataclasses, named tuples and typed dicts.
The JSON names no type: the reader states the type that it expects, and JSON of another form is an error. Nothing is executed, as it would
be with pickle.
"""

import base64
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints, is_typeddict

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.json_types import Json

Decoder = Callable[[Json], Any]
PLAIN_TYPES: dict[object, tuple[type, ...]] = {
    bool: (bool,),
    str: (str,),
    int: (int,),
    float: (float, int),
    types.NoneType: (types.NoneType,),
}


class DecodeError(ValueError):
    """JSON that is not of the expected type."""


def encode_result(value: object) -> Json:
    """The value as JSON, in which NaN and infinity are the words that Python's `json` reads. Raises TypeError for another type."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return float(value)  # np.float64 is a float
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufU":
        return [value.dtype.str, list(value.shape), base64.b64encode(value.tobytes()).decode()]
    if is_dataclass(value) and not isinstance(value, type):
        return [encode_result(getattr(value, field.name)) for field in fields(value)]
    if isinstance(value, Mapping):
        return {str(key): encode_result(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode_result(item) for item in value]
    raise TypeError(f"{type(value).__name__} cannot be stored as a result; use Python numbers, arrays or dataclasses")


def decode_result(kind: object, value: Json) -> Any:
    """The value of type `kind` (a type annotation) from its JSON. Raises DecodeError for JSON of another form."""
    return _decoder_of(kind)(value)


@cache
def _decoder_of(kind: Any) -> Decoder:
    origin, args = get_origin(kind), get_args(kind)
    if kind in PLAIN_TYPES:
        return _plain(PLAIN_TYPES[kind])
    if kind is np.ndarray or origin is np.ndarray:
        return _decode_array
    if origin is Literal:
        return _literal(args)
    if origin in (Union, types.UnionType):
        return _optional(args)
    if origin is list:
        return _list_of(args[0])
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        items = _list_of(args[0])
        return lambda value: tuple(items(value))
    if origin is tuple:
        parts = _fixed(args)
        return lambda value: tuple(parts(value))
    if origin in (dict, Mapping):
        return _dict_of(args[1])
    hints = get_type_hints(kind)
    if is_typeddict(kind):
        return _typed_dict(hints)
    if is_dataclass(kind):
        parts = _fixed([hints[field.name] for field in fields(kind)])
        return lambda value: kind(*parts(value))  # type: ignore[operator]
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        parts = _fixed([hints[name] for name in kind._fields])
        return lambda value: kind(*parts(value))
    raise TypeError(f"{kind} cannot be read as a result")


def _plain(allowed: tuple[type, ...]) -> Decoder:
    def decode(value: Json) -> Any:
        if type(value) not in allowed:
            raise DecodeError(f"{value!r} is not of type {allowed[0].__name__}")
        return value

    return decode


def _literal(values: tuple[object, ...]) -> Decoder:
    def decode(value: Json) -> Any:
        if value not in values:
            raise DecodeError(f"{value!r} is none of {values}")
        return value

    return decode


def _optional(kinds: tuple[object, ...]) -> Decoder:
    """The decoder of `X | None`."""
    (inner,) = (_decoder_of(kind) for kind in kinds if kind is not types.NoneType)
    return lambda value: None if value is None else inner(value)


def _list_of(kind: object) -> Decoder:
    item = _decoder_of(kind)
    return lambda value: [item(v) for v in _expect_list(value)]


def _fixed(kinds: Any) -> Decoder:
    """The decoder of a fixed number of values with a type each."""
    decoders = [_decoder_of(kind) for kind in kinds]

    def decode(value: Json) -> list[Any]:
        values = _expect_list(value)
        if len(values) != len(decoders):
            raise DecodeError(f"{len(values)} values, expected {len(decoders)}")
        return [decoder(v) for decoder, v in zip(decoders, values, strict=True)]

    return decode


def _dict_of(kind: object) -> Decoder:
    item = _decoder_of(kind)
    return lambda value: {key: item(v) for key, v in _expect_dict(value).items()}


def _typed_dict(hints: Mapping[str, object]) -> Decoder:
    decoders = {name: _decoder_of(kind) for name, kind in hints.items()}

    def decode(value: Json) -> Any:
        if set(_expect_dict(value)) != set(decoders):
            raise DecodeError(f"keys {sorted(_expect_dict(value))}, expected {sorted(decoders)}")
        return {name: decoder(_expect_dict(value)[name]) for name, decoder in decoders.items()}

    return decode


def _decode_array(value: Json) -> Array:
    try:
        kind, shape, text = _fixed([str, list[int], str])(value)
        return np.frombuffer(base64.b64decode(text, validate=True), dtype=np.dtype(kind)).reshape(shape).copy()
    except (ValueError, TypeError) as error:
        raise DecodeError(f"not an array: {error}") from error


def _expect_list(value: Json) -> list[Json]:
    if not isinstance(value, list):
        raise DecodeError(f"{type(value).__name__}, expected a list")
    return value


def _expect_dict(value: Json) -> dict[str, Json]:
    if not isinstance(value, dict):
        raise DecodeError(f"{type(value).__name__}, expected an object")
    return value
