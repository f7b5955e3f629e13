"""Results come back from JSON with every bit, and JSON of another form is an error."""

import json
import math
import struct
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypedDict

import numpy as np
import pytest

from transfer.records.result_codec import DecodeError, decode_result, encode_result
from transfer.stats import Difference, Interval


class Pair(NamedTuple):
    x: float
    names: list[str]


class Table(TypedDict):
    curve: np.ndarray
    area: float


@dataclass
class Group:
    title: str
    values: dict[str, float]
    interval: Interval | None = None
    notes: list[str] = field(default_factory=list)


NUMBERS = [0.1 + 0.2, 1 / 3, -0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan]


def through_json(kind, value):
    return decode_result(kind, json.loads(json.dumps(encode_result(value))))


def bits(value):
    return struct.pack("<d", value)


def test_numbers_keep_every_bit():
    back = through_json(list[float], NUMBERS)
    assert list(map(bits, back)) == list(map(bits, NUMBERS))
    assert bits(through_json(float, np.float64(0.1))) == bits(0.1)


@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<i8", "<i2", "|b1", "<U7"])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (0, 4)])
def test_arrays_keep_bits_types_and_shapes(dtype, shape):
    array = np.random.default_rng(0).normal(size=shape).astype(dtype)
    if array.size and array.dtype.kind == "f":
        array.flat[0] = np.nan
    back = through_json(np.ndarray, array[::-1])
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array[::-1].tobytes())
    back[...] = array  # can be written to


VALUES = [
    (Interval, Interval(0.5, math.nan, 1.0, "method", 0.95, "note")),
    (Difference | None, Difference(0.1, -0.1, 0.3, 0.2, "better", "m", withheld="insufficient draws", margin=0.01)),
    (Difference | None, None),
    (Pair, Pair(0.25, ["a", "b"])),
    (tuple[float, ...], (0.5, 0.25)),
    (tuple[int, str], (3, "x")),
    (dict[Literal["roc", "pr"], list[Pair]], {"roc": [Pair(1.0, [])], "pr": []}),
    (list[Group], [Group("g", {"a": 0.1}, Interval(1.0, 0.9, 1.0, "m"), ["n"]), Group("h", {})]),
    (bool, True),
]


@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_values_come_back_with_their_types(kind, value):
    back = through_json(kind, value)
    assert repr(back) == repr(value)
    assert type(back) is type(value)


def test_typed_dicts_keep_their_arrays():
    back = through_json(Table, {"curve": np.array([1.0, np.nan]), "area": 0.5})
    np.testing.assert_array_equal(back["curve"], [1.0, np.nan])
    assert back["area"] == 0.5


WRONG = [
    (float, "0.5"), (float, True), (int, 1.0), (str, None), (bool, 1), (list[float], {"a": 1.0}), (Pair, [0.5]),
    (Literal["a", "b"], "c"), (Interval, [0.5, 0.4, 0.6, "m", 0.95, 7]), (Table, {"area": 0.5}), (dict[str, float], [1.0]),
    (np.ndarray, ["<f8", [3], "AAAA"]), (np.ndarray, ["no type", [1], ""]), (np.ndarray, [1.0]), (tuple[int, str], [1, "x", 2]),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), WRONG)
def test_json_of_another_form_is_an_error(kind, value):
    with pytest.raises(DecodeError):
        decode_result(kind, value)


@pytest.mark.parametrize("value", [object(), {1, 2}, np.int64(3), np.array([None, "a"]), 1j])
def test_other_types_are_not_stored(value):
    with pytest.raises(TypeError):
        encode_result(value)
