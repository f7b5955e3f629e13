"""`compare` and `report` print and write the same bytes whether their results were kept, computed now, or cannot be kept at all; and with
kept results they read no array."""

import re

import numpy as np
import pytest

from encoders.runtime.paths import records_dir
from tests.transfer.cli.test_cli import call
from tests.transfer.report.test_report import made
from tests.transfer.tables.test_comparisons import record as one_image_a_patient
from transfer.records import stored_arrays
from transfer.records.record import GROUP_PREFIX, Record, write_record
from transfer.records.statistics_file import FOLDER, StatisticsFile

OPERATING = ("--operating", "sensitivity=0.9", "--prevalence", "0.1")


def grouped(record):
    """The record with group columns and studies, and a warning that names an image."""
    n = len(record.arrays["test_y"])
    groups = {GROUP_PREFIX + "sex": np.resize(["F", "F", "F", "M", "M"], n), GROUP_PREFIX + "age": np.resize(np.arange(20.0, 80.0), n)}
    studies = {f"{part}_study": np.char.add("s", (np.arange(len(record.arrays[f"{part}_y"])) // 2).astype(str)) for part in ("val", "test")}
    meta = record.meta.model_copy(update={"warnings": [f"odd image {record.arrays['test_key'][0]}"]})
    return Record(meta, {**record.arrays, **groups, **studies})


def holed(record):
    """The record with unknown labels, and a label with a single class."""
    y = record.arrays["test_y"].copy()
    y[::7, 0], y[:, 2] = np.nan, 0
    return Record(record.meta, {**record.arrays, "test_y": y})


def every(seed=0, **more):
    """Two pretrained encoders, ImageNet and random weights. seed: of their scores."""
    encoders = ("mine", "encoder", 1.5), ("mine2", "encoder", 0.6), ("imagenet_net", "imagenet", 0.4), ("random_net", "random", 0.1)
    return [made(name, role, skill, seed=seed, **more) for name, role, skill in encoders]


def with_draws(**more):
    """All labels, and three draws of a tenth of them."""
    tenth = [r for draw in range(3) for r in every(fraction=0.1, draw=draw, seed=draw + 1, **more)]
    return every(**more) + tenth


STUDIES = {
    "binary with draws, groups and studies": (
        lambda: list(map(grouped, with_draws())),
        [("compare", "--by", "sex,age", *OPERATING), ("compare", "--score-by", "study"), ("report", *OPERATING)],
    ),
    "folds": (
        lambda: [r for fold in range(2) for r in every(fold=fold, folds=2, split=f"h{fold}", seed=fold)],
        [("compare", "--margin", "0.02", *OPERATING), ("report",)],
    ),
    "labels with unknown values and one class": (
        lambda: list(map(holed, every(kind="multilabel", classes=("a", "b", "c")))),
        [("compare", *OPERATING), ("report", "--latex", "t.tex")],
    ),
    "classes": (lambda: every(kind="multiclass", classes=("a", "b", "c")), [("compare",), ("report",)]),
    "few-shot": (
        lambda: [one_image_a_patient(n, s, r, episodes={1: 2.0, 8: 1.0}) for n, s, r in (("m", 1.0, "encoder"), ("i", 0.8, "imagenet"))],
        [("compare",), ("report",)],
    ),
    "seeds of a recipe": (
        lambda: (
            [
                Record(r.meta.model_copy(update={"recipe": "same", "pretraining_seed": i}), r.arrays)
                for i, r in enumerate(made(f"run{i}", skill=1 + i / 9, seed=i) for i in range(3))
            ]
            + every()[2:]
        ),
        [("compare",), ("report",)],
    ),
    "acquisition shift": (
        lambda: every() + [made(n, skill=0.3, shift="gamma", strength=2, amount=1.5, shift_version=1) for n in ("mine", "imagenet_net")],
        [("compare",), ("report",)],
    ),
}


def run_all(commands, folder, monkeypatch):
    """What all commands print and write, without the time of the page."""
    out = {}
    monkeypatch.chdir(folder)
    for i, words in enumerate(commands):
        for path in written_files(folder):
            path.unlink()
        done = call(*words)
        assert done.exit_code == 0, done.output
        out[i, "printed"] = done.output
        out |= {(i, p.name): re.sub(r"report of [-0-9]+ [0-9:]+ UTC", "", p.read_text()) for p in written_files(folder)}
    return out


def written_files(folder):
    """The tables and pages of a command."""
    return [p for place in (folder, records_dir()) for p in place.glob("*.*") if p.suffix in (".csv", ".md", ".tex", ".html")]


@pytest.fixture
def settled(monkeypatch):
    """Files count as settled at once."""
    monkeypatch.setattr(stored_arrays, "SETTLED_SECONDS", -1.0)


@pytest.mark.parametrize("name", STUDIES)
def test_kept_results_give_the_same_bytes_without_reading_an_array(name, tmp_path, monkeypatch, settled):
    make, commands = STUDIES[name]
    for record in make():
        write_record(record)
    first = run_all(commands, tmp_path, monkeypatch)
    assert list(records_dir().rglob(f"{FOLDER}/*.json"))
    with monkeypatch.context() as patch:
        patch.setattr(stored_arrays.StoredArrays, "__getitem__", lambda self, key: pytest.fail(f"{key} was read"))
        patch.setattr(stored_arrays, "read_members", lambda *_: pytest.fail("a file of arrays was read"))
        again = run_all(commands, tmp_path, patch)
    monkeypatch.setattr(StatisticsFile, "get", lambda self, key: (False, None))
    assert first == again == run_all(commands, tmp_path, monkeypatch)


def test_a_new_record_enters_the_tables_and_an_edited_one_is_refused(tmp_path, monkeypatch, settled):
    for record in every()[:3]:
        write_record(record)
    run_all([("compare",)], tmp_path, monkeypatch)
    path = write_record(every()[3])
    assert "random_net" in run_all([("compare",)], tmp_path, monkeypatch)[0, "printed"]
    with np.load(path.with_suffix(".npz")) as file:
        arrays = {key: file[key] for key in file.files}
    np.savez_compressed(path.with_suffix(".npz"), **{**arrays, "test_scores": arrays["test_scores"] / 2})
    with pytest.raises(ValueError, match="changed after it was written"):
        call("compare")
