"""The headline numbers that the overview of the working folder shows of each task."""

import json
from types import SimpleNamespace

import pytest

from encoders.gallery.bench_entries import HEADLINES_FILE, read_task_entries
from encoders.runtime.paths import records_dir
from transfer.records.record import find_records
from transfer.stats.interval import Interval
from transfer.tables.headlines import save_headlines
from transfer.tables.rows import Row, Section

NAN = float("nan")


def row(encoder, auroc, fraction=1.0, verdict="", low=0.1, shots=None):
    difference = SimpleNamespace(reported_verdict=verdict, verdict="better") if verdict else None
    made = Row(encoder, "encoder", "knn", fraction, {"auroc": Interval(auroc, low, 0.99, "made-up")}, [], shots)
    made.comparisons = [SimpleNamespace(primary=True, difference=difference)]
    return made


def section(task, *rows):
    return Section(task, "labels", "partition", "knn", "hash", list(rows))


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOGRAFT_HOME", str(tmp_path))
    for task in ("pneumonia", "view"):
        (tmp_path / "records" / task).mkdir(parents=True)
    return tmp_path


def saved():
    tasks = json.loads((records_dir() / HEADLINES_FILE).read_text())["tasks"]
    return {task: {r["encoder"]: (r["auroc"], r["verdict"]) for r in found["rows"]} for task, found in tasks.items()}


def test_the_row_with_most_labels_and_the_corrected_verdict_are_kept(home):
    save_headlines([section("pneumonia", row("a", 0.7, 0.1), row("a", 0.9, 1.0, "not distinguishable"), row("b", 0.8, shots=5))])
    assert saved() == {"pneumonia": {"a": (0.9, "not distinguishable"), "b": (0.8, "")}}


def test_later_commands_replace_their_rows_and_keep_the_others(home):
    save_headlines([section("pneumonia", row("a", 0.7), row("b", 0.6)), section("view", row("a", 0.5))])
    save_headlines([section("pneumonia", row("a", 0.8))])
    assert saved() == {"pneumonia": {"b": (0.6, ""), "a": (0.8, "")}, "view": {"a": (0.5, "")}}


def test_an_undefined_score_is_left_out_and_an_undefined_interval_is_none(home):
    save_headlines([section("pneumonia", row("a", NAN), row("b", 0.75, low=NAN))])
    assert list(saved()["pneumonia"]) == ["b"]
    (entry,) = read_task_entries(home / "records", home)
    assert entry.numbers["best AUROC"] == ".750"


def test_a_damaged_file_is_replaced_and_is_no_record(home):
    (home / "records" / HEADLINES_FILE).write_text('{"tasks": {"pneumonia": {"rows": [5]}}}')
    save_headlines([section("view", row("a", 0.5))])
    assert "view" in json.loads((home / "records" / HEADLINES_FILE).read_text())["tasks"]
    assert find_records() == []
