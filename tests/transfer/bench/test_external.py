"""External validation: selected on one task, tested on another, with an explicit map of classes."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from encoders.runtime.errors import InputError
from encoders.store.write import save_store
from tests.transfer import toys
from tests.transfer.bench.test_bench import NET, add, run
from transfer.bench import external
from transfer.bench.bench import BenchRequest, plan_bench
from transfer.bench.class_names import find_class_name, unknown_class_error
from transfer.bench.external import ExternalRequest
from transfer.records.ledger import read_ledger
from transfer.records.record_ids import hide_names
from transfer.tables import build as table
from transfer.tables.rows import group_sections
from transfer.tasks import load, task

PAIRS = ("sick:ill",)


def other(path, patients=24, seed=5, dataset="elsewhere", names=("ill",)):
    """A second hospital: the same stripes, other class names, and equal patient ids for other patients."""
    patient = np.repeat(np.arange(patients), 2)
    ill = (patient % 2).astype(float)
    images = toys.pictures(ill, np.random.default_rng(seed).normal(0, 10, patients)[patient], seed=seed)
    labels = {name: ill if k == 0 else (patient % 3 == 0).astype(float) for k, name in enumerate(names)}
    return save_store(path, images, patient=[f"p{i}" for i in patient], labels=labels, dataset=dataset)


@pytest.fixture
def two(tmp_path):
    add(toys.store(tmp_path / "a.h5", patients=30), name="a")
    add(other(tmp_path / "b.h5"), name="b", labels=["ill"], classes=["ill"])
    return tmp_path


def bench(pairs=PAIRS, part="test", **fields):
    return run(NET, tasks=["a"], external=ExternalRequest("b", pairs, part), **{"protocols": ["knn", "linear"], **fields})


def test_everything_is_selected_on_one_task_and_scored_on_the_test_part_of_the_other(two):
    inside = run(NET, tasks=["a"]).records
    outcome = bench()
    a, b = (load.load_task(task.read_task(name)) for name in "ab")
    for mine, r in zip(inside, outcome.records, strict=True):
        assert r.meta.status == "ok", r.meta.error
        assert r.meta.selection == mine.meta.selection  # independent of b
        np.testing.assert_array_equal(r.arrays["val_scores"], mine.arrays["val_scores"])
        assert set(r.arrays["test_key"]) == set(hide_names(b.key[b.split.rows("test")]))
        truth = dict(zip(hide_names(b.key), b.y[:, 0], strict=True))
        assert [truth[k] for k in r.arrays["test_key"]] == r.arrays["test_y"][:, 0].tolist()
        i = r.identity
        assert (i.task, i.store, i.split) == ("b", b.store.fingerprint, b.split.hash)
        assert (i.selected_on.task, i.selected_on.split, i.selected_on.label_map) == ("a", a.split.hash, {"sick": ["ill"]})
    assert bench().reused == 2


def test_uses_of_the_external_test_part_are_counted_with_all_others(two):
    records = run(NET, tasks=["b"], protocols=["knn"]).records + bench(protocols=["knn"]).records
    assert toys.times_scored(records) == [(2, 2)]
    assert read_ledger()[1]["selected_on"]["task"] == "a"


def test_an_external_result_never_shares_a_table_with_one_of_the_task_itself(two):
    records = run(NET, tasks=["b"], protocols=["knn"]).records + bench(protocols=["knn"]).records
    sections = table.build_sections(records)
    assert [s.task for s in sections] in (["b", "b from a"], ["b from a", "b"])
    assert len(group_sections(sections)) == 2
    y, s, _ = next(r for r in records if r.identity.selected_on).part("test")
    row = next(s for s in sections if s.task == "b from a").rows[0]
    assert row.metrics["auroc"].value == pytest.approx(roc_auc_score(y[:, 0], s[:, 0]))


def test_all_images_of_the_external_task_can_be_tested(two):
    (r,) = bench(part="all", protocols=["knn"]).records
    assert len(r.arrays["test_key"]) == 48
    assert r.identity.split != load.load_task(task.read_task("b")).split.hash


def test_train_patients_are_checked_against_the_external_test_images(tmp_path):
    where = toys.store(tmp_path / "a.h5", patients=30)
    add(where, name="a")
    add(where, name="b", split=task.SplitRule(seed=3))
    request = BenchRequest(encoders=[NET], baselines=[], tasks=["a"], external=ExternalRequest("b", ["sick:sick"]))
    with pytest.raises(InputError, match="patients"):
        plan_bench(request, lambda text: None)


def test_equal_ids_in_two_data_sets_are_two_patients(two):
    joined = external.join_tasks(load.load_task(task.read_task("a")), load.load_task(task.read_task("b")), ExternalRequest("b", PAIRS))
    train, test = (set(joined.patient[joined.split.rows(part)]) for part in ("train", "test"))
    assert not train & test
    assert any(p.startswith("toy:p") for p in train)


def test_patients_of_one_data_set_are_recognised_in_stores_of_several(two):
    """The store of A has two data sets, one of which is B; its patients are the same in both tasks."""
    add(f"{two}/*.h5", name="both")
    both, b = load.load_task(task.read_task("both")), load.load_task(task.read_task("b"))
    joined = external.join_tasks(both, b, ExternalRequest("b", PAIRS))
    n = len(both.key)
    of_b = both.store.datasets == "elsewhere"
    assert set(joined.patient[:n][of_b]) == set(joined.patient[n:]) == set(b.patient)
    assert not set(joined.patient[:n][~of_b]) & set(joined.patient[n:])
    back = external.join_tasks(b, both, ExternalRequest("both", ("ill:sick",)))
    assert set(back.patient[: len(b.key)]) == {f"elsewhere:{p}" for p in b.patient}
    assert set(back.patient[len(b.key) :]) == set(both.patient)
    assert set(both.patient) == {f"toy:p{i}" for i in range(30)} | {f"elsewhere:p{i}" for i in range(24)}


def test_data_sets_that_number_the_same_people_are_joined_across_two_tasks(two):
    a, b = load.load_task(task.read_task("a")), load.load_task(task.read_task("b"))
    joined = external.join_tasks(a, b, ExternalRequest("b", PAIRS), [["toy", "elsewhere"]])
    assert set(joined.patient) == set(a.patient) > set(b.patient)
    request = BenchRequest([NET], ["a"], baselines=[], external=ExternalRequest("b", PAIRS), same_people=[["toy", "elsewhere"]])
    with pytest.raises(InputError, match="patients between train and test"):
        plan_bench(request, lambda text: None)


def test_labels_are_mapped_by_name_and_unknown_values_stay_unknown(tmp_path):
    a = Labels(["x", "y", "z"], [[1, 0, 1], [0, np.nan, 0]])
    b = Labels(["p", "q", "r", "s"], [[1, 0, 1, 0], [0, 0, np.nan, 1], [0, np.nan, 0, 1]])
    pairs = external.parse_label_map(["z:p", "y:q", "y:r", "x:-", "-:s"], a.task, b.task)
    classes, y = external._join_targets(pairs, a, b, False)
    assert classes == ["y", "z"]
    np.testing.assert_array_equal(y[:2], [[0, 1], [np.nan, 0]])
    np.testing.assert_array_equal(y[2:], [[1, 1], [np.nan, 0], [np.nan, 0]])


def test_classes_that_the_other_task_lacks_stay_and_images_of_unknown_classes_are_excluded():
    a, b = Labels(["x", "y", "z"], np.eye(3)), Labels(["p", "q", "r"], np.eye(3))
    pairs = external.parse_label_map(["x:q", "y:p", "z:-", "-:r"], a.task, b.task)
    classes, y = external._join_targets(pairs, a, b, True)
    assert classes == ["x", "y", "z"]
    np.testing.assert_array_equal(y[3:], [[0, 1, 0], [1, 0, 0], [np.nan] * 3])


class Labels:
    """The members of a loaded task that a label map uses."""

    def __init__(self, classes, y):
        self.task = task.Task(name="t", store=["s"], labels=["l"], kind="multilabel", classes=classes)
        self.y = np.array(y, dtype=np.float32)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "has no entry for 'sick' of a, 'ill' of b"),
        (["sick:-"], "has no entry for 'ill' of b"),
        (["sick:-", "-:ill"], "nothing to score"),
        (["sik:ill"], "did you mean sick"),
        (["sick:il"], "did you mean ill"),
        (["sick"], "not CLASS:CLASS"),
        (["sick:ill", "sick:ill"], "more than once"),
        (["-:-"], "names no class"),
        (["healthy:well", "sick:ill"], "no class of a called 'healthy'.*classes of a: sick; a binary task has one class"),
    ],
)
def test_an_incomplete_map_is_refused(two, pairs, message):
    with pytest.raises(InputError, match=message):
        bench(pairs)


@pytest.mark.parametrize(
    ("classes", "labels", "kind", "text", "means"),
    [
        (["label=pneumonia"], ["label"], "binary", "pneumonia", "label=pneumonia"),
        (["label=pneumonia"], ["label"], "binary", "label", "label=pneumonia"),
        (["label=pneumonia"], ["label"], "binary", "label=pneumonia", "label=pneumonia"),
        (["label=Pneumonia"], ["label"], "binary", "pneumonia", "label=Pneumonia"),
        (["Pneumonia"], ["Pneumonia"], "binary", "pneumonia", "Pneumonia"),
        (["pneumonia"], ["pneumonia"], "binary", "PNEUMONIA", "pneumonia"),
        (["pneumonia"], ["pneumonia"], "binary", "normal", None),
        (["a=yes", "b=yes"], ["a", "b"], "multilabel", "a", "a=yes"),
        (["a=yes", "b=yes"], ["a", "b"], "multilabel", "yes", None),
        (["a=b", "b"], ["a", "b"], "multilabel", "b", "b"),
        (["a=x:y"], ["a"], "binary", "x:y", "a=x:y"),
        (["low", "high"], ["grade"], "multiclass", "High", "high"),
        (["low", "Low"], ["grade"], "multiclass", "LOW", None),
        (["low"], ["low"], "binary", "-", "-"),
    ],
)
def test_a_class_may_be_written_by_its_value_or_column_where_that_is_clear(classes, labels, kind, text, means):
    known = task.Task(name="t", store=["s"], labels=labels, kind=kind, classes=classes)
    assert find_class_name(text, known) == means
    if means is None:
        assert all(name in str(unknown_class_error(text, known)) for name in classes)


@pytest.mark.parametrize("text", ["pneumonia:pneumonia", "Pneumonia:label", "pneumonia : label=pneumonia"])
def test_short_names_of_classes_give_the_map_of_their_full_names(text):
    a = task.Task(name="a", store=["s"], labels=["pneumonia"], kind="binary", classes=["pneumonia"])
    b = task.Task(name="b", store=["s"], labels=["label"], kind="binary", classes=["label=pneumonia"])
    assert external.parse_label_map([text], a, b) == {"pneumonia": ["label=pneumonia"]}
    assert external.parse_label_map([":".join(text.split(":")[::-1])], b, a) == {"label=pneumonia": ["pneumonia"]}


def test_an_impossible_external_test_is_refused(two):
    add(two / "a.h5", name="grade", labels=["grade"], kind="multiclass", classes=["high", "low", "mid"])
    with pytest.raises(InputError, match="multiclass and"):
        run(NET, tasks=["grade"], external=ExternalRequest("b", PAIRS))
    with pytest.raises(InputError, match="exactly one other task"):
        run(NET, tasks=["a", "grade"], external=ExternalRequest("b", PAIRS))
    with pytest.raises(InputError, match="--folds"):
        bench(folds=3)
    with pytest.raises(InputError, match="part of the external task"):
        bench(part="val")


def test_fractions_shifts_and_fine_tuning_work_on_external_tests_too(two):
    quick = ["finetune.min_steps=2", "finetune.max_steps=2", "finetune.evaluations=1", "finetune.batch=8"]
    outcome = bench(protocols=["knn", "finetune"], overrides=quick, patients=[6], fractions=[1.0], shifts=[("noise", 2)])
    assert [r.meta.error for r in outcome.records] == [None] * 8
    assert {r.meta.counts["train"]["patients"] for r in outcome.records if r.identity.patients} == {6}
