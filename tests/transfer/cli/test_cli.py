"""The command line as a user types it: output, exit status, and files."""

import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from encoders.runtime.errors import InputError
from tests.store_edits import edit_store
from tests.transfer import toys
from transfer.cli.main import app
from transfer.tasks import recipes

NET = "random_resnet10t:size=32,channels=1,mean=0.5,std=0.25"


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return toys.store(tmp_path / "toy.h5", patients=40)


def call(*words):
    done = CliRunner().invoke(app, [str(w) for w in words])
    if isinstance(done.exception, InputError):
        raise done.exception
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_a_task_is_added_listed_shown_and_removed(cohort):
    added = call("tasks", "add", "sick", cohort, "--label", "sick")
    assert "kind binary (inferred): sick" in added.output
    assert "random, by patient, seed 0" in added.output
    assert "sick" in call("tasks", "list").output
    shown = call("tasks", "show", "sick").output
    assert "kind: binary" in shown
    assert "train" in shown
    call("tasks", "remove", "sick")
    assert "no task is registered yet" in call("tasks", "list").output


def test_the_keys_of_the_train_part_can_be_written_for_pretraining(cohort, tmp_path):
    call("tasks", "add", "sick", cohort, "--label", "sick")
    parts = {part: set(call("tasks", "keys", "sick", "--part", part).stdout.split()) for part in ("train", "val", "test")}
    assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == 80
    call("tasks", "keys", "sick", "--out", tmp_path / "train.txt")
    assert set((tmp_path / "train.txt").read_text().split()) == parts["train"]
    refused = call("tasks", "keys", "sick", "--part", "trian")
    assert refused.exit_code == 2
    assert "'trian' is not one of 'train', 'val', 'test'" in refused.stderr


def test_bench_prints_and_writes_the_table_and_compare_remakes_it_from_records(cohort, tmp_path, monkeypatch):
    call("tasks", "add", "sick", cohort, "--label", "sick")
    first = call(
        "bench", "linear.steps=5", "--encoder", NET, "--csv", tmp_path / "a.csv", "--markdown", tmp_path / "a.md", "--device", "cpu"
    )
    assert first.exit_code == 0
    for word in ("AUROC", "knn", "linear", "(majority class)", "scored at least 4 times", "random_resnet10t", "pixels"):
        assert word in first.stdout
    call("compare", "--csv", tmp_path / "b.csv", "--markdown", tmp_path / "b.md")
    rows = [(tmp_path / name).read_text().splitlines() for name in ("a.csv", "b.csv")]
    assert [line for line in rows[0] if "not available" not in line and line.startswith("sick")] == [
        line for line in rows[1] if line.startswith("sick")
    ]
    again = call("bench", "linear.steps=5", "--encoder", NET, "--baseline", "none", "--device", "cpu")
    assert "2 of 2 results from records" in again.stderr


def test_a_failed_cell_is_shown_and_the_exit_status_says_so(cohort):
    call("tasks", "add", "sick", cohort, "--label", "sick")
    done = call("bench", "knn.k=[1000]", "--encoder", NET, "--baseline", "none", "--device", "cpu")
    assert done.exit_code == 1
    assert "failed" in done.stdout
    assert "knn.k is [1000]" in done.stdout.replace("\n", " ")
    assert "linear" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tasks", "add", "t", "missing.h5", "--label", "x"], "missing.h5"),
        (["tasks", "show", "t"], "no task called 't'"),
        (["bench", "--encoder", "random_resnet18", "--fractions", "ten"], "--fractions"),
        (["compare"], "no record yet"),
    ],
)
def test_mistakes_are_input_errors(words, message):
    with pytest.raises(InputError, match=message):
        call(*words)


