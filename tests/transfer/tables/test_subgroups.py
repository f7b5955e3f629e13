"""Subgroup metrics by sex, age band, view and site, checked against the metric on those rows; coverage of the gap intervals."""

import csv

import numpy as np
import pytest
from scipy.stats import norm
from sklearn import metrics as sk

from encoders.runtime.errors import InputError
from encoders.store.write import save_store
from tests.transfer import toys
from tests.transfer.cli.test_cli import NET, call
from tests.transfer.records.test_record import identity
from transfer import metrics as m
from transfer.records.ledger import read_ledger
from transfer.records.record import GROUP_PREFIX, Meta, Record, find_records, read_record, write_record
from transfer.records.statistics_file import save_results
from transfer.records.stored_arrays import StoredArrays
from transfer.stats import pooled_gap, pooled_interval
from transfer.tables.subgroups import compute_subgroups, list_group_columns, parse_age_bands
from transfer.tasks.group_columns import is_age_column, name_groups, order_groups


def record(patients=80, seed=0, kind="binary", fold=0, c=1, **columns):
    """Two images per patient; the AUROC is higher for women than for men; `columns` are group columns by patient."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for part in ("val", "test"):
        who = np.repeat(np.arange(patients), 2)
        sick = (who % 2)[:, None] == np.arange(1, c + 1) % 2 if kind != "multiclass" else (who % c)[:, None] == np.arange(c)
        shift = np.where(who % 4 < 2, 2.5, 0.8)[:, None]
        z = sick * shift + rng.normal(size=sick.shape)
        p = norm.cdf(z - 1) if kind != "multiclass" else np.exp(z) / np.exp(z).sum(1, keepdims=True)
        arrays |= {
            f"{part}_key": np.array([f"{part}{i}" for i in range(len(who))]),
            f"{part}_patient": np.array([f"{part}{w}" for w in who]),
        }
        arrays |= {f"{part}_y": sick.astype(np.float32), f"{part}_scores": p}
    groups = {"sex": np.where(np.arange(patients) % 4 < 2, "F", "M"), "age": np.arange(patients, dtype=float), **columns}
    arrays |= {GROUP_PREFIX + name: np.repeat(values, 2) for name, values in groups.items()}
    return Record(Meta(identity=identity(fold=fold), kind=kind, classes=list("abc")[:c]), arrays)


def test_columns_of_names_and_dates_in_records_of_earlier_versions_are_not_shown_and_this_is_kept(monkeypatch):
    n = np.arange(80)
    people = {"patient_name": np.char.add("Erika ", (n % 3).astype(str)), "seen": np.where(n % 2, "1961-05-07", "1999-12-31")}
    path = write_record(record(**people, view=np.where(n % 2, "AP", "PA")))
    with pytest.raises(InputError, match="patient_name"):
        compute_subgroups([read_record(path)], ["patient_name"])
    assert list_group_columns([read_record(path)]) == ["age", "sex", "view"]
    save_results()
    kept = read_record(path)
    monkeypatch.setattr(StoredArrays, "__getitem__", lambda self, name: pytest.fail(f"{name} was read"))
    assert list_group_columns([kept]) == ["age", "sex", "view"]


def test_a_groups_metrics_are_those_of_its_rows_with_the_thresholds_of_all_validation_patients():
    one = record()
    y, s, _ = one.part("test")
    cut = m.choose_threshold(one.arrays["val_y"][:, 0], one.arrays["val_scores"][:, 0])
    everybody, *rest = compute_subgroups([one], ["sex"])
    assert [(g.column, g.name, g.images, g.patients) for g in rest] == [("sex", "F", 80, 40), ("sex", "M", 80, 40)]
    assert (everybody.images, everybody.gap) == (160, None)
    for group in rest:
        rows = one.groups["sex"] == group.name
        truth, guess = y[rows, 0], s[rows, 0] >= cut
        assert group.metrics["auroc"] == pytest.approx(sk.roc_auc_score(truth, s[rows, 0]))
        assert group.metrics["ap"] == pytest.approx(sk.average_precision_score(truth, s[rows, 0]))
        assert group.metrics["accuracy"] == pytest.approx(sk.accuracy_score(truth, guess))
        assert group.metrics["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(truth, guess))
        assert group.metrics["macro_f1"] == pytest.approx(sk.f1_score(truth, guess))
        assert group.metrics["mcc"] == pytest.approx(sk.matthews_corrcoef(truth, guess))
        assert group.metrics["kappa"] == pytest.approx(sk.cohen_kappa_score(truth, guess))
        assert group.metrics["sensitivity"] == pytest.approx(sk.recall_score(truth, guess))
        assert group.metrics["specificity"] == pytest.approx(sk.recall_score(1 - truth, ~guess))
        assert group.metrics["ppv"] == pytest.approx(sk.precision_score(truth, guess))
        assert group.metrics["brier"] == pytest.approx(sk.brier_score_loss(truth, s[rows, 0]))
        assert group.metrics["log_loss"] == pytest.approx(sk.log_loss(truth, s[rows, 0]))
        warm = m.temper(s[rows], m.fit_temperature(one.arrays["val_y"], one.arrays["val_scores"]))
        assert group.metrics["log_loss_tempered"] == pytest.approx(sk.log_loss(truth, warm[:, 0]))
        parts = [group.metrics[f"brier_{name}"] for name in ("reliability", "resolution", "uncertainty", "within")]
        assert parts[0] - parts[1] + parts[2] + parts[3] == pytest.approx(group.metrics["brier"])
        assert group.intervals["auroc"].low < group.metrics["auroc"] < group.intervals["auroc"].high


def test_a_multi_class_panel_agrees_with_scikit_learn():
    one = record(c=3, kind="multiclass", patients=90)
    y, s, _ = one.part("test")
    code, guess = y.argmax(1), s.argmax(1)
    got = compute_subgroups([one], [])[0].metrics
    assert got["log_loss"] == pytest.approx(sk.log_loss(code, s))
    assert "quadratic_kappa" not in got  # the classes have no order
    assert got["macro_f1"] == pytest.approx(sk.f1_score(code, guess, average="macro"))
    assert got["auroc"] == pytest.approx(sk.roc_auc_score(code, s, multi_class="ovr"))
    assert "sensitivity" not in got  # a multi-class task has no threshold


def test_the_gap_is_to_all_others_and_finds_the_group_that_is_served_worse():
    groups = {g.name: g for g in compute_subgroups([record(patients=200)], ["sex"])}
    women, men = groups["F"], groups["M"]
    assert men.gap.value == pytest.approx(men.metrics["auroc"] - women.metrics["auroc"])
    assert men.gap.verdict == "worse"
    assert (women.gap.value, women.gap.low, women.gap.high) == pytest.approx((-men.gap.value, -men.gap.high, -men.gap.low))
    assert men.holm_p == pytest.approx(min(1.0, 2 * men.gap.p))


def test_small_groups_are_warned_of_and_what_is_not_stated_is_a_group():
    sex = np.where(np.arange(80) < 70, np.where(np.arange(80) % 2, "F", "M"), "")
    groups = {g.name: g for g in compute_subgroups([record(sex=sex)], ["sex"])}
    assert groups["not stated"].patients == 10
    assert groups["not stated"].notes == ["insufficient patients: 5 in the smaller class, at least 20 are needed"]
    assert np.isnan(groups["F"].metrics["auroc"])  # every second patient is sick, and so is every woman: one class only
    assert np.isnan(groups["F"].gap.p)
    assert groups["F"].gap.verdict == "insufficient patients"


def test_ages_become_bands_that_each_hold_their_lower_end():
    ages = np.array([0.5, 17.9, 18, 39.9, 40, 65, 90, np.nan])
    names = name_groups("age", ages)
    assert names.tolist() == ["under 18"] * 2 + ["18 to under 40"] * 2 + ["40 to under 65", "65 and over", "65 and over", "not stated"]
    assert order_groups("age", names) == ["under 18", "18 to under 40", "40 to under 65", "65 and over", "not stated"]
    assert name_groups("age", ages, (5,)).tolist()[:2] == ["under 5", "5 and over"]
    assert is_age_column("Patient Age")
    assert not is_age_column("image")
    assert parse_age_bands("5, 12") == (5.0, 12.0)
    with pytest.raises(InputError, match="ascending"):
        parse_age_bands("12,5")


def test_folds_give_the_mean_of_their_values_and_one_interval():
    folds = [record(seed=i, fold=i) for i in range(3)]
    for i, one in enumerate(folds):
        one.arrays["test_patient"] = np.char.add(one.arrays["test_patient"], f"f{i}")
    group = next(g for g in compute_subgroups(folds, ["sex"]) if g.name == "F")
    assert group.patients == 120
    each = [
        sk.roc_auc_score(r.arrays["test_y"][r.groups["sex"] == "F", 0], r.arrays["test_scores"][r.groups["sex"] == "F", 0]) for r in folds
    ]
    assert group.metrics["auroc"] == pytest.approx(np.mean(each)) == pytest.approx(group.intervals["auroc"].value)


def test_a_record_keeps_its_groups_and_a_column_it_lacks_is_named():
    back = read_record(write_record(record()))
    assert list_group_columns([back]) == ["age", "sex"]
    np.testing.assert_array_equal(back.groups["sex"], record().groups["sex"])
    with pytest.raises(InputError, match=r"(?s)'site'.*transfer bench.* adds new ones"):
        compute_subgroups([back], ["site"])


def scored(patients, shift, rng, names):
    y = np.arange(patients) % 2.0
    return y, y * shift + rng.normal(size=patients), names


@pytest.mark.slow
def test_gaps_of_groups_that_do_not_differ_are_false_at_most_six_times_in_a_hundred_and_cover():
    """Groups of different size, AUROC near 0.92, where a Wald interval is too narrow; and patients who are in both groups."""
    for shared in (False, True):
        inside, said = [], []
        for seed in range(400):
            rng = np.random.default_rng(seed)
            a, b = (scored(n, 2.0, rng, np.arange(n) + (0 if shared else 1000 * n)) for n in (60, 160))
            got = pooled_gap([[a]], [[b]])
            inside.append(got.low <= 0 <= got.high)
            said.append(got.p < 0.05)
        assert np.mean(inside) >= 0.93
        assert np.mean(said) == pytest.approx(1 - np.mean(inside), abs=0.005)


def test_a_gap_to_a_group_without_a_mistake_has_a_width():
    rng = np.random.default_rng(0)
    perfect = np.arange(60) % 2.0, np.arange(60) % 2.0, np.arange(60)
    got = pooled_gap([[perfect]], [[scored(60, 1.5, rng, np.arange(60) + 100)]])
    alone = pooled_interval([[perfect]])
    assert got.low < got.value < got.high
    assert alone.low < alone.value == alone.high == 1.0


def grouped_store(path, groups=True):
    """Toy images with group columns in /meta; a file number, which is not a group column, and a site without values."""
    who = np.repeat(np.arange(40), 2)
    meta = {"sex": np.where(who % 3 == 0, "F", "M"), "age": 20.0 + who, "number": np.arange(80.0), "site": [""] * 80}
    sick = (who % 2).astype(float)
    images = toys.pictures(sick, np.zeros(80))
    return save_store(path, images, patient=[f"p{w}" for w in who], labels={"sick": sick}, meta=meta if groups else None)


def test_the_bench_takes_groups_from_the_store_and_compare_shows_them(tmp_path):
    call("tasks", "add", "sick", grouped_store(tmp_path / "s.h5", groups=False), "--label", "sick")
    call("bench", "--encoder", NET, "--protocol", "knn", "--device", "cpu", "--no-floor")
    with pytest.raises(InputError, match=r"(?s)'sex'.*transfer bench.* adds new ones"):
        call("compare", "--by", "sex")
    grouped_store(tmp_path / "s.h5")  # the same pixels, so the same records
    call("bench", "--encoder", NET, "--protocol", "knn", "--device", "cpu", "--no-floor")
    assert len(read_ledger()) == 1  # group columns are added without scoring the test part again
    (path,) = find_records()
    assert list_group_columns([read_record(path)]) == ["age", "sex"]
    shown = call("compare", "--by", "sex,age", "--age-bands", "40")
    for word in ("sex: F", "sex: M", "age: under 40", "age: 40 and over", "insufficient patients", "to all others"):
        assert word in shown.output
    table = list(csv.DictReader((path.parents[1] / "subgroups.csv").read_text().splitlines()))
    assert [row["group"] for row in table] == ["all", "F", "M", "under 40", "40 and over"]
    assert sum(int(row["images"]) for row in table[1:3]) == int(table[0]["images"])
    assert {"auroc", "ap_micro", "ece_equal_mass_tempered", "brier_resolution", "npv", "gap_p_holm"} <= set(table[0])
