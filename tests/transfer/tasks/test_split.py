"""Splits: no patient in two parts, balanced labels, and nothing that depends on the order of rows."""

from collections import Counter

import numpy as np
import pytest

from encoders.runtime.errors import InputError
from tests.transfer import toys
from transfer.tasks import folds_and_fractions, load, split, task
from transfer.tasks.task import SplitRule


def people(n=200, seed=0):
    """Patients with one to six images; every fourth is positive, some are mixed."""
    draw = np.random.default_rng(seed)
    who = np.repeat(np.arange(n), draw.integers(1, 7, n))
    y = (who % 4 == 0) | ((who % 10 == 1) & (draw.random(len(who)) < 0.5))
    patient = np.array([f"p{i:03d}" for i in who], dtype=object)
    return np.array([f"i{i}" for i in range(len(who))], dtype=object), patient, y[:, None].astype(float)


def make(rule=None, sha=None, column=None, rows=None):
    key, patient, y = people()
    at = slice(None) if rows is None else rows
    pick = lambda a: None if a is None else np.asarray(a, dtype=object)[at]  # noqa: E731
    return split.make_split(rule or SplitRule(), key[at], patient[at], pick(sha), y[at], pick(column)), key[at], patient[at], y[at]


def test_no_patient_is_in_two_parts():
    made, _, patient, _ = make()
    parts = [set(patient[made.rows(p)]) for p in split.PARTS]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 200


def test_parts_have_their_share_of_images_and_of_positives():
    made, key, _, y = make()
    for part, share in (("train", 0.6), ("val", 0.2), ("test", 0.2)):
        rows = made.rows(part)
        assert len(rows) / len(key) == pytest.approx(share, abs=0.02)
        assert y[rows].mean() == pytest.approx(y.mean(), abs=0.04)


def test_the_split_does_not_depend_on_the_order_of_rows():
    whole, key, _, _ = make()
    order = np.random.default_rng(1).permutation(len(key))
    other, keys, _, _ = make(rows=order)
    assert dict(zip(key, whole.part, strict=True)) == dict(zip(keys, other.part, strict=True))
    assert whole.hash == other.hash


@pytest.mark.parametrize("seed", range(20))
def test_a_stratum_is_the_rarest_positive_label_of_a_group(seed):
    draw = np.random.default_rng(seed)
    n, c = int(draw.integers(1, 60)), int(draw.integers(1, 6))
    group = np.array([f"g{i}" for i in draw.integers(0, 20, n)], dtype=object)
    y = np.where(draw.random((n, c)) < 0.2, np.nan, draw.random((n, c)) < draw.random(c))
    have = {g: {k for i in range(n) for k in range(c) if group[i] == g and y[i, k] == 1} for g in group}
    count = Counter(k for labels in have.values() for k in labels)
    for g, stratum in split.assign_strata(group, y).items():
        others = len(have[g]) > 1 or any(group[i] == g and not (y[i] == 1).any() for i in range(n))
        rarest = min(have[g], key=lambda k: (count[k], k), default=None)
        assert stratum == ("none" if rarest is None else f"{rarest}{'+' if others else ''}")


def test_the_seed_and_nothing_else_changes_the_split():
    assert make(SplitRule(seed=1))[0].hash == make(SplitRule(seed=1))[0].hash != make(SplitRule(seed=2))[0].hash


def test_patients_who_share_an_identical_image_stay_together_directly_and_through_others():
    _, patient, _ = people()
    sha = np.array([f"s{i}" for i in range(len(patient))], dtype=object)
    of = {p: np.flatnonzero(patient == p)[0] for p in ("p000", "p001", "p002", "p003")}
    sha[of["p001"]] = sha[of["p000"]]
    sha[np.flatnonzero(patient == "p001")[-1]] = sha[of["p002"]] if Counter(patient)["p001"] > 1 else sha[of["p001"]]
    for seed in range(5):
        made, _, who, _ = make(SplitRule(seed=seed), sha)
        together = [{made.part[i] for i in np.flatnonzero(who == p)} for p in ("p000", "p001")]
        assert together[0] == together[1]
        assert len(together[0]) == 1
        assert not set(sha[made.rows("train")]) & set(sha[made.rows("test")])


