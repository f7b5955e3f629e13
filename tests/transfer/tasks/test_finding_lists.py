"""Tasks of findings in lists, and of stored splits in other words: what is read, reported and refused."""

import numpy as np
import pytest
from typer.testing import CliRunner

from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.store.write import save_store
from tests.encoders.ingest.test_label_lists import SPELLINGS
from tests.store_edits import edit_store
from tests.transfer import toys
from tests.transfer.cli.test_cli import call
from transfer.cli.main import app
from transfer.tasks import load, task

ITEMS = [["pneumonia", "mass"], ["mass", "pneumonia"], ["mass"], [], ["normal"], ["nodule", "mass", "pneumonia"]]


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    """Writes a store of 60 images of 30 patients with the given text columns."""
    monkeypatch.chdir(tmp_path)

    def write(name="o.h5", split=None, **labels):
        images = toys.pictures(np.arange(60) % 2, np.zeros(60))
        save_store(name, images, patient=[f"p{i // 2}" for i in range(60)], labels=labels)
        return add_split(name, split) if split else name

    return write


def add_split(path, values):
    import h5py

    with edit_store(path) as file:
        file["index"].create_dataset("split", data=np.array(values, dtype=object), dtype=h5py.string_dtype())
    return path


def text_of(spelling, items):
    return SPELLINGS[spelling](items) if items else ""


