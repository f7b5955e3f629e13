"""The calls in a pickle that make containers, numbers and NumPy arrays, as functions that check every argument."""

import math
import re

import numpy as np
import torch

from encoders.importing.inert_pickle import Rebuilder
from encoders.importing.inert_record import InertRecord, UnreadableCheckpoint
from encoders.runtime.arrays import Array

_NUMBERS = re.compile(r"[<>=|]?([biufc])(1|2|4|8|16)")
_ARRAY = "numpy.ndarray"


def value_calls() -> dict[str, Rebuilder]:
    """By name, the calls that a pickle may make."""
    calls: dict[str, Rebuilder] = {
        "collections.OrderedDict": _build_dict,
        "builtins.dict": _build_dict,
        "collections.defaultdict": lambda args: {},
        "builtins.set": lambda args: _build_list("builtins.set", args),
        "builtins.frozenset": lambda args: _build_list("builtins.frozenset", args),
        "builtins.list": lambda args: _build_list("builtins.list", args),
        "torch.Size": _build_size,
        "_codecs.encode": _encode_latin,
        "copyreg._reconstructor": _reconstruct_object,
        "copyreg.__newobj__": lambda args: InertRecord(_class_name(args), args[1:]),
        f"{_ARRAY}.__setstate__": _finish_array,
    }
    for core in ("numpy.core", "numpy._core"):
        calls[f"{core}.multiarray._reconstruct"] = lambda args: InertRecord(_ARRAY)
        calls[f"{core}.multiarray.scalar"] = _build_scalar
        calls[f"{core}.numeric._frombuffer"] = _array_from_buffer
    return calls


def array_to_tensor(array: Array) -> torch.Tensor | InertRecord:
    """The tensor of an array of numbers, in the byte order of this machine; a record for other arrays, e.g. of text."""
    if array.dtype.kind not in "biufc" or array.dtype.itemsize > 16:
        return InertRecord(_ARRAY, (f"dtype {array.dtype}",))
    try:
        return torch.from_numpy(np.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True))
    except TypeError:  # a type of numbers that PyTorch does not have, e.g. extended precision
        return InertRecord(_ARRAY, (f"dtype {array.dtype}",))


def _build_dict(args: tuple[object, ...]) -> dict[object, object]:
    if not args:
        return {}
    given = list(args[0].items()) if isinstance(args[0], dict) else args[0]
    built: dict[object, object] = {}
    for pair in given if isinstance(given, list | tuple) else [None]:
        if not isinstance(pair, list | tuple) or len(pair) != 2 or not isinstance(pair[0], str | int | float):
            raise UnreadableCheckpoint("a dict is not made of pairs of a name and a value")
        built[pair[0]] = pair[1]
    return built


def _build_list(name: str, args: tuple[object, ...]) -> object:
    if not args:
        return []
    return list(args[0]) if isinstance(args[0], list | tuple) else InertRecord(name, args)


def _build_size(args: tuple[object, ...]) -> tuple[object, ...]:
    if len(args) != 1 or not isinstance(args[0], list | tuple):
        raise UnreadableCheckpoint("a torch.Size has no numbers")
    return tuple(args[0])


def _encode_latin(args: tuple[object, ...]) -> object:
    """Bytes, which pickles of protocol 2 hold as text."""
    text, code = (*args, "latin1")[:2]
    if isinstance(text, str) and code in ("latin1", "latin-1"):
        return text.encode("latin1")
    return InertRecord("_codecs.encode", args)


def _reconstruct_object(args: tuple[object, ...]) -> InertRecord:
    """An object of protocol 0 or 1: (class, built-in base class, value of the base class)."""
    record = InertRecord(_class_name(args))
    value = args[2] if len(args) > 2 else None
    if isinstance(value, dict):
        record.items = dict(value)
    elif isinstance(value, list):
        record.elements = list(value)
    elif value is not None:
        record.args = (value,)
    return record


def _class_name(args: tuple[object, ...]) -> str:
    if not args or not isinstance(args[0], InertRecord):
        raise UnreadableCheckpoint("an object has no class")
    return args[0].name


def _numpy_dtype(value: object) -> np.dtype[np.generic] | None:
    """The dtype of a record `numpy.dtype`; None unless it is of numbers."""
    if not isinstance(value, InertRecord) or value.name != "numpy.dtype" or not value.args or not isinstance(value.args[0], str):
        return None
    if not _NUMBERS.fullmatch(value.args[0]):
        return None
    big = isinstance(value.state, tuple) and value.state[1:2] == (">",)
    return np.dtype(value.args[0]).newbyteorder(">" if big or value.args[0].startswith(">") else "<")


def _build_array(shape: object, dtype: object, fortran: bool, data: object) -> object:
    numbers = _numpy_dtype(dtype)
    if numbers is None or not isinstance(data, bytes | bytearray | str):
        return InertRecord(_ARRAY, ("of other values than numbers",))
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(shape, tuple) or len(shape) > 32 or not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise UnreadableCheckpoint("an array has no shape")
    if math.prod(shape) * numbers.itemsize != len(raw):
        raise UnreadableCheckpoint(f"an array of shape {shape} and type {numbers} has {len(raw):,} bytes")
    return array_to_tensor(np.frombuffer(raw, numbers).reshape(shape, order="F" if fortran else "C"))


def _finish_array(state: tuple[object, ...]) -> object:
    shape, dtype, fortran, data = state[-4:]
    return _build_array(shape, dtype, fortran is True, data)


def _array_from_buffer(args: tuple[object, ...]) -> object:
    data, dtype, shape, order = args
    return _build_array(shape, dtype, order == "F", data)


def _build_scalar(args: tuple[object, ...]) -> object:
    numbers = _numpy_dtype(args[0])
    raw = args[1].encode("latin1") if isinstance(args[1], str) else args[1]
    if numbers is None or not isinstance(raw, bytes):
        return InertRecord("numpy scalar", args)
    value: object = np.frombuffer(raw, numbers, count=1)[0].item()
    return value
