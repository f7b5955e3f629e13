"""The harness finds each kind of fault in a reader that has all of them, and mutations depend on nothing but the seed."""

import json
import os
import re
import time
from random import Random

import numpy as np
import pytest

from encoders.runtime.errors import InputError
from tests.fuzz.harness import FuzzClass, Refused, judge, require_equal
from tests.fuzz.mutators import ODD_VALUES, mutate_bytes, mutate_text, mutate_tree
from tests.fuzz.runner import run_class

ENDS = ["right", "refused", "quarantined", "wrong", "two lines", "nameless", "traceback", "crash", "memory", "hidden memory"]


class FaultyReader(FuzzClass):
    """A reader that does what its input says."""

    name = "a faulty reader"

    def prepare(self, folder):
        (folder / "order.txt").write_text("right")

    def mutate(self, folder, rng):
        self.made = getattr(self, "made", -1) + 1
        (folder / "order.txt").write_text(ENDS[int(folder.name)])
        return ENDS[int(folder.name)]

    def check(self, folder):
        match (folder / "order.txt").read_text():
            case "refused":
                raise InputError(f"{folder / 'order.txt'} is damaged; copy it again")
            case "quarantined":
                raise Refused("listed as damaged")
            case "wrong":
                require_equal(1, 2, "the value")
            case "two lines":
                raise InputError("order.txt is damaged:\nat 3")
            case "nameless":
                raise InputError("something is damaged")
            case "traceback":
                json.loads("{")
            case "crash":
                os.abort()
            case "memory":
                np.ones(3 << 30, np.uint8)
            case "hidden memory":
                try:
                    np.ones(3 << 30, np.uint8)
                except MemoryError as error:
                    raise InputError("order.txt is too large") from error


def test_the_harness_counts_every_kind_of_end():
    outcome = run_class(FaultyReader(), range(len(ENDS)))
    want = {"right": 1, "refused": 2, "wrong": 1, "traceback": 3, "crash": 1, "memory": 2}
    assert dict(outcome.counts) == want
    assert [(bad.number, bad.change, bad.verdict) for bad in outcome.faults] == [
        (i, ENDS[i], verdict) for i, verdict in enumerate(["wrong", *["traceback"] * 3, "crash", "memory", "memory"], 3)
    ]


class SlowReader(FaultyReader):
    name = "a slow reader"
    wall_seconds = 1.0

    def mutate(self, folder, rng):
        return "nothing"

    def check(self, folder):
        if folder.name == "1":
            time.sleep(30)


def test_an_input_without_end_is_a_hang_and_the_next_one_is_run():
    outcome = run_class(SlowReader(), range(3))
    assert dict(outcome.counts) == {"right": 2, "hang": 1}
    assert outcome.faults[0].number == 1


def test_a_refusal_is_wrong_where_every_input_is_valid(tmp_path):
    class Valid(FaultyReader):
        all_valid = True

    (tmp_path / "order.txt").write_text("refused")
    assert judge(FaultyReader(), tmp_path)[0] == "refused"
    verdict, detail = judge(Valid(), tmp_path)
    assert verdict == "wrong"
    assert re.fullmatch(r"a valid input is refused: .*order\.txt is damaged; copy it again", detail)
    (tmp_path / "order.txt").write_text("right")
    assert judge(Valid(), tmp_path) == ("right", "")


def test_an_unchanged_input_that_is_refused_stops_the_class(tmp_path):
    class Never(FaultyReader):
        def check(self, folder):
            raise InputError("order.txt: no")

    assert judge(Never(), tmp_path)[0] == "traceback"  # the folder has no such file


@pytest.mark.parametrize(("found", "expected"), [([1.0, np.nan], [1.0, np.nan]), ({"a": np.zeros(2)}, {"a": [0.0, 0.0]}), ("a", "a")])
def test_equal_values_pass(found, expected):
    require_equal(found, expected, "value")


def test_mutations_follow_from_the_seed_and_change_something():
    data, text, tree = bytes(range(256)) * 8, "a,b\n1,2\n3,4", {"a": [1, {"b": "c"}], "d": 0.5}
    for mutate, value in ((mutate_bytes, data), (mutate_text, text), (mutate_tree, tree)):
        first, again = ([mutate(value, Random(f"{i}")) for i in range(300)] for _ in range(2))
        assert list(map(repr, first)) == list(map(repr, again))
        assert sum(repr(changed) != repr(value) for changed, _ in first) > 250
    assert tree == {"a": [1, {"b": "c"}], "d": 0.5}, "the tree itself was changed"
    changed = " ".join(repr(mutate_tree(tree, Random(f"{i}"))[0]) for i in range(3000))
    assert all(repr(odd)[:50] in changed for odd in ODD_VALUES)
