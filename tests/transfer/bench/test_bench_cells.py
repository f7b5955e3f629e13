"""The cells of an array task in one process: features once, a failure of its own for each cell, and no work done twice."""

import json
import shlex

import pytest

from encoders.features import embed
from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir
from tests.transfer import toys
from transfer.bench.bench_cells import RunOutcome, compute_cells
from transfer.bench.bench_folder import read_status
from transfer.bench.slurm_array import BenchCell
from transfer.tasks.task import Task, save_task

ENCODER = "random_resnet10t:size=32,channels=1"
NONE = ("--baseline", "none")


def lines_of(*cells: tuple[str, str]) -> list[str]:
    """The lines of cells.txt for (task, protocol) of one encoder."""
    return [shlex.join(BenchCell(ENCODER, task, protocol, NONE).arguments) for task, protocol in cells]


def test_an_encoder_embeds_a_store_once_for_all_tasks_and_protocols_and_a_restart_computes_what_is_missing(tmp_path, monkeypatch, capsys):
    path = toys.store(tmp_path / "one.h5", patients=20)
    for name in ("one", "two"):
        save_task(Task(name=name, store=[str(path)], labels=["sick"], classes=["sick"], kind="binary", modality="cxr"))
    embedded = []
    batches = embed._feature_batches

    def count(*given):
        embedded.append(len(given[3]))
        return batches(*given)

    monkeypatch.setattr(embed, "_feature_batches", count)
    lines, status = lines_of(("one", "knn"), ("one", "fewshot"), ("two", "knn"), ("two", "fewshot")), tmp_path / "status"
    assert compute_cells(lines, status, [0, 1, 2]) == 0
    assert "2 of 3 cells ended, about " in capsys.readouterr().out
    assert len(embedded) == 1, "one pass over the images of the store"
    assert [read_status(status, i) for i in range(4)] == [0, 0, 0, None]
    assert not list(status.glob("*.running"))
    (status / "2").write_text("1\nbefore\n")
    capsys.readouterr()
    assert compute_cells(lines, status, [0, 1, 2, 3]) == 0
    out = capsys.readouterr().out
    assert "cell 0 is done" in out
    assert "1 results computed, 1 from records" in out
    assert len(embedded) == 1
    identities = [json.loads(file.read_text())["identity"] for file in records_dir().glob("*/*.json")]
    assert sorted((r["task"], r["protocol"]) for r in identities) == [(t, p) for t in ("one", "two") for p in ("fewshot", "knn")]


def test_a_cell_fails_for_its_own_reasons_only(tmp_path, capsys):
    def run(options):
        calls.append((options.task, options.protocol))
        if options.task == "broken":
            raise OSError("no space left")
        if "mil" in options.protocol:
            raise InputError("the images are no tiles of slides")
        failed = {"linear": "the fit did not converge"} if "linear" in options.protocol else {}
        return RunOutcome(failed, [f"{options.task}/{options.protocol}.json"])

    calls, status = [], tmp_path / "status"
    cells = [("a", "knn"), ("a", "mil"), ("broken", "knn"), ("b", "knn"), ("b", "linear")]
    lines = [*lines_of(*cells), "--encoder e --drawz 2"]
    assert compute_cells(lines, status, range(6), run) == 4
    assert calls == [("a", "knn,mil"), ("a", "knn"), ("a", "mil"), ("broken", "knn"), ("b", "knn,linear")]
    assert [read_status(status, i) for i in range(6)] == [0, 2, 1, 0, 1, 2]
    assert (status / "1").read_text() == "2\nthe images are no tiles of slides\n"
    assert (status / "2").read_text() == "1\nOSError: no space left\n"
    assert (status / "4").read_text() == "1\nthe fit did not converge\n"
    assert "drawz" in (status / "5").read_text()
    lists = {path.name: path.read_text() for path in status.glob("*.records")}
    assert lists == {"0.records": "a/knn.json\n", "3.records": "b/knn,linear.json\n"}
    assert "error: cell 1: the images are no tiles of slides" in capsys.readouterr().err


@pytest.mark.parametrize(("numbers", "message"), [(["0", "7"], "has 1 lines, from 0, and no line 7"), (["0"], "cannot read")])
def test_wrong_files_and_numbers_are_named(tmp_path, numbers, message):
    from transfer.cli.bench_cells import bench_cells

    path = tmp_path / "cells.txt"
    if message.startswith("has"):
        path.write_text("--encoder e\n")
    with pytest.raises(InputError, match=message):
        bench_cells(path, tmp_path / "status", [int(n) for n in numbers])
