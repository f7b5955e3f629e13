"""Calibration of deep ensembles: of the single members, of their mean, and after temperature scaling before or after averaging.

The mean of calibrated members is less confident than they are, so an ensemble needs a temperature of its own (Rahaman and Thiery 2021,
arXiv:2007.08792: pool, then calibrate). All temperatures are fitted on validation patients, and are 1
where these hold no error, which determines none.

Shapes: K members, M test images, C columns, U patients, B resamples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from transfer.metrics import brier, ece, macro, temper
from transfer.metrics.calibration import TINY, fit_known_temperature
from transfer.metrics.panel import calibrated_columns
from transfer.records.average_records import align_scores
from transfer.records.cached_results import cached_result
from transfer.records.record import Record
from transfer.stats import Interval
from transfer.stats.bootstrap import percentile_interval
from transfer.stats.patient_draws import draw_patients
from transfer.stats.patients import few_patients_note
from transfer.tables.ensemble_rows import Ensemble
from transfer.tables.row_bootstrap import TABLE_RESAMPLES
from transfer.tables.row_estimates import test_labels

VARIANTS = (
    "mean single member",
    "mean single member, each with its temperature",
    "ensemble",
    "ensemble of members with their temperatures",
    "ensemble with its own temperature",
)
COMPARED_WITH = 1  # of VARIANTS: what one training gives


@dataclass(frozen=True)
class EnsembleErrors:
    """The errors of one of VARIANTS, means over folds, draws and members.

    log_loss_difference: to the mean single member with its temperature, paired by test patient; below 0, it is better."""

    variant: str
    log_loss: float
    brier: float
    ece: float
    log_loss_difference: Interval


def ensemble_errors(ensemble: Ensemble) -> list[EnsembleErrors]:
    """One for each of VARIANTS."""
    members = [member for group in ensemble.groups for member in group]
    settings = ensemble.kind, ensemble.size
    return cached_result("ensemble errors", members, settings, list[EnsembleErrors], lambda: _measure_errors(ensemble.groups))


def _measure_errors(groups: Sequence[Sequence[Record]]) -> list[EnsembleErrors]:
    losses, scores = [], []
    for group in groups:
        variants, y, kind = list_variants(group), group[0].arrays["test_y"], group[0].meta.kind
        scores.append([[_score_probabilities(y, p, kind) for p in same] for same in variants])
        losses.append([np.mean([_resample_loss(group[0], image_log_loss(y, p, kind)) for p in same], axis=0) for same in variants])
    draws = np.mean(losses, axis=0)  # (variants, 1 + B)
    errors = np.mean([[np.mean(same, axis=0) for same in variants] for variants in scores], axis=0)  # (variants, 2)
    note = few_patients_note(*test_labels([group[0] for group in groups]))
    method = f"paired patient bootstrap, {TABLE_RESAMPLES} resamples"
    found = []
    for name, loss, (score, gap) in zip(VARIANTS, draws, errors.tolist(), strict=True):
        apart = loss - draws[COMPARED_WITH]
        difference = Interval(float(apart[0]), *percentile_interval(apart[1:], 0.95), method, 0.95, note)
        found.append(EnsembleErrors(name, float(loss[0]), score, gap, difference))
    return found


def list_variants(group: Sequence[Record]) -> list[list[Array]]:
    """(M, C) the test probabilities of each of VARIANTS: of the members K, of the ensembles one."""
    kind, first = group[0].meta.kind, group[0]
    val, test = ([align_scores(first, member, part) for member in group] for part in ("val", "test"))
    y = first.arrays["val_y"]
    own = [temper(p, fit_known_temperature(y, v, kind) or 1.0, kind) for v, p in zip(val, test, strict=True)]
    pooled_val, pooled, after = (np.asarray(np.mean(each, axis=0, dtype=np.float64)) for each in (val, test, own))
    return [test, own, [pooled], [after], [temper(pooled, fit_known_temperature(y, pooled_val, kind) or 1.0, kind)]]


def image_log_loss(y: Array, p: Array, kind: str) -> FloatArray:
    """(M, C) the log loss (nats) of every image and label, (M, 1) of several classes; NaN where the label is unknown."""
    p = np.clip(np.asarray(p, dtype=np.float64), TINY, 1 - TINY)
    if kind == "multiclass":
        return np.asarray(-np.where(y > 0.5, np.log(p), 0.0).sum(axis=1, keepdims=True) + 0 * y.sum(axis=1, keepdims=True))
    return np.asarray(-np.where(y > 0.5, np.log(p), np.log1p(-p)) + 0 * y)


def _score_probabilities(y: Array, p: Array, kind: str) -> tuple[float, float]:
    """Brier score and calibration error, means over labels."""
    means: Sequence[Callable[[], Array]] = (lambda: brier(y, p), lambda: ece(*calibrated_columns(y, p, kind)))
    score, gap = (float(macro(value())[0]) for value in means)
    return score, gap


def _resample_loss(record: Record, loss: Array) -> FloatArray:
    """(1 + B,) the mean log loss over labels: of the test part, then of resamples of its patients."""
    code, drawn = draw_patients(record.arrays["test_patient"], TABLE_RESAMPLES, seed=record.identity.fold)
    known = ~np.isnan(loss)
    columns = np.concatenate([np.where(known, loss, 0.0), known], axis=1).T
    table = np.stack([np.bincount(code, weights=column, minlength=len(drawn)) for column in columns], axis=1)  # (U, 2C)
    total, count = np.split(drawn.T.astype(np.float64) @ table, 2, axis=1)
    return np.asarray(macro(np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0))[0])