def test_chains_of_identical_images_make_one_group():
    group = split.group_patients(["d", "c", "b", "a", "x"], ["1", "1", "2", "3", "9"])
    assert group.tolist() == ["c", "c", "b", "a", "x"]
    group = split.group_patients(["d", "c", "c", "b", "b", "a"], ["1", "1", "2", "2", "3", "3"])
    assert set(group) == {"a"}


def test_images_without_a_known_label_are_in_no_part():
    key, patient, y = people()
    y[:50] = np.nan
    made = split.make_split(SplitRule(), key, patient, None, y)
    assert (made.part[:50] == "").all()
    assert (made.part[50:] != "").all()


def test_an_official_split_is_kept_and_its_missing_validation_part_comes_from_train_patients():
    _, patient, _ = people()
    column = np.array(["TEST" if int(p[1:]) % 5 == 0 else "Train" for p in patient], dtype=object)
    made, _, who, y = make(SplitRule(column="split"), column=column)
    assert {int(p[1:]) % 5 for p in who[made.rows("test")]} == {0}
    assert len(made.rows("test")) == (column == "TEST").sum()
    train, val = set(who[made.rows("train")]), set(who[made.rows("val")])
    assert not train & val
    assert len(made.rows("val")) / (column == "Train").sum() == pytest.approx(0.2, abs=0.02)
    assert y[made.rows("val")].mean() == pytest.approx(y[made.rows("train")].mean(), abs=0.05)
    assert any("20%" in line for line in made.messages)


def test_an_official_validation_part_is_used_as_it_is():
    _, patient, _ = people()
    named = ["train", "train", "valid", "test"]
    column = np.array([named[int(p[1:]) % 4] for p in patient], dtype=object)
    made, _, _, _ = make(SplitRule(column="split"), column=column)
    np.testing.assert_array_equal(made.part == "val", column == "valid")


def test_a_patient_in_two_official_parts_is_refused_with_the_ways_out():
    _, patient, _ = people()
    column = np.array(["test" if i % 2 else "train" for i in range(len(patient))], dtype=object)
    twice = sum(1 for p in set(patient) if len(set(column[patient == p])) > 1)
    with pytest.raises(InputError, match=rf"^{twice} patients .*p00\d.*--split-column none.*--patients-by-split"):
        make(SplitRule(column="split"), column=column)
    made, _, who, _ = make(SplitRule(column="split", patients_by_split=True), column=column)
    assert (made.part == "test").sum() == (column == "test").sum()
    assert not set(who[made.rows("train")]) & set(who[made.rows("val")])


@pytest.mark.parametrize(("values", "message"), [(["train", "holdout"], "holdout"), (["train", "train"], "has no test image")])
def test_an_official_split_that_cannot_be_read_is_refused(values, message):
    _, patient, _ = people()
    column = np.array([values[int(p[1:]) % 2] for p in patient], dtype=object)
    with pytest.raises(InputError, match=message):
        make(SplitRule(column="split"), column=column)


def test_too_few_patients_are_refused():
    with pytest.raises(InputError, match="too few for this split"):
        split.make_split(SplitRule(), ["a", "b"], ["p", "q"], None, np.array([[0.0], [1.0]]))


def test_multilabel_splits_spread_a_rare_label_over_the_parts():
    key, patient, _ = people()
    number = np.array([int(p[1:]) for p in patient])
    y = np.stack([number % 2 == 0, number % 20 == 3], axis=1).astype(float)
    y[::7, 0] = np.nan
    made = split.make_split(SplitRule(), key, patient, None, y)
    assert all(len(set(patient[made.rows(p)][y[made.rows(p), 1] == 1])) >= 1 for p in split.PARTS)


@pytest.fixture
def cohort(tmp_path):
    where = toys.store(tmp_path / "toy.h5", patients=60)
    return load.load_task(task.Task(name="t", store=[str(where)], labels=["sick"], kind="binary", classes=["sick"]))


