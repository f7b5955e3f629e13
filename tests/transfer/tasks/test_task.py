"""Tasks: labels by name, the kind of a task, and its file."""

import numpy as np
import pytest

from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.store.write import save_store
from tests.transfer import toys
from transfer.tasks import labels, load, task
from transfer.tasks.csv_labels import read_csv_labels
from transfer.tasks.labels import LabelColumn, build_targets, encode_column
from transfer.tasks.uncertain_labels import LabelPolicy


@pytest.fixture
def cohort(tmp_path):
    return Store.open(toys.store(tmp_path / "toy.h5", patients=6))


def made(name="t", **fields):
    whole = {"store": ["toy.h5"], "labels": ["sick"], "kind": "binary", "classes": ["sick"], "modality": "cxr", **fields}
    return task.Task(name=name, **whole)


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        ([0, 1, 1, ""], "binary", ["c"]),
        (["no", "yes", "yes", "nan"], "binary", ["c=yes"]),
        ([1, 2, 2, 1], "binary", ["c=2"]),
        (["a", "b", "c", "a"], "multiclass", ["a", "b", "c"]),
        ([0, 1, 2, 5], "multiclass", ["0", "1", "2", "5"]),
    ],
)
def test_the_kind_of_a_task_is_inferred_from_its_values(values, kind, classes):
    found = build_targets([encode_column("c", values)])
    assert (found.kind, found.classes) == (kind, classes)
    assert "inferred" in found.messages[-1]


def test_a_binary_target_is_one_for_the_positive_class_and_unknown_where_the_label_is():
    y = build_targets([encode_column("c", ["sick", "well", "", "sick"])], positive="sick").y
    np.testing.assert_array_equal(y, [[1], [0], [np.nan], [1]])


def test_a_multiclass_target_is_one_hot_with_unknown_rows():
    y = build_targets([encode_column("c", ["b", "a", "", "c"])]).y
    np.testing.assert_array_equal(y[[0, 1, 3]], np.eye(3)[[1, 0, 2]])
    assert np.isnan(y[2]).all()


def test_several_columns_make_a_multilabel_target_that_keeps_unknown_values_apart():
    found = build_targets([encode_column("a", [1, 0, ""]), encode_column("b", ["", 1, 0])])
    assert found.kind == "multilabel"
    np.testing.assert_array_equal(found.y, [[1, np.nan], [0, 1], [np.nan, 0]])


def test_one_class_of_many_can_be_set_against_the_rest():
    found = build_targets([encode_column("c", ["a", "b", "c", ""])], positive="b")
    assert found.kind == "binary"
    np.testing.assert_array_equal(found.y[:, 0], [0, 1, 0, np.nan])


@pytest.mark.parametrize(
    ("columns", "kind", "positive", "message"),
    [
        ([encode_column("age", [1.5, 2.5, 3.5])], None, None, "measurement"),
        ([encode_column("c", ["", "", ""])], None, None, "no known value"),
        ([encode_column("c", ["a", "a"])], None, None, "has 1 classes"),
        ([encode_column("c", ["sick", "well"])], None, "sik", "did you mean sick"),
        ([encode_column("c", ["a", "b", "c"])], "binary", None, "--positive"),
        ([encode_column("a", [0, 1]), encode_column("b", [0, 1])], "binary", None, "multilabel"),
        ([LabelColumn("a", np.array([3.0, 3.0]))], "multiclass", None, "needs at least two"),
    ],
)
def test_labels_that_do_not_fit_are_refused_with_the_reason(columns, kind, positive, message):
    with pytest.raises(InputError, match=message):
        build_targets(columns, kind, positive)


def test_classes_do_not_depend_on_the_order_of_rows():
    assert encode_column("c", ["z", "a", "m"]).classes == encode_column("c", ["m", "z", "a"]).classes == ["a", "m", "z"]