def test_labels_of_a_patient_in_two_official_parts_are_refused_with_the_way_out(tmp_path):
    column = ["train", "test"] * 40
    where = toys.store(tmp_path / "toy.h5", patients=40)
    csv = tmp_path / "l.csv"
    csv.write_text("key,sick,split\n" + "".join(f"{i:06d},{i % 2},{s}\n" for i, s in enumerate(column)))
    import h5py

    with edit_store(where) as file:
        file["index"].create_dataset("split", data=np.array(column, dtype="S5").astype(h5py.string_dtype("utf-8", 5)))
    with pytest.raises(InputError, match="--split-column none"):
        call("tasks", "add", "t", where, "--label", "sick")
    assert "random, by patient" in call("tasks", "add", "t", where, "--label", "sick", "--split-column", "none").output
    by_split = call("tasks", "add", "u", where, "--label", "sick", "--patients-by-split").output
    assert "official, column split" in by_split


def test_a_mistake_ends_with_status_two_and_one_line(tmp_path):
    code = "import transfer.cli.main as c; c.main()"
    done = subprocess.run([sys.executable, "-c", code, "tasks", "show", "nothing"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no task called 'nothing'")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.real
def test_hannover_from_its_folder_to_a_table(data_dir, tmp_path, monkeypatch):
    """Real radiographs: AP against PA, by patient, with a network with random weights."""
    from encoders.cli.ingest import ingest_app

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source, where = data_dir / "cxr_hannover", tmp_path / "hannover.h5"
    words = [
        "folder",
        str(source),
        str(where),
        "--labels",
        str(source / "labels.csv"),
        "--label-column",
        "label",
        "--size",
        "64",
        "--workers",
        "1",
    ]
    assert CliRunner().invoke(ingest_app, words).exit_code == 0
    added = call("tasks", "add", "view", where, "--label", "label").output
    assert "kind binary (inferred): label=pa" in added
    done = call("bench", "--encoder", "random_resnet18:size=64", "--device", "cpu", "--csv", tmp_path / "t.csv")
    assert done.exit_code == 0
    assert "imagenet_resnet18" in done.stdout
    assert "not available" in done.stdout
    assert "insufficient" in done.stdout  # 243 images, but few PA patients


def test_all_recipes_are_printed_with_the_command_that_adds_their_task():
    printed = call("tasks", "recipes").output
    for name, recipe in recipes.RECIPES.items():
        assert f"{name}: {recipe.title}" in printed
        assert recipe.add_command(name) in printed
    assert call("tasks", "recipes", "kermany").output.count("task:") == 1


def test_the_help_of_bench_names_every_protocol_and_every_shift():
    from transfer.bench.shifts import SHIFTS
    from transfer.protocols import PROTOCOLS

    text = call("bench", "--help").output.replace("\n", " ")
    for name in (*PROTOCOLS, *SHIFTS):
        assert name in text


@pytest.mark.parametrize("words", [("--kind", "binry"), ("--uncertain", "one"), ("--blank", "one")])
def test_an_option_with_fixed_choices_lists_them_and_exits_with_status_two(cohort, words):
    refused = call("tasks", "add", "sick", cohort, "--label", "sick", *words)
    assert refused.exit_code == 2
    assert f"'{words[1]}' is not one of" in refused.stderr


def test_a_recipe_makes_a_task_of_a_folder_laid_out_as_it_says(tmp_path):
    """A synthetic copy of the documented layout: text labels, and patients in two parts of the official split."""
    from encoders.store.write import save_store

    n = 40
    texture, parts = np.arange(n) % 2, np.where(np.arange(n) % 4 < 2, "train", "test")
    names = np.where(texture == 1, "pneumonia", "normal")
    images = toys.pictures(texture, np.zeros(n))
    where = save_store(
        tmp_path / "k.h5", images, patient=[f"person{i // 3}" for i in range(n)], labels={"label": names}, meta={"split": parts}
    )
    added = call("tasks", "add", "kermany", where, "--recipe", "kermany").output
    assert "kind binary: label=pneumonia" in added
    assert "random, by patient" in added
    with pytest.raises(InputError, match="--label COLUMN"):
        call("tasks", "add", "t", where)