def test_label_fractions_are_nested_drawn_by_patient_and_leave_the_test_part_alone(cohort):
    made = {p.fraction: p.split for p in folds_and_fractions.build_portions(cohort, [0.1, 0.5, 1.0])}
    for part in ("train", "val"):
        rows = [set(made[f].rows(part)) for f in (0.1, 0.5, 1.0)]
        assert rows[0] < rows[1] < rows[2]
        kept = set(cohort.patient[made[0.5].rows(part)])
        assert sum(p in kept for p in cohort.patient[cohort.split.rows(part)]) == len(rows[1])
        assert len(rows[1]) == pytest.approx(len(rows[2]) / 2, abs=4)
        assert len(set(cohort.y[made[0.1].rows(part), 0])) == 2
    for other in made.values():
        np.testing.assert_array_equal(other.rows("test"), cohort.split.rows("test"))


def test_draws_differ_and_all_labels_are_drawn_once(cohort):
    made = folds_and_fractions.build_portions(cohort, [0.2, 1.0], draws=3)
    assert [(p.fraction, p.draw) for p in made] == [(0.2, 0), (0.2, 1), (0.2, 2), (1.0, 0)]
    assert len({tuple(p.split.rows("train")) for p in made[:3]}) == 3
    (only, every) = folds_and_fractions.build_portions(cohort, [0.2, 1.0], only_draw=2)
    assert (only.draw, every.draw) == (2, 0)
    np.testing.assert_array_equal(only.split.part, made[2].split.part)


def test_every_patient_is_tested_in_exactly_one_fold(cohort):
    made = folds_and_fractions.build_portions(cohort, folds=5)
    tested = np.concatenate([p.split.rows("test") for p in made])
    assert sorted(tested) == list(range(len(cohort.key)))
    for p in made:
        parts = [set(cohort.patient[p.split.rows(name)]) for name in split.PARTS]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 60
    assert len({p.split.hash for p in made}) == 5
    assert len({p.partition for p in made}) == 1


def test_a_number_of_patients_is_exact_nested_and_leaves_the_test_part_alone(cohort):
    counts = (2, 5, 11, 20)
    made = {p.patients: p for p in folds_and_fractions.build_portions(cohort, [], patients=counts)}
    whole = cohort.split
    before: set[int] = set()
    for n in counts:
        part = made[n].split
        train = part.rows("train")
        assert len(set(cohort.patient[train])) == n
        assert set(train) >= before
        before = set(train)
        assert np.array_equal(part.rows("test"), whole.rows("test"))
        # All images of a patient, or none.
        assert set(train) == set(np.flatnonzero(np.isin(cohort.patient, cohort.patient[train]) & (whole.part == "train")))
        share = n / len(set(cohort.patient[whole.rows("train")]))
        assert made[n].fraction == pytest.approx(share)
        assert len(set(cohort.patient[part.rows("val")])) == max(1, round(share * len(set(cohort.patient[whole.rows("val")]))))
        sick = {p for p, y in zip(cohort.patient[train], cohort.y[train, 0], strict=True) if y}
        assert abs(len(sick) - n / 2) <= 1  # half of the toy's patients are sick
    draws = folds_and_fractions.build_portions(cohort, [], draws=3, patients=[5])
    assert len({tuple(p.split.rows("train")) for p in draws}) == 3
    with pytest.raises(InputError, match="1000p, but the train part"):
        folds_and_fractions.build_portions(cohort, [], patients=[1000])


@pytest.mark.parametrize("wrong", [{"fractions": [0.0]}, {"fractions": [1.5]}, {"draws": 0}, {"folds": 59}])
def test_impossible_portions_are_refused(cohort, wrong):
    with pytest.raises(InputError):
        folds_and_fractions.build_portions(cohort, **wrong)


def test_patients_with_many_images_are_as_likely_in_every_part():
    """A split that put the largest patients into the largest part would test on different patients than it trains on."""
    _, patient, y = people(2000)
    group = split.group_patients(patient)
    size = Counter(patient)
    per_patient = {p: [] for p in split.PARTS}
    for name, part in split.assign_parts(group, y, {"train": 0.6, "val": 0.2, "test": 0.2}, seed=0).items():
        per_patient[part].append(size[name])
    means = [np.mean(v) for v in per_patient.values()]
    assert max(means) - min(means) < 0.35  # 3.5 images per patient, standard error of the smallest part 0.085
    assert len(per_patient["train"]) / 2000 == pytest.approx(0.6, abs=0.02)
