"""Labels saved: the number of labeled patients that the baseline needs to reach an encoder's AUROC.

Between two label fractions, the AUROC is interpolated linearly over the logarithm of the number of patients. The interval comes from
resampling the test patients and the draws of the labeled patients.

Shapes: F fractions, B resamples.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from encoders.runtime.arrays import FloatArray
from encoders.runtime.html import Html, html_table, join_html, tag
from encoders.runtime.random import Purpose, generator
from transfer.records.cached_results import cached_result
from transfer.report.context import Block, ReportContext
from transfer.report.tables import protocol_title
from transfer.stats.bootstrap import percentile_interval
from transfer.stats.factors import Position, has_too_few_draws
from transfer.stats.parts import TestPart, all_patients, pool_parts
from transfer.tables.format import format_interval
from transfer.tables.row_estimates import row_estimate
from transfer.tables.rows import Row, Section

SAVINGS_RESAMPLES = 500


def label_savings_section(block: Block, context: ReportContext) -> Html | None:
    """The table of a task; None if no baseline was benchmarked at several label fractions."""
    lines = [line for s in block for line in _savings_lines(s, context.display_names)]
    if not lines:
        return None
    note = (
        "Number of labeled patients with which the baseline reaches the AUROC of the encoder. Between label fractions it is interpolated "
        "linearly over the logarithm of the number of patients; beyond them only a bound is given (≤, >). Intervals: 95 %, from "
        f"{SAVINGS_RESAMPLES} resamples of the test patients and of the draws of the labeled patients. A "
        "negative number of patients saved means that the baseline needs fewer."
    )
    header = ["encoder", "protocol", "patients", "AUROC", "baseline", "baseline needs", "95 % interval", "patients saved"]
    return join_html([html_table(header, lines), tag("p", note, class_="note")])


def _savings_lines(s: Section, display_names: Mapping[str, str]) -> list[list[str]]:
    """One line per number of labeled patients of every encoder that has a reference."""
    sizes = Counter(row.encoder for row in s.rows)
    compared = [row for row in s.rows if row.primary is not None and sizes[row.reference] > 1]
    compared = [row for row in compared if row.role == "encoder"] or compared
    names = {name for row in compared for name in (row.encoder, row.reference)}
    areas = {id(r): resampled_auroc(r, s.judged) for r in s.rows if r.encoder in names}
    lines = []
    for row in compared:
        baseline_rows = sorted((r for r in s.rows if r.encoder == row.reference), key=labeled_patients)
        labeled = np.array([labeled_patients(r) for r in baseline_rows], float)
        baseline = np.stack([areas[id(r)] for r in baseline_rows])  # (F, 1 + B), the first column without resampling
        needed = patients_needed(labeled, baseline, areas[id(row)])  # (1 + B,)
        least, most = labeled[0], labeled[-1]
        point, low, high = (format_patients(v, least, most) for v in (needed[0], *needed_interval(needed[1:])))
        own = labeled_patients(row)
        auroc_text = format_interval(row.metrics["auroc"])
        start = [display_names[row.encoder], protocol_title(s), str(own), auroc_text, display_names[row.reference]]
        if row.metrics["auroc"].note or math.isnan(row.metrics["auroc"].low):
            interval = "insufficient patients"
        else:
            interval = f"{low} to {high}" if has_other_draws(row) else "insufficient draws"
        lines.append([*start, point, interval, format_patients(needed[0], least, most, minus=own)])
    return lines


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
