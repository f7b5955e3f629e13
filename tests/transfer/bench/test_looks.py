"""A bench logs which images it scored: another seed, renamed keys, a dropped image and a lost ledger do not reset their count."""

import csv
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from encoders.store.store import Store
from encoders.store.write import save_store
from tests.store_edits import edit_store
from tests.transfer import toys
from tests.transfer.bench.test_bench import NET, OTHER, add, run
from transfer.cli.main import app
from transfer.records import record
from transfer.records.ledger import ledger_path, read_ledger
from transfer.records.looks import gather_looks
from transfer.records.record_ids import hide_names
from transfer.records.test_usage import count_split_usage
from transfer.tasks import load, task


@pytest.fixture
def first(tmp_path):
    """The records of two protocols on the task `sick`."""
    add(toys.store(tmp_path / "toy.h5", patients=40))
    return run().records


def bench_again(where, name="sick", **fields):
    """The one record of another bench of a changed store or split, under the same or another task."""
    (tasks := task.tasks_dir() / f"{name}.yaml").unlink(missing_ok=True)
    add(where, name, **fields)
    assert tasks.is_file()
    return run(tasks=[name], protocols=["knn"]).records[0]


def save_changed(path, where, keys=None, kept=slice(None)):
    """A store with the same images, with other keys or fewer images."""
    old = Store.open(path)
    rows = np.arange(len(old))[kept]
    save_store(
        where, old.images(rows), patient=old.column("patient")[rows].tolist(), labels={"sick": old.labels("sick")[rows]}, dataset="toy"
    )
    names = (keys or (lambda key: key))(old.column("key")[rows])
    with edit_store(where) as file:
        file["index"]["key"][:] = names.tolist()
    return where


def overlap(before, after):
    """For each test image of `after`, how many records of `before` scored it, by its pixels in the stores of today."""
    usage = count_split_usage([after], gather_looks([]))[after.identity.split]
    own = sum(line["split"] == after.identity.split for line in read_ledger())
    return sorted((usage.times - own).tolist())


def test_another_seed_counts_for_the_images_that_both_test_parts_share(first, tmp_path):
    after = bench_again(tmp_path / "toy.h5", split={"seed": 1})
    assert after.identity.split != first[0].identity.split
    shared = len(set(after.arrays["test_key"]) & set(first[0].arrays["test_key"]))
    m = len(after.arrays["test_key"])
    assert 0 < shared < m
    assert overlap(first, after) == [0] * (m - shared) + [2] * shared


@pytest.mark.parametrize("name", ["sick", "renamed"])
def test_renamed_keys_and_another_task_do_not_reset_the_count(first, tmp_path, name):
    before = load.load_task(task.read_task("sick"))
    where = save_changed(tmp_path / "toy.h5", tmp_path / "new.h5", keys=lambda key: np.char.add("folder/", key))
    after = bench_again(where, name)
    loaded = load.load_task(task.read_task(name))
    tested = {*before.sha256[before.split.rows("test")]}
    seen = [2 * (s in tested) for s in loaded.sha256[loaded.split.rows("test")]]
    assert not {*after.arrays["test_key"]} & {*first[0].arrays["test_key"]}
    assert 2 in seen
    assert overlap(first, after) == sorted(seen)


def test_a_dropped_image_does_not_reset_the_count(first, tmp_path):
    tested = {*first[0].arrays["test_key"]}
    dropped = next(i for i, key in enumerate(hide_names(Store.open(tmp_path / "toy.h5").column("key"))) if key in tested)
    kept = np.delete(np.arange(80), dropped)
    after = bench_again(save_changed(tmp_path / "toy.h5", tmp_path / "new.h5", kept=kept))
    shared = len(tested & set(after.arrays["test_key"]))
    assert after.identity.split != first[0].identity.split
    assert overlap(first, after) == [0] * (len(after.arrays["test_key"]) - shared) + [2] * shared


def test_without_the_ledger_the_table_counts_the_records(first, tmp_path):
    run(OTHER, protocols=["knn"])
    ledger_path().unlink()
    done = CliRunner().invoke(app, ["compare", "--csv", str(tmp_path / "t.csv")])
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert (
        "every test image was scored at least 3 times, by 2 encoders and 2 protocols (counted from records, as there is no ledger)" in text
    )
    with open(tmp_path / "t.csv") as file:
        assert {(line["test_image_scored_at_least"], line["test_image_scored_most"]) for line in csv.DictReader(file)} == {("3", "3")}
    assert CliRunner().invoke(app, ["report", "--out", str(tmp_path / "r.html")]).exit_code == 0
    assert "at least 3 times (from records, no ledger found)" in (tmp_path / "r.html").read_text()


def test_records_and_their_ledger_outside_the_working_folder_are_counted_too(first, tmp_path):
    run(OTHER, protocols=["knn"])
    moved = tmp_path / "moved"
    shutil.move(ledger_path().parent, moved)
    done = CliRunner().invoke(app, ["compare", str(moved / "sick")])
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert "every test image was scored at least 3 times, by 2 encoders and 2 protocols" in text
    assert "no ledger" not in text


def test_a_record_of_an_earlier_version_is_given_its_test_set_when_a_bench_reuses_it(first):
    for r in first:
        record.write_record(record.Record(r.meta.model_copy(update={"test_set": ""}), r.arrays))
    again = run()
    assert (again.computed, again.reused) == (0, 2)
    assert [r.meta.test_set for r in again.records] == [r.meta.test_set for r in first]
    assert len(read_ledger()) == 2
    assert [record.read_record(record.record_path(r.identity)).meta.test_set for r in first] == [r.meta.test_set for r in first]
    assert [r.meta for r in run(NET).records] == [r.meta for r in again.records]
