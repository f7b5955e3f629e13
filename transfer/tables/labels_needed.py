"""Labels saved: the number of labeled patients with which one row's encoder and protocol reach the AUROC of another row.

Between two label fractions, the AUROC is interpolated linearly over the logarithm of the number of patients. The interval comes from
resampling the test patients and the draws of the labeled patients.

Shapes: F fractions, B resamples.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from encoders.runtime.arrays import FloatArray
from encoders.runtime.random import Purpose, generator
from transfer.records.cached_results import cached_result
from transfer.stats.bootstrap import percentile_interval
from transfer.stats.factors import Position, has_too_few_draws
from transfer.stats.parts import TestPart, all_patients, pool_parts
from transfer.tables.row_estimates import row_estimate
from transfer.tables.rows import Row

SAVINGS_RESAMPLES = 500


class LabelsNeeded(NamedTuple):
    """Texts. patients: number that the other encoder needs, or a bound.  interval: 95 %, or why there is none.  saved: with its sign."""

    patients: str
    interval: str
    saved: str


def count_needed(row: Row, others: Sequence[Row], judged: Sequence[int] | None) -> LabelsNeeded:
    """The number of labeled patients with which the encoder and protocol of `others` reach the AUROC of `row`.

    others: of one encoder under one protocol, at several numbers of labels, with the test images of `row`."""
    others = sorted(others, key=labeled_patients)
    labeled = np.array([labeled_patients(r) for r in others], float)
    areas = np.stack([resampled_auroc(r, judged) for r in others])  # (F, 1 + B), the first column without resampling
    needed = patients_needed(labeled, areas, resampled_auroc(row, judged))  # (1 + B,)
    least, most, own = labeled[0], labeled[-1], labeled_patients(row)
    point, low, high = (format_patients(v, least, most) for v in (needed[0], *needed_interval(needed[1:])))
    if row.metrics["auroc"].note or math.isnan(row.metrics["auroc"].low):
        interval = "insufficient patients"
    else:
        interval = f"{low} to {high}" if has_other_draws(row) else "insufficient draws"
    return LabelsNeeded(point, interval, format_patients(needed[0], least, most, minus=own))


def labeled_patients(row: Row) -> int:
    """Number of labeled train patients of a row, the mean over its draws; few-shot: in the support set of one episode."""
    if row.shots is not None:
        meta = row.records[0].meta
        return row.shots * (len(meta.classes) if meta.kind == "multiclass" else 2)
    return round(float(np.mean([r.meta.counts.get("train", {}).get("patients", 1) for r in row.records]))) or 1


def has_other_draws(row: Row) -> bool:
    """Whether the labeled patients of a row were drawn more than once, or are all of them."""

    def check() -> bool:
        estimate = row_estimate(row.records, row.auroc_name)
        return not has_too_few_draws(estimate.values, estimate.sampled_labels)

    return cached_result("other draws", row.records, (row.auroc_name,), bool, check)


def resampled_auroc(row: Row, judged: Sequence[int] | None) -> FloatArray:
    """(1 + B,) mean AUROC over draws: on the test part, then on resamples of its patients and of the draws, equal for all rows of a task.

    A resample adds the contributions of its patients, weighted by how often they were drawn (the bootstrap of the linear part)."""
    return cached_result("resampled", row.records, (row.auroc_name, judged), np.ndarray, lambda: _resample(row, judged))


def _resample(row: Row, judged: Sequence[int] | None) -> FloatArray:
    estimate = row_estimate(row.records, row.auroc_name, judged)
    names = all_patients(estimate.parts.values())
    by_draw: dict[tuple[int, int, int], dict[Position, TestPart]] = {}
    for position, part in estimate.parts.items():
        by_draw.setdefault((position.draw, position.seed, position.checkpoint), {})[position._replace(draw=0)] = part
    pooled = [p for parts in by_draw.values() if (p := pool_parts(parts, judged, names)) is not None]
    draw = generator(0, Purpose.BOOTSTRAP, 2)
    size = len(names)
    counts = np.stack([np.bincount(draw.integers(0, size, size), minlength=size) for _ in range(SAVINGS_RESAMPLES)]) - 1.0  # (B, G)
    areas = np.array([p.area for p in pooled])[:, None] + np.stack([p.positive + p.negative for p in pooled]) @ counts.T  # (draws, B)
    chosen = draw.multinomial(len(pooled), np.full(len(pooled), 1 / len(pooled)), SAVINGS_RESAMPLES).T / len(pooled)  # (draws, B)
    # A mean over n resampled draws varies less than one over n new ones by (n - 1) / n.
    inflate = np.sqrt(len(pooled) / (len(pooled) - 1)) if len(pooled) > 1 else 1.0
    weight = 1 / len(pooled) + inflate * (chosen - 1 / len(pooled))
    return np.append(np.mean([p.area for p in pooled]), (weight * areas).sum(axis=0))


def patients_needed(labeled: FloatArray, area: FloatArray, target: FloatArray) -> FloatArray:
    """(B,) the smallest number of patients at which `area` reaches `target`; infinity if it never does, NaN for a NaN target.

    It is at least `labeled[0]`.  labeled: (F,) ascending.  area: (F, B).  target: (B,)."""
    over = area >= target  # (F, B)
    first = np.where(over.any(axis=0), over.argmax(axis=0), len(labeled))
    out = np.where(first == 0, labeled[0], np.inf)
    for b in np.flatnonzero((first > 0) & (first < len(labeled))):
        i = int(first[b])
        below, above = area[i - 1, b], area[i, b]
        share = (target[b] - below) / (above - below)
        out[b] = np.exp(np.log(labeled[i - 1]) + share * (np.log(labeled[i]) - np.log(labeled[i - 1])))
    return np.where(np.isnan(target), np.nan, out)


def needed_interval(needed: FloatArray) -> tuple[float, float]:
    """The central 95 % of the resamples; infinity counts as larger than all finite numbers."""
    most = np.nanmax(np.where(np.isfinite(needed), needed, np.nan), initial=1.0)
    low, high = percentile_interval(np.where(np.isinf(needed), 10 * most, needed), 0.95)
    return (np.inf if low > most else low), (np.inf if high > most else high)


def format_patients(value: float, least: float, most: float, minus: int | None = None) -> str:
    """A number of patients, or a bound outside of [least, most]; with `minus`, the signed difference to that number."""
    if np.isnan(value):
        return "unknown"
    bound = "> " if value > most else "≤ " if value <= least else ""
    number = min(max(value, least), most)
    return bound + (f"{number:.0f}" if minus is None else f"{number - minus:+.0f}")