def test_a_csv_is_joined_by_name_whatever_the_order_of_its_rows_and_columns(cohort, tmp_path):
    keys = list(cohort.column("key"))
    wanted = {k: str(i % 2) for i, k in enumerate(keys)}
    (tmp_path / "l.csv").write_text("finding,junk,key\n" + "".join(f"{wanted[k]},9,{k}\n" for k in reversed(keys[:-1])) + "1,9,nobody\n")
    columns, said = read_csv_labels(tmp_path / "l.csv", cohort, ["finding"])
    np.testing.assert_array_equal(columns[0].codes[:-1], [float(wanted[k]) for k in keys[:-1]])
    assert np.isnan(columns[0].codes[-1])
    assert said == [
        "l.csv: 11 of 12 rows matched an image on `key`",
        "1 rows of l.csv match no image of the store",
        "1 images have no row in l.csv and are excluded",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("key,finding\nnobody,1\n", "none of the 1 values in column 'key' .* matches an image: .* 'nobody', .* '000000'"),
        ("name,finding\nx,1\n", "no column `key` or `file`"),
        ("key,findings\n000000,1\n", "did you mean findings"),
        ("key,finding\n000000,1\n000000,0\n", "disagree on column 'finding': '1' and '0'"),
        ("key,finding\n000000\n", "line 2"),
        ("key,finding\n", "no rows"),
    ],
)
def test_a_csv_that_cannot_be_joined_is_refused(cohort, tmp_path, text, message):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_csv_labels(tmp_path / "l.csv", cohort, ["finding"])


def test_uncertain_labels_are_no_class_of_their_own_unless_that_is_asked_for(tmp_path):
    images = np.zeros((40, 8, 8, 1), np.uint8) + np.arange(40, dtype=np.uint8)[:, None, None, None]
    finding = [["1", "0", "", "-1"][i % 4] for i in range(40)]
    store = Store.open(save_store(tmp_path / "s.h5", images, labels={"finding": finding}))
    with pytest.raises(InputError, match="'finding' holds 0, 1 and -1, .* how to count them with --uncertain"):
        load.read_targets(store, task.TargetSpec(labels=["finding"]))
    found = load.read_targets(store, task.TargetSpec(labels=["finding"], policy=LabelPolicy(uncertain="ones")))
    assert found.kind == "binary"
    assert found.y[3] == 1


def test_a_table_with_semicolons_is_read(cohort, tmp_path):
    store = cohort
    lines = ["key;grade", *(f"{key};{'ab'[i % 2]}" for i, key in enumerate(store.column("key").tolist()))]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    (column,), _ = read_csv_labels(tmp_path / "t.csv", store, ["grade"])
    assert column.classes == ["a", "b"]


def test_a_wrong_label_column_names_the_nearest(cohort):
    with pytest.raises(InputError, match="did you mean sick"):
        labels.read_store_labels(cohort, ["sik"])


def test_a_task_comes_back_as_it_was_saved_and_its_name_is_not_taken_twice():
    task.save_task(made())
    task.save_task(made())  # saving the same task twice is allowed
    assert task.read_task("t") == made()
    with pytest.raises(InputError, match="--replace"):
        task.save_task(made(kind="multilabel"))
    task.save_task(made(kind="multilabel"), replace=True)
    assert task.read_task("t").kind == "multilabel"
    task.remove_task("t")
    assert task.list_tasks() == []


def test_without_names_the_tasks_of_the_encoders_modality_are_chosen():
    with pytest.raises(InputError, match="transfer tasks add"):
        task.choose_tasks([], ["cxr"])
    task.save_task(made("x"))
    task.save_task(made("h", modality="histology"))
    assert [t.name for t in task.choose_tasks([], ["histology"])] == ["h"]
    assert [t.name for t in task.choose_tasks([], [None])] == ["h", "x"]
    with pytest.raises(InputError, match="transfer tasks add"):
        task.choose_tasks([], ["mri"])
    with pytest.raises(InputError, match="did you mean x"):
        task.choose_tasks(["xx"], [None])


@pytest.mark.parametrize("name", ["../up", "a b", "", ".hidden"])
def test_a_name_that_is_no_file_name_is_refused(name):
    with pytest.raises(InputError, match="name"):
        task.save_task(made(name))


def test_a_split_that_leaves_no_patients_to_train_is_refused():
    from encoders.runtime.config import validate_config

    with pytest.raises(InputError, match="leave no train patients"):
        validate_config(task.SplitRule, {"val": 0.5, "test": 0.5}, "the split")


def test_a_task_whose_labels_changed_their_classes_asks_to_be_added_again(tmp_path):
    where = toys.store(tmp_path / "toy.h5", patients=9)
    wrong = made(store=[str(where)], labels=["view"], classes=["view=lateral"])
    with pytest.raises(InputError, match="--replace"):
        load.load_task(wrong)


def test_the_hash_of_the_labels_knows_values_but_not_the_order_of_rows(tmp_path):
    loaded = load.load_task(made(store=[str(toys.store(tmp_path / "toy.h5"))]))
    before = loaded.labels_hash
    order = np.random.default_rng(0).permutation(len(loaded.key))
    loaded.key, loaded.y = loaded.key[order], loaded.y[order]
    assert loaded.labels_hash == before
    loaded.y[0] = 1 - loaded.y[0]
    assert loaded.labels_hash != before
