"""The order of a task's classes: how it is given, what it changes (quadratic kappa) and what it leaves alone (targets, hashes, scores)."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir, tasks_dir
from tests.transfer import toys
from tests.transfer.cli.test_cli import NET, call
from transfer import metrics as m
from transfer.records.record import find_records, read_record
from transfer.tables.subgroups import compute_subgroups
from transfer.tasks import load, task

GRADES = ["normal", "mild", "moderate", "severe"]


def graded(n=400, seed=0, classes=GRADES):
    """One-hot targets and scores in alphabetical columns, with errors mostly between neighbouring grades; grades as ranks (N,)."""
    rng = np.random.default_rng(seed)
    rank = rng.integers(0, len(classes), n)
    near = -((np.arange(len(classes)) - rank[:, None] - rng.normal(0, 0.8, (n, 1))) ** 2)
    columns = [classes.index(name) for name in sorted(classes)]  # position in the order of each alphabetical column
    s = np.exp(near) / np.exp(near).sum(1, keepdims=True)
    return np.eye(len(classes))[rank][:, columns], s[:, columns], rank


def test_quadratic_kappa_is_that_of_scikit_learn_on_the_given_order_and_not_on_the_alphabetical_one():
    y, s, rank = graded()
    alphabetical = sorted(GRADES)
    order = [alphabetical.index(name) for name in GRADES]
    guess = np.array([GRADES.index(alphabetical[c]) for c in s.argmax(1)])
    want = cohen_kappa_score(rank, guess, weights="quadratic")
    assert m.quadratic_kappa(y, s, order) == pytest.approx([want], abs=1e-12)
    assert m.quadratic_kappa(y, s, order[::-1]) == pytest.approx([want], abs=1e-12)  # from highest to lowest: the same distances
    assert m.quadratic_kappa(y, s, range(4))[0] < want - 0.2


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_every_order_agrees_with_scikit_learn_under_weights_and_unknown_labels(order):
    y, s, _ = graded(120, seed=3, classes=["a", "b", "c"])
    y[::9] = np.nan
    weight = np.random.default_rng(1).integers(0, 3, (len(y), 4)).astype(np.float32)
    known, place = ~np.isnan(y[:, 0]), np.argsort(order)
    true, guess = place[np.nan_to_num(y).argmax(1)][known], place[s.argmax(1)][known]
    got = m.quadratic_kappa(y, s, order, weight=weight)
    for b in range(4):
        want = cohen_kappa_score(true, guess, weights="quadratic", sample_weight=weight[known, b])
        assert got[b] == pytest.approx([want], abs=1e-9)


def test_an_order_changes_no_decision():
    y, s = np.eye(3)[[0, 1, 2, 2]], np.full((4, 3), 1 / 3)  # ties: argmax takes the first column
    assert m.quadratic_kappa(y, s, (2, 0, 1)) == pytest.approx([cohen_kappa_score([1, 2, 0, 0], [1, 1, 1, 1], weights="quadratic")])


@pytest.mark.parametrize("order", [(0, 1), (0, 0, 1), (1, 2, 3)])
def test_an_order_that_does_not_fit_the_columns_is_refused(order):
    with pytest.raises(ValueError, match="each of the 3 columns once"):
        m.quadratic_kappa(np.eye(3), np.eye(3), order)


def test_there_is_no_quadratic_kappa_without_an_order():
    y, s, _ = graded()
    plain, ordered = (m.compute_all_metrics(y, s, m.choose_on_validation(y, s, "multiclass", order=o)) for o in ((), (2, 0, 1, 3)))
    assert "quadratic_kappa" not in plain
    assert ordered.pop("quadratic_kappa") == pytest.approx(m.quadratic_kappa(y, s, (2, 0, 1, 3))[0])
    assert ordered == plain


@pytest.mark.parametrize(
    ("order", "classes", "kind", "want"),
    [
        ([], ["a", "b", "c"], "multiclass", []),
        ([], ["a"], "binary", []),
        (["c", "a", "b"], ["a", "b", "c"], "multiclass", ["c", "a", "b"]),
        (["numeric"], ["10", "2", "0.5"], "multiclass", ["0.5", "2", "10"]),
        (["numeric", "x", "y"], ["numeric", "x", "y"], "multiclass", ["numeric", "x", "y"]),
    ],
)
def test_an_order_names_the_classes_or_says_that_they_are_numbers(order, classes, kind, want):
    assert task.resolve_order(order, classes, kind) == want


@pytest.mark.parametrize(
    ("order", "classes", "kind", "message"),
    [
        (["mild", "severe"], ["mild", "normal", "severe"], "multiclass", "does not name normal; .* exactly once"),
        (["mild", "normal", "mild", "severe"], ["mild", "normal", "severe"], "multiclass", "more than once mild"),
        (["normal", "mild", "sever"], ["mild", "normal", "severe"], "multiclass", "did you mean severe"),
        (["numeric"], ["0", "1", "low"], "multiclass", "needs classes that are numbers, and the classes are 0, 1, low"),
        (["a", "b"], ["x=a"], "binary", "this task is binary"),
        (["a", "b"], ["a", "b"], "multilabel", "this task is multilabel"),
    ],
)
def test_an_order_that_does_not_fit_is_refused_with_the_classes(order, classes, kind, message):
    with pytest.raises(InputError, match=message):
        task.resolve_order(order, classes, kind)


@pytest.fixture
def cohort(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return toys.store(tmp_path / "toy.h5", patients=60)


def test_a_task_keeps_its_order_in_its_file_and_an_edited_file_is_checked(cohort):
    said = call("tasks", "add", "g", cohort, "--label", "grade", "--order", "low,mid,high").output
    assert "order of the classes: low < mid < high" in said
    assert task.read_task("g").order == ["low", "mid", "high"]
    assert task.read_task("g").classes == ["high", "low", "mid"]
    path = tasks_dir() / "g.yaml"
    path.write_text(path.read_text().replace("- low\n- mid\n- high", "- low\n- mid"))
    with pytest.raises(InputError, match=r"g.yaml.*does not name high"):
        task.read_task("g")


def test_classes_with_commas_are_named_one_by_one(cohort):
    grades = np.array(["none, or mild", "moderate", "severe"])[np.arange(120) // 2 % 3]
    where = toys.store(cohort.parent / "commas.h5", patients=60, stage=grades)
    call(
        "tasks", "add", "g", where, "--label", "stage", *(w for name in ("none, or mild", "moderate", "severe") for w in ("--order", name))
    )
    assert task.read_task("g").order == ["none, or mild", "moderate", "severe"]


def test_numbers_are_ordered_only_when_the_user_says_so(cohort):
    where = toys.store(cohort.parent / "numbers.h5", patients=60, stage=(np.arange(120) // 2 % 5).astype(float))
    said = call("tasks", "add", "g", where, "--label", "stage").output
    assert "numbers without an order" in said
    assert task.read_task("g").order == []
    call("tasks", "add", "h", where, "--label", "stage", "--order", "numeric")
    assert task.read_task("h").order == ["0", "1", "2", "3", "4"]


def test_an_order_given_later_reaches_the_records_and_computes_nothing_again(cohort):
    bench = ("bench", "--protocol", "knn", "--encoder", NET, "--baseline", "none", "--device", "cpu")
    call("tasks", "add", "g", cohort, "--label", "grade")
    before = load.load_task(task.read_task("g"))
    call(*bench)
    (path,) = find_records()
    plain = read_record(path)
    assert "quadratic_kappa" not in compute_subgroups([plain], [])[0].metrics
    call("tasks", "add", "g", cohort, "--label", "grade", "--order", "low,mid,high", "--replace")
    after = load.load_task(task.read_task("g"))
    assert (after.labels_hash, after.split.hash, after.task.classes) == (before.labels_hash, before.split.hash, before.task.classes)
    np.testing.assert_array_equal(after.y, before.y)
    assert "1 of 1 results from records" in call(*bench).stderr
    assert find_records([records_dir()]) == [path]
    ordered = read_record(path)
    assert ordered.identity == plain.identity
    assert ordered.meta.order == ["low", "mid", "high"]
    assert ordered.class_order == (1, 2, 0)
    y, s, _ = ordered.part("test")
    place = np.array([2, 0, 1])  # high, low, mid
    want = cohen_kappa_score(place[y.argmax(1)], place[s.argmax(1)], weights="quadratic")
    assert compute_subgroups([ordered], [])[0].metrics["quadratic_kappa"] == pytest.approx(want)


def test_a_new_record_has_the_order_of_its_task_and_an_external_test_that_of_the_task_it_was_selected_on(cohort):
    stage = np.array(["early", "late", "middle"])[np.arange(120) // 2 % 3]
    other = toys.store(cohort.parent / "other.h5", patients=60, seed=1, dataset="elsewhere", stage=stage)
    call("tasks", "add", "a", cohort, "--label", "grade", "--order", "low,mid,high")
    call("tasks", "add", "b", other, "--label", "stage", "--order", "late,middle,early")
    bench = ("bench", "--protocol", "knn", "--encoder", NET, "--baseline", "none", "--device", "cpu", "--task", "a")
    pairs = [word for pair in ("low:early", "mid:middle", "high:late") for word in ("--map", pair)]
    call(*bench)
    call(*bench, "--external", "b", *pairs)
    records = [read_record(path) for path in find_records()]
    assert [r.identity.task for r in records] == ["a", "b"]
    assert [(r.meta.classes, r.meta.order) for r in records] == [(["high", "low", "mid"], ["low", "mid", "high"])] * 2
