"""The referral curve of the report: against the exact metric, and what is drawn."""

import numpy as np
import pytest

from tests.transfer.report.test_report import drawn, pair
from tests.transfer.tables.test_referral import made
from transfer.metrics.selective import Decided, measure_kept
from transfer.metrics.set_rule import SetRule
from transfer.report.referral_chart import REFERRED_SHARES, REPORT_RULE, resample_caught, row_referral_curve
from transfer.tables.build import build_sections
from transfer.tables.format import format_interval
from transfer.tables.prediction_sets import row_sets
from transfer.tables.referral import decide_part, row_referrals


@pytest.mark.parametrize("kind", ["binary", "multilabel", "multiclass"])
def test_the_curve_is_the_share_of_errors_caught_of_all_decisions(kind):
    r = made(patients=300, kind=kind, classes=("ill",) if kind == "binary" else ("a", "b", "c"))
    parts = [d for d, _ in decide_part(r, "test")]
    pooled = Decided(
        *(np.concatenate([getattr(d, name) for d in parts]) for name in ("truth", "error", "certainty")), parts[0].y, parts[0].s
    )
    exact = [measure_kept(pooled, share, np.ones((len(pooled.error), 1)), 2, ranking=False).caught[0] for share in REFERRED_SHARES]
    assert resample_caught(r)[0] == pytest.approx(np.array(exact), abs=0.01)
    curve = row_referral_curve([r])
    assert (curve.low <= curve.caught + 1e-9).all()
    assert (curve.caught <= curve.high + 1e-9).all()
    assert curve.caught[0] == 0
    assert (np.diff(curve.caught) >= 0).all()


def test_without_an_error_or_without_probabilities_there_is_no_curve():
    r = made(skill=50.0)
    assert row_referral_curve([r]) is None
    r = made()
    r.arrays["test_scores"] = r.arrays["test_scores"] * 9
    assert row_referral_curve([r]) is None


def test_the_page_has_the_tables_of_prediction_sets_and_of_referral():
    records = pair()
    page = drawn(records)
    (section,) = build_sections(records)
    row = section.rows[0]
    cells = row_sets(row, SetRule(0.9)).cells()
    assert f">{cells[0]}</td>" in page
    error = row_referrals(row, REPORT_RULE)[2].error
    assert f">{format_interval(error)}</td>" in page
    assert "share of errors caught" in page
    assert "Prediction sets" in page
