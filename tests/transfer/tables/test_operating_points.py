"""Decisions at an operating rule and a prevalence, checked against scikit-learn and Bayes' rule."""

import csv
import io
from functools import partial

import numpy as np
import pytest
from rich.console import Console
from sklearn.metrics import confusion_matrix, recall_score

from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir
from tests.transfer import toys
from tests.transfer.cli.test_cli import NET, call
from tests.transfer.report.test_report import Tags, drawn, made, pair
from transfer.metrics import sensitivity, specificity
from transfer.stats import cluster_bootstrap
from transfer.tables.build import build_sections
from transfer.tables.operating_points import (
    OperatingRule,
    decisions_to_csv,
    gather_decisions,
    parse_operating_rule,
    print_decisions,
    row_decisions,
)


def row(**more):
    return build_sections([made(skill=0.7, **more)])[0].rows[0]


@pytest.mark.parametrize("rule", ["sensitivity", "specificity"])
def test_the_target_is_reached_on_validation_and_the_rates_are_those_of_scikit_learn_on_test(rule):
    mine = row()
    [point] = row_decisions(mine, OperatingRule(rule, 0.8))
    record = mine.records[0]
    rates = {}
    for part in ("val", "test"):
        y, s, _ = record.part(part)
        called = s[:, 0] >= point.threshold
        rates[part] = {"sensitivity": recall_score(y[:, 0], called), "specificity": recall_score(y[:, 0], called, pos_label=0)}
    assert rates["val"][rule] >= 0.8
    for name in ("sensitivity", "specificity"):
        interval = getattr(point, name)
        assert interval.value == pytest.approx(rates["test"][name])
        assert interval.low < interval.value < interval.high
    assert point.sensitivity.value != pytest.approx(row_decisions(mine, OperatingRule(rule, 0.5))[0].sensitivity.value)


def test_predictive_values_are_those_of_as_many_patients_as_the_stated_prevalence_has():
    [seen], [rare] = (row_decisions(row(), OperatingRule("youden", prevalence=p)) for p in (None, 0.02))
    y, s, _ = row().records[0].part("test")
    tn, fp, fn, tp = confusion_matrix(y[:, 0], s[:, 0] >= seen.threshold).ravel()
    assert (seen.ppv, seen.npv, seen.prevalence) == pytest.approx((tp / (tp + fp), tn / (tn + fn), y.mean()))
    # Negatives are weighted so that 2 % of all are positive.
    often = 0.98 / 0.02 * (tp + fn) / (tn + fp)
    assert rare.ppv == pytest.approx(tp / (tp + often * fp))
    assert rare.npv == pytest.approx(often * tn / (often * tn + fn))
    assert rare.sensitivity == seen.sensitivity


def test_a_weight_counts_a_row_as_often():
    draw = np.random.default_rng(3)
    y, s = draw.integers(0, 2, (40, 2)).astype(float), draw.random((40, 2))
    y[:5, 1] = np.nan
    weight = draw.integers(0, 3, (40, 7))
    for mine, positive in ((sensitivity, 1), (specificity, 0)):
        got = mine(y, s, threshold=np.array([0.3, 0.6]), weight=weight.astype(np.float32))
        for c, cut in enumerate((0.3, 0.6)):
            known = ~np.isnan(y[:, c])
            for b in range(7):
                want = recall_score(y[known, c], s[known, c] >= cut, pos_label=positive, sample_weight=weight[known, b])
                assert got[b, c] == pytest.approx(want)


def test_labels_of_a_multi_label_task_have_a_threshold_each_and_multi_class_tasks_none():
    several = row_decisions(row(kind="multilabel", classes=("a", "b")), OperatingRule("sensitivity", 0.9))
    assert [p.label for p in several] == ["a", "b"]
    assert several[0].threshold != several[1].threshold
    assert row_decisions(row(kind="multiclass", classes=("a", "b", "c")), OperatingRule()) == []


@pytest.mark.parametrize(
    ("text", "prevalence"), [("youden=0.9", None), ("sensitivity=2", None), ("recall", None), ("sensitivity=x", None), ("youden", 1.5)]
)
def test_what_cannot_be_is_refused(text, prevalence):
    with pytest.raises(InputError, match="expected"):
        parse_operating_rule(text, prevalence)


def test_the_page_says_by_which_rule_it_decides():
    rule = parse_operating_rule("sensitivity=0.95", 0.02)
    text = " ".join(Tags(drawn(pair(), rule=rule)).text.split())
    assert "chosen on validation patients for a sensitivity of at least 0.95" in text
    assert "for a prevalence of 0.02" in text
    [point] = row_decisions(build_sections(pair())[0].rows[0], rule)
    assert f"{point.ppv:.3f}" in text


def test_compare_prints_and_writes_the_decisions(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    call("tasks", "add", "sick", toys.store(tmp_path / "toy.h5", patients=40), "--label", "sick")
    call("bench", "--protocol", "knn", "--encoder", NET, "--baseline", "none", "--device", "cpu")
    assert "Decisions" not in call("compare").stdout
    said = call("compare", "--operating", "specificity=0.8", "--prevalence", "0.1").stdout
    assert "a specificity of at least 0.8" in said
    [line] = csv.DictReader((records_dir() / "operating.csv").read_text().splitlines())
    assert (line["rule"], line["target"], line["label"]) == ("specificity", "0.8", "sick")
    assert float(line["specificity_low"]) <= float(line["specificity"]) <= float(line["specificity_high"])
    assert float(line["prevalence"]) == 0.1


def test_an_allowed_leak_is_stamped_on_the_decisions_too():
    parts, rule, out = build_sections([made(leakage=["3 patients are in train and test"])]), OperatingRule(), io.StringIO()
    found = gather_decisions(parts, rule)
    print_decisions(Console(file=out, width=160), found, rule)
    assert "LEAKAGE ALLOWED: 3 patients are in train and test" in out.getvalue()
    [line] = csv.DictReader(decisions_to_csv(found, rule).splitlines())
    assert line["leakage"] == "3 patients are in train and test"


def test_a_rate_has_the_interval_of_the_patient_bootstrap_of_its_label_alone():
    mine = row(kind="multilabel", classes=("a", "b"))
    record = mine.records[0]
    y, s, patient = record.part("test")
    for c, point in enumerate(row_decisions(mine, OperatingRule("sensitivity", 0.9))):
        alone = partial(sensitivity, threshold=point.threshold)
        want = cluster_bootstrap(alone, y[:, c], s[:, c], patient, n=1000)
        assert (point.sensitivity.low, point.sensitivity.high) == pytest.approx((want.low, want.high))
