"""Referral of the least certain images: what is wrong among the rest, and how many of the errors are caught.

The certainty of a decision is that of the risk-coverage curve: the distance of the probability from the validation threshold, for several
classes the largest probability. Exactly the stated share of the test images is referred, so that encoders are compared at equal work; in
each resample of the test patients the cut-off is found again.

Shapes: M test images, C labels, J numbers of a share, B resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.errors import InputError
from transfer.metrics.calibration import confidence
from transfer.metrics.ranking import macro
from transfer.metrics.selective import Decided, KeptMetrics, measure_kept
from transfer.records.average_records import has_probability_scores
from transfer.records.cached_results import cached_result
from transfer.records.record import Record
from transfer.stats import Interval
from transfer.stats.bootstrap import RESAMPLE_CHUNK, percentile_interval
from transfer.stats.interval import bound_perfect_interval
from transfer.stats.patient_draws import draw_patients
from transfer.stats.patients import few_patients_note
from transfer.tables.row_bootstrap import TABLE_RESAMPLES
from transfer.tables.row_estimates import record_position, smaller_class_patients, test_labels, youden_thresholds
from transfer.tables.rows import Row, Section, rows_by_records

NUMBERS = ("error", "sensitivity", "specificity", "auroc", "caught")
DEFAULT_SHARES = (0.05, 0.1, 0.2)

_draws: WeakKeyDictionary[Record, dict[tuple[object, ...], FloatArray]] = WeakKeyDictionary()


@dataclass(frozen=True)
class ReferralRule:
    """Which shares of the images are referred; 0 is measured as well.  ranking: whether the AUROC of the rest is."""

    shares: tuple[float, ...] = DEFAULT_SHARES
    ranking: bool = True
    resamples: int = TABLE_RESAMPLES

    @property
    def all_shares(self) -> tuple[float, ...]:
        return 0.0, *self.shares


@dataclass(frozen=True)
class Referral:
    """A share of the test images is referred: what holds for the others. Means over records, intervals over test patients.

    label: "" for several classes.  sensitivity: for several classes the mean recall, and the specificity is not defined.
    caught: share of all errors that are referred.  by_cutoff: share of the test images that would be referred by the certainty below which
    this share of the validation images is."""

    label: str
    share: float
    error: Interval
    sensitivity: Interval
    specificity: Interval
    auroc: Interval
    caught: Interval
    by_cutoff: float


def parse_shares(text: str) -> ReferralRule:
    """`5,10,20%` or `0.05,0.1`: percentages if a % sign is in it. Raises InputError."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    try:
        shares = [float(word.removesuffix("%")) / (100 if "%" in text else 1) for word in words]
    except ValueError:
        shares = []
    if not shares or not all(0 < share < 1 for share in shares):
        raise InputError(f"--refer is {text!r}; expected shares of the images between 0 and 100 %, e.g. 5,10,20% or 0.05,0.1")
    return ReferralRule(tuple(sorted(set(shares))))


def gather_referrals(sections: Sequence[Section], rule: ReferralRule) -> list[tuple[Section, Row, list[Referral]]]:
    """The referrals of every row with probabilities. Raises InputError if there is none."""
    found = [(s, row, referrals) for s in sections for row in rows_by_records(s) if (referrals := row_referrals(row, rule))]
    if not found:
        raise InputError("--refer needs scores that are probabilities; few-shot scores and votes without a scale are none")
    return found


def row_referrals(row: Row, rule: ReferralRule) -> list[Referral]:
    """One referral for each label and share, with none referred first; [] for scores that are no probabilities."""
    if not all(has_probability_scores(record) for record in row.records):
        return []
    settings = rule.all_shares, rule.ranking, rule.resamples
    return cached_result("referrals", row.records, settings, list[Referral], lambda: _measure_referrals(row.records, rule))


def error_difference(row: Row, reference: Row, rule: ReferralRule) -> list[Interval] | None:
    """The error of a row less that of another on the same test patients, for each label and share; None without equal folds and draws."""
    if {record_position(r) for r in row.records} != {record_position(r) for r in reference.records}:
        return None
    settings = rule.all_shares, rule.ranking, rule.resamples, len(row.records)
    both = [*row.records, *reference.records]
    return cached_result(
        "referral difference", both, settings, list[Interval], lambda: _compare_errors(row.records, reference.records, rule)
    )


def decide_part(record: Record, part: Literal["val", "test"]) -> list[tuple[Decided, Array]]:
    """The decisions on each label of a record, or on the one class of its images, and (M,) whether the label is known."""
    y, s, _ = record.part(part)
    s = np.clip(np.asarray(s, dtype=np.float64), 0, 1)
    if record.meta.kind == "multiclass":
        correct, certainty = confidence(y, s)
        known = ~np.isnan(correct)
        return [(Decided(np.nan_to_num(y).argmax(axis=1)[known], correct[known] == 0, certainty[known], y[known], s[known]), known)]
    cut = youden_thresholds(record)
    decided = []
    for c in range(y.shape[1]):
        known = ~np.isnan(y[:, c])
        truth, p = y[known, c] > 0.5, s[known, c]
        decided.append((Decided(truth.astype(int), (p >= cut[c]) != truth, np.abs(p - cut[c]), y[known, c], p), known))
    return decided


