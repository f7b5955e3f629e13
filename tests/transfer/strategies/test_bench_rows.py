"""Strategies in the benchmark: a record each, a table with cost and paired differences, array cells, and a run that was killed."""

import csv
import os
import shlex
import signal
from functools import partial

import numpy as np
import pytest
from sklearn.metrics import recall_score

from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir
from tests.forked import run_forked
from tests.transfer import toys
from tests.transfer.bench.test_bench import add, run
from tests.transfer.cli.test_cli import call
from transfer.bench.bench_cells import compute_cells
from transfer.bench.bench_folder import read_status
from transfer.bench.slurm_array import list_bench_cells
from transfer.protocols import finetune_training
from transfer.records import record
from transfer.report.page import render_page
from transfer.strategies.names import expand_strategies
from transfer.tables.build import build_sections
from transfer.tables.strategy_rows import build_strategy_tables, record_calibration_error, record_rare_recall

NET = "random_vit_tiny_patch16_224:size=32,channels=1,model.depth=2,model.embed_dim=48,model.num_heads=3"
TEXTS = ("task", "store", "labels", "split", "partition", "encoder", "encoder_sha256", "card", "protocol", "protocol_hash")
QUICK = ["finetune.min_steps=4", "finetune.max_steps=4", "finetune.evaluations=2", "finetune.batch=4", "finetune.augment.preset=none"]


@pytest.fixture
def cohort(tmp_path):
    where = toys.store(tmp_path / "toy.h5", patients=20)
    add(where)
    return where


def bench(strategies, **fields):
    protocols, overrides = expand_strategies(["finetune"], strategies, QUICK)
    return run(NET, protocols=protocols, overrides=overrides, **fields)


def test_strategies_are_rows_of_one_family_with_cost_and_a_paired_difference(cohort):
    records = bench(["linear", "full", "last=1"]).records
    assert [r.identity.protocol for r in records] == ["finetune-linear", "finetune", "finetune-last=1"]
    ((full, linear, last),) = build_strategy_tables(build_sections(records))
    assert [line.strategy for line in (full, linear, last)] == ["full", "linear", "last=1"]
    assert (full.family, full.difference) == (linear.family, None)
    assert linear.trained_parameters < last.trained_parameters < full.trained_parameters
    assert linear.memory_bytes < last.memory_bytes < full.memory_bytes
    assert {(line.images_seen, line.validations) for line in (full, linear, last)} == {(16, 2)}
    for line in (linear, last):
        assert line.difference.value == pytest.approx(line.row.metrics["auroc"].value - full.row.metrics["auroc"].value)
    sections = build_sections(records)
    page = render_page(records, sections, {})
    assert page.count("Strategies of fine-tuning</h3>") == 1
    for line in (full, linear, last):
        assert page.count(f">{line.trained_parameters:,}</td>") == 1
    assert "Strategies of fine-tuning" not in render_page(records[:1], build_sections(records[:1]), {})
    other = run(NET, protocols=["finetune-lpft"], overrides=[*QUICK, "finetune.head_lr=2"]).records
    assert len(build_strategy_tables(build_sections([*records, *other]))[0]) == 3, "other settings are another family"


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel"])
def test_recall_of_the_rarest_class_is_that_of_scikit_learn(kind):
    draw = np.random.default_rng(0)
    code = np.repeat([0, 1, 2], [30, 12, 6])
    y = np.eye(3)[code] if kind == "multiclass" else np.stack([code == 1, code == 2], 1)[:, : 1 if kind == "binary" else 2].astype(float)
    scores = np.clip(0.3 + 0.3 * y + draw.normal(0, 0.25, y.shape), 0.001, 0.999)
    scores = scores / scores.sum(1, keepdims=True) if kind == "multiclass" else scores
    names = np.arange(48).astype(str)
    arrays = {f"{part}_{c}": v for part in ("val", "test") for c, v in (("key", names), ("patient", names), ("y", y), ("scores", scores))}
    classes = {"binary": ["one"], "multilabel": ["one", "two"], "multiclass": ["a", "b", "c"]}[kind]
    identity = record.Identity(**dict.fromkeys(TEXTS, ""))
    rare, recall = record_rare_recall(record.Record(record.Meta(identity=identity, kind=kind, classes=classes), arrays))
    assert rare == {"binary": "one", "multilabel": "two", "multiclass": "c"}[kind]
    if kind == "multiclass":
        want = recall_score(code, scores.argmax(1), labels=[2], average=None)[0]
    else:  # Youden's threshold: the cut with the largest sum of both recalls
        column = y[:, -1]
        cuts = np.unique(scores[:, -1])
        gain = [np.mean(scores[column == 1, -1] >= c) - np.mean(scores[column == 0, -1] >= c) for c in cuts]
        want = np.mean(scores[column == 1, -1] >= cuts[int(np.argmax(gain))])
    assert recall == pytest.approx(want)


def test_the_command_prints_and_writes_the_table(cohort):
    words = ["--encoder", NET, "--baseline", "none", "--protocol", "finetune", "--strategies", "linear,full", "--device", "cpu", *QUICK]
    done = call("bench", *words)
    assert done.exit_code == 0, done.output
    assert "strategies of fine-tuning: sick" in done.output
    lines = list(csv.DictReader((records_dir() / "strategies.csv").read_text().splitlines()))
    assert [line["strategy"] for line in lines] == ["full", "linear"]
    assert (lines[0]["memory_source"], lines[1]["versus"]) == ("counted", "full")
    stored = record.read_record(next(records_dir().glob("sick/*finetune-linear*.json")))
    assert float(lines[1]["ece"]) == pytest.approx(record_calibration_error(stored), abs=1e-6)
    assert (records_dir() / "strategies.md").read_text().count("\n| ") == 4
    assert "strategies of fine-tuning" in call("compare", "--protocol", "finetune").output
    with pytest.raises(InputError, match="finetune.lora.rank has no effect"):
        call("bench", *words, "finetune.lora.rank=2")


def test_an_array_has_a_cell_for_each_strategy_that_fails_alone(cohort, tmp_path):
    protocols, words = expand_strategies(["finetune"], ["linear", "last=9"], QUICK)
    cells, _, _ = list_bench_cells([NET], ["sick"], protocols, [], words)
    lines = [shlex.join([*cell.arguments, "--device", "cpu"]) for cell in cells]
    assert [cell.protocol for cell in cells] == ["finetune-linear", "finetune-last=9"]
    assert compute_cells(lines, tmp_path / "status", [0, 1]) == 1
    assert [read_status(tmp_path / "status", n) for n in (0, 1)] == [0, 1]


def bench_and_die(strategies, steps):
    """Runs the benchmark and kills the process in the given step of training."""
    taken, real = [], finetune_training.training_step

    def step(*given):
        taken.append(1)
        if len(taken) == steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given)

    finetune_training.training_step = step
    bench(strategies)


def test_a_killed_benchmark_goes_on_and_ends_with_equal_scores(cohort, tmp_path):
    strategies = ["lpft", "gradual"]
    killed = run_forked(partial(bench_and_die, steps=7), strategies, logs=tmp_path / "log")
    assert killed.status == -signal.SIGKILL, killed.errors
    assert len(list(records_dir().glob("sick/*.json"))) == 1
    resumed = bench(strategies)
    assert (resumed.reused, resumed.computed) == (1, 1)
    again = bench(strategies, recompute=True)
    for a, b in zip(resumed.records, again.records, strict=True):
        assert a.meta.selection == b.meta.selection
        assert all(np.array_equal(a.arrays[name], b.arrays[name]) for name in ("val_scores", "test_scores"))
