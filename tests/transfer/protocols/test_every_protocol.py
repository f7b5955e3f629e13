"""What the bench relies on in every protocol of the registry, and a protocol that is not in the package."""

import inspect
from dataclasses import replace
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
from pydantic import Field

from encoders.runtime.config import Config
from tests.transfer import toys
from tests.transfer.bench.test_bench import NET, add, run
from tests.transfer.cli.test_cli import call
from transfer.bench.bench import load_protocols
from transfer.bench.cell import hash_protocol
from transfer.protocols import PROTOCOLS, FittedProtocol, ProtocolEntry, describe_protocol, protocol_help
from transfer.protocols.common import validation_score
from transfer.protocols.contract import Needs
from transfer.records import record
from transfer.records.record_ids import hide_names
from transfer.tasks import load, task

# Settings under which a protocol takes seconds; one that is missing here runs with its defaults.
QUICK = {
    "fewshot": ["fewshot.episodes=6", "fewshot.shots=[1,2]"],
    "finetune": ["finetune.min_steps=3", "finetune.max_steps=3", "finetune.evaluations=1", "finetune.batch=8"],
    "linear": ["linear.steps=5"],
    "mil": ["mil.epochs=2", "mil.hidden=8"],
}
TASKS = {
    "binary": {"labels": ["sick"], "kind": "binary", "classes": ["sick"]},
    "multilabel": {
        "labels": ["sick", "rare"],
        "kind": "multilabel",
        "classes": ["sick", "rare"],
    },  # `rare` is NaN for a fifth of the images
    "multiclass": {"labels": ["grade"], "kind": "multiclass", "classes": ["high", "low", "mid"]},
}
BUILTINS = (dict, list, tuple, str, int, float, bool, type(None))


class Spy:
    """A protocol that keeps the arguments and the result of every `fit`."""

    def __init__(self, protocol):
        self.protocol, self.calls = protocol, []
        self.Config, self.VERSION, self.NEEDS = protocol.Config, protocol.VERSION, protocol.NEEDS

    def fit(self, cfg, train, val, select, log):
        fitted = self.protocol.fit(cfg, train, val, select, log)
        self.calls.append((train, val, fitted))
        return fitted


@pytest.fixture
def cohort(tmp_path):
    """40 patients with two slides of two tiles each."""
    return toys.add_slides(toys.store(tmp_path / "toy.h5", patients=40, each=4), [f"s{i // 2}" for i in range(160)])


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_sees_no_test_row_before_it_has_chosen_and_gives_finite_probabilities_twice_the_same(name, kind, cohort, monkeypatch):
    add(cohort, **TASKS[kind])
    spy = Spy(PROTOCOLS[name].load())
    monkeypatch.setitem(PROTOCOLS, name, replace(PROTOCOLS[name], load=lambda: spy))
    records = [run(protocols=[name], overrides=QUICK.get(name, []), recompute=True).records[0] for _ in range(2)]
    assert [r.meta.error for r in records] == [None, None]
    first, second = (r.arrays for r in records)
    for train, val, fitted in spy.calls:
        hidden_val = set(hide_names(val.key))  # records hold pseudonyms
        assert not {*hide_names(train.key), *hidden_val} & {*first["test_key"]}
        assert hidden_val == set(first["val_key"])
        assert isinstance(fitted, FittedProtocol)
        assert fitted.selection
        assert not list(foreign_values(fitted.selection))
    for part in ("val", "test"):
        scores, y = first[f"{part}_scores"], first[f"{part}_y"]
        assert scores.shape == y.shape == (len(first[f"{part}_key"]), len(TASKS[kind]["classes"]))
        assert scores.dtype == np.float64
        assert ((scores >= 0) & (scores <= 1)).all()
        np.testing.assert_array_equal(scores, second[f"{part}_scores"])
    assert records[0].meta.selection == records[1].meta.selection


def foreign_values(value):
    """Whatever in a selection JSON could not hold as it is."""
    if type(value) not in BUILTINS:
        yield value
    for inside in value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ():
        yield from foreign_values(inside)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_protocol_declares_its_members_and_describes_its_settings(name):
    entry = PROTOCOLS[name]
    protocol = entry.load()
    assert protocol.NEEDS in get_args(Needs)
    assert entry.slides == (protocol.NEEDS == "bags")
    assert isinstance(protocol.VERSION, int)
    assert list(inspect.signature(protocol.fit).parameters) == ["cfg", "train", "val", "select", "log"]
    assert inspect.signature(protocol.fit).parameters["select"].default is validation_score
    assert all(field.description for field in protocol.Config.model_fields.values())
    assert entry.title == describe_protocol(name)
    assert f"{name} ({entry.help})" in protocol_help()


@pytest.mark.parametrize("name", PROTOCOLS)
def test_the_hash_of_a_protocol_changes_with_its_version_but_not_with_the_seed(name):
    protocol, seeded = PROTOCOLS[name].load(), load_protocols([name], seed=7)[name][1]
    cfg = load_protocols([name], seed=0)[name][1]
    assert hash_protocol(name, protocol.VERSION, seeded) == hash_protocol(name, protocol.VERSION, cfg)
    assert hash_protocol(name, protocol.VERSION + 1, cfg) != hash_protocol(name, protocol.VERSION, cfg)


class ToyConfig(Config):
    """Settings of a protocol outside the package."""

    shrink: float = Field(1.0, description="the score is 0.5 + shrink * (prevalence - 0.5)")


class ToyFitted(FittedProtocol):
    """The same score for every row."""

    def __init__(self, score):
        self.score, self.selection = score, {"score": float(score[0])}

    def scores(self, rows):
        return np.tile(self.score, (len(rows), 1))


def fit_toy(cfg, train, val, select=validation_score, log=None):
    return ToyFitted(0.5 + cfg.shrink * (np.nanmean(train.y, axis=0) - 0.5))


def test_a_protocol_from_outside_the_package_runs_through_the_command_line(cohort, monkeypatch):
    toy = SimpleNamespace(Config=ToyConfig, VERSION=1, NEEDS="pooled", fit=fit_toy)
    monkeypatch.setitem(PROTOCOLS, "toy", ProtocolEntry("toy probe", "the prevalence", lambda: toy))
    add(cohort)
    done = call("bench", "toy.shrink=0.5", "--protocol", "toy", "--encoder", NET, "--baseline", "none", "--device", "cpu")
    assert done.exit_code == 0, done.output
    (path,) = [p for p in record.find_records() if "-toy-" in p.name]
    made = record.read_record(path)
    assert made.meta.protocol_config == {"shrink": 0.5}
    assert made.meta.episodes == {}
    loaded = load.load_task(task.read_task("sick"))
    prevalence = loaded.y[loaded.split.rows("train")].mean()
    assert made.meta.selection["score"] == pytest.approx(0.5 + 0.5 * (prevalence - 0.5))
    np.testing.assert_array_equal(made.arrays["test_scores"], made.meta.selection["score"])