def record_draws(record: Record, rule: ReferralRule) -> FloatArray:
    """(labels, shares, 1 + B, J) the NUMBERS on the test part, then on resamples of its patients; draws of a fold share them."""
    known_draws, key = _draws.setdefault(record, {}), (rule.all_shares, rule.ranking, rule.resamples)
    if key not in known_draws:
        known_draws[key] = np.stack([_draw_label(record, decided, known, rule) for decided, known in decide_part(record, "test")])
    return known_draws[key]


def _draw_label(record: Record, decided: Decided, known: Array, rule: ReferralRule) -> FloatArray:
    """(shares, 1 + B, J)"""
    code, drawn = draw_patients(record.arrays["test_patient"], rule.resamples, seed=record.identity.fold)
    classes = 2 if record.meta.kind != "multiclass" else len(record.meta.classes)
    parts = []
    for at in range(0, drawn.shape[1], RESAMPLE_CHUNK):
        weight = drawn[:, at : at + RESAMPLE_CHUNK][code[known]].astype(np.float64)
        numbers = [_list_numbers(measure_kept(decided, share, weight, classes, rule.ranking), record) for share in rule.all_shares]
        parts.append(np.stack(numbers))
    return np.concatenate(parts, axis=1)


def _list_numbers(m: KeptMetrics, record: Record) -> FloatArray:
    """(B, J) in the order of NUMBERS."""
    if record.meta.kind == "multiclass":
        return np.stack([m.error, np.asarray(macro(m.recall)[0]), np.full_like(m.error, np.nan), m.auroc, m.caught], axis=-1)
    return np.stack([m.error, m.recall[:, 1], m.recall[:, 0], m.auroc, m.caught], axis=-1)


def _measure_referrals(records: Sequence[Record], rule: ReferralRule) -> list[Referral]:
    values = np.mean([record_draws(record, rule) for record in records], axis=0)  # (labels, shares, 1 + B, J)
    names = [""] if records[0].meta.kind == "multiclass" else records[0].meta.classes
    moved = [np.mean([_share_below(record, share) for record in records], axis=0) for share in rule.all_shares]  # (labels,) each
    wrong = np.min([_count_wrong_patients(record) for record in records], axis=0)  # (labels,)
    fewest = smaller_class_patients(records)
    referrals = []
    for i, name in enumerate(names):
        for j, share in enumerate(rule.all_shares):
            draws = dict(zip(NUMBERS, values[i, j].T, strict=True))  # (1 + B,) each
            right = _interval(1 - draws["error"], records, rule, fewest)
            rates = [_interval(draws[number], records, rule, fewest) for number in ("sensitivity", "specificity", "auroc")]
            caught = _interval(draws["caught"], records, rule, int(wrong[i]))
            referrals.append(Referral(name, share, _complement(right), rates[0], rates[1], rates[2], caught, float(moved[j][i])))
    return referrals


def _count_wrong_patients(record: Record) -> FloatArray:
    """(labels,) the number of test patients with a wrong decision."""
    patient = record.arrays["test_patient"]
    return np.array([len(np.unique(patient[known][decided.error])) for decided, known in decide_part(record, "test")])


def _complement(rate: Interval) -> Interval:
    """The interval of one minus a rate."""
    return replace(rate, value=1 - rate.value, low=1 - rate.high, high=1 - rate.low)


def _share_below(record: Record, share: float) -> FloatArray:
    """(labels,) the share of test images below the certainty that `share` of the validation images is below."""
    pairs = zip(decide_part(record, "val"), decide_part(record, "test"), strict=True)
    return np.array([_below(test.certainty, val.certainty, share) for (val, _), (test, _) in pairs])


def _below(certainty: Array, of_validation: Array, share: float) -> float:
    if not len(certainty) or not len(of_validation):
        return float("nan")
    return float((certainty < np.quantile(of_validation, share, method="lower")).mean())  # infinite without a threshold


def _compare_errors(a: Sequence[Record], b: Sequence[Record], rule: ReferralRule) -> list[Interval]:
    one, other = (np.mean([record_draws(record, rule)[..., NUMBERS.index("error")] for record in side], axis=0) for side in (a, b))
    return [_interval(draws, a, rule) for label in one - other for draws in label]


def _interval(draws: Array, records: Sequence[Record], rule: ReferralRule, fewest: int | None = None) -> Interval:
    """The value on the test part, draws[0], with its percentile interval over resamples.

    fewest: patients that a rate of 1 rests on; None: of a paired difference."""
    value, ends = float(draws[0]), percentile_interval(draws[1:], 0.95)
    low, high = ends if fewest is None else bound_perfect_interval(value, *ends, fewest, 0.95)
    method = f"{'paired ' if fewest is None else ''}patient bootstrap, {rule.resamples} resamples"
    return Interval(value, low, high, method, 0.95, few_patients_note(*test_labels(records)))