@pytest.mark.parametrize("spelling", ["Python", "JSON", "NumPy", "bars", "commas", "semicolons"])
def test_findings_of_a_stored_text_column_are_positive_wherever_they_stand(cohort, spelling):
    where = cohort(Labels=[text_of(spelling, ITEMS[i // 2 % 6]) for i in range(60)])
    told = call("tasks", "add", "t", where, "--list-column", "Labels", "--finding", "pneumonia,mass").output
    assert "kind multilabel (inferred): pneumonia, mass" in told
    assert "label column 'Labels': 10 unknown: '' 10 (of 60 images)" in told
    y = load.load_task(task.read_task("t")).y
    for i in range(60):
        items = ITEMS[i // 2 % 6]
        np.testing.assert_array_equal(y[i], [float(n in items) for n in ("pneumonia", "mass")] if items else [np.nan] * 2)


def test_blank_lists_count_as_absent_only_if_the_user_says_so(cohort):
    where = cohort(Labels=[["a|b", "[]", "b", "['']"][i // 2 % 4] for i in range(60)])
    call("tasks", "add", "t", where, "--list-column", "Labels", "--finding", "a")
    y = load.load_task(task.read_task("t")).y[:, 0]
    np.testing.assert_array_equal(y[::2][:4], [1, np.nan, 0, np.nan])
    told = call("tasks", "add", "u", where, "--list-column", "Labels", "--finding", "a", "--blank", "zeros").output
    assert "'[]' 16" in told
    np.testing.assert_array_equal(load.load_task(task.read_task("u")).y[:8:2, 0], [1, 0, 0, 0])


def test_lists_in_a_table_for_the_task_are_read_and_combined(cohort, tmp_path):
    where = cohort(x=np.arange(60.0))
    keys = Store.open(where).column("key")
    rows = [f'{key},"{ITEMS[i // 2 % 6]}"' for i, key in enumerate(keys)] + [f"{keys[4]},\"['pneumonia']\""]
    (tmp_path / "t.csv").write_text("\n".join(["key,Labels", *rows]))
    words = ["tasks", "add", "t", where, "--labels", "t.csv", "--list-column", "Labels", "--finding", "pneumonia,mass"]
    with pytest.raises(InputError, match="disagree on column 'pneumonia': '0' and '1'"):
        call(*words)
    call(*words, "--combine", "any")
    y = load.load_task(task.read_task("t")).y
    assert y[:6, 0].tolist() == [1, 1, 1, 1, 1, 0]
    assert y[:6, 1].tolist() == [1] * 6


def hint_of(*words):
    with pytest.raises(InputError) as told:
        call("tasks", "add", "t", *words)
    return str(told.value)


@pytest.mark.parametrize("spelling", ["Python", "JSON", "NumPy", "bars"])
def test_no_hint_contains_a_bracket_or_a_quote(cohort, spelling):
    where = cohort(Labels=[text_of(spelling, ITEMS[i // 2 % 6]) for i in range(60)])
    hints = {
        "finding": hint_of(where, "--list-column", "Labels", "--finding", "pneumnia").split("; ")[1],
        "no finding": hint_of(where, "--list-column", "Labels").split("; ")[1],
        "class": hint_of(where, "--label", "Labels").split("instead. ")[1],
        "positive": hint_of(where, "--label", "Labels", "--positive", "pneumonia").split("instead. ")[1],
        "keep": hint_of(where, "--label", "Labels", "--keep", "pneumonia,mass").split("instead. ")[1],
        "label": hint_of(where, "--label", "pneumonia").split("; ")[1],
    }
    assert hints["finding"] == "did you mean pneumonia?"
    assert hints["label"] == "pass --list-column Labels --finding pneumonia"
    for text in hints.values():
        assert "pneumonia" in text
        assert not set(text) & set("[]{}'\"")


def test_list_options_that_do_not_fit_raise(cohort):
    where = cohort(Labels=["a|b"] * 30 + ["b"] * 30, sick=np.arange(60) % 2)
    for words, message in [
        (["--finding", "a"], "pass --list-column NAME too"),
        (["--list-column", "Labels", "--finding", "a", "--label", "sick"], "give one of them"),
        (["--list-column", "Lables", "--finding", "a"], "did you mean Labels"),
        (["--list-column", "Labels", "--finding", "a", "--keep", "a"], "remove it"),
    ]:
        with pytest.raises(InputError, match=message):
            call("tasks", "add", "t", where, *words)


def test_keep_takes_a_comma_list_or_one_class_per_option(cohort):
    where = cohort(kind=[["a", "b", "c, d", "e"][i // 2 % 4] for i in range(60)])
    call("tasks", "add", "t", where, "--label", "kind", "--keep", "a,b")
    assert task.read_task("t").keep == ["a", "b"]
    assert int(np.isfinite(load.load_task(task.read_task("t")).y[:, 0]).sum()) == 32
    call("tasks", "add", "u", where, "--label", "kind", "--keep", "a", "--keep", "c, d")
    assert task.read_task("u").classes == ["kind=c, d"]
    with pytest.raises(InputError, match="no class of 'kind' called 'd'"):
        call("tasks", "add", "v", where, "--label", "kind", "--keep", "a,d")


# --- stored splits in other words


def parts(words):
    return [words[i // 2 % 10] for i in range(60)]


TEN = [0, 0, 0, 0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "words",
    ["train valid test", "Train_set Eval_set Test_set", "training dev evaluation", "0 1 2", "train eval test", "TRAIN tuning TEST"],
)
def test_other_words_of_a_stored_split_are_mapped_and_reported(cohort, words):
    words = words.split()
    where = cohort(split=parts([words[k] for k in TEN]), sick=np.arange(60) % 2)
    told = call("tasks", "add", "t", where, "--label", "sick").output
    made = load.load_task(task.read_task("t")).split
    assert made.part.tolist() == parts([("train", "val", "test")[k] for k in TEN])
    assert f"split column 'split': '{words[0]}' = train, '{words[1]}' = val, '{words[2]}' = test" in " ".join(told.split())
    assert "split: official, column split" in told


@pytest.mark.parametrize("words", ["train eval", "A B C", "0 1", "train holdout", "fold0 fold1 fold2", "train test1 test2"])
def test_unclear_words_of_a_stored_split_are_never_dropped(cohort, words):
    words = words.split()
    where = cohort(split=parts([words[k % len(words)] for k in range(10)]), sick=np.arange(60) % 2)
    with pytest.raises(InputError, match="not clear which are train, val and test") as told:
        call("tasks", "add", "t", where, "--label", "sick")
    assert all(repr(word) in str(told.value) for word in words)
    call("tasks", "add", "t", where, "--label", "sick", "--split-column", "none")
    values = [f"--split-value={part}={word}" for part, word in zip(("train", "test", "exclude"), words, strict=False)]
    call("tasks", "add", "u", where, "--label", "sick", *values)
    made = load.load_task(task.read_task("u")).split.part
    stored = np.array(parts([words[k % len(words)] for k in range(10)]))
    assert {*made[stored == words[0]]} == {"train", "val"}
    assert {*made[stored == words[1]]} == {"test"}
    assert len(words) == 2 or {*made[stored == words[2]]} == {""}


def test_a_split_without_a_test_part_is_an_error_with_the_way_out(cohort):
    where = cohort(split=parts(["train"] * 8 + ["valid"] * 2), sick=np.arange(60) % 2)
    with pytest.raises(InputError, match=r"has no test image: it holds 'train' 48, 'val' 12. --split-value test=VALUE"):
        call("tasks", "add", "t", where, "--label", "sick")
    call("tasks", "add", "t", where, "--label", "sick", "--split-value", "test=valid")
    assert load.load_task(task.read_task("t")).counts()["test"]["images"] == 12


def test_a_split_of_one_value_is_reported_and_divides_at_random(cohort):
    where = cohort(split=["train"] * 60, sick=np.arange(60) % 2)
    told = call("tasks", "add", "t", where, "--label", "sick").output
    assert "column 'split' holds only 'train' 60 and is not used" in told
    assert "split: random" in told


def test_wrong_split_values_raise(cohort):
    where = cohort(split=parts(["A"] * 8 + ["B"] * 2), sick=np.arange(60) % 2)
    with pytest.raises(InputError, match="no value of split column 'split' called 'C'"):
        call("tasks", "add", "t", where, "--label", "sick", "--split-value", "train=A", "--split-value", "test=C")
    with pytest.raises(InputError, match="expected PART=VALUE"):
        call("tasks", "add", "t", where, "--label", "sick", "--split-value", "tset=B")
    assert CliRunner().invoke(app, ["tasks", "list"]).exit_code == 0
