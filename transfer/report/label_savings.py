"""Labels saved: the number of labeled patients that the baseline needs to reach an encoder's AUROC.

Between two label fractions, the AUROC is interpolated linearly over the logarithm of the number of patients. The interval comes from
resampling the test patients.

Shapes: F fractions, B resamples.
"""

from collections import Counter
from collections.abc import Mapping

import numpy as np

from encoders.runtime.arrays import FloatArray
from encoders.runtime.html import Html, html_table, join_html, tag
from transfer.metrics import auroc, macro
from transfer.report.context import Block, ReportContext
from transfer.report.tables import protocol_title
from transfer.stats.bootstrap import bootstrap_values, mean_over_labels, percentile_interval
from transfer.tables.format import format_interval
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
        f"{SAVINGS_RESAMPLES} resamples of the test patients; they do not include the variation between draws of the labeled patients. A "
        "negative number of patients saved means that the baseline needs fewer."
    )
    header = ["encoder", "protocol", "patients", "AUROC", "baseline", "baseline needs", "95 % interval", "patients saved"]
    return join_html([html_table(header, lines), tag("p", note, class_="note")])


def _savings_lines(s: Section, display_names: Mapping[str, str]) -> list[list[str]]:
    """One line per label fraction of every encoder that has a reference."""
    fractions = Counter(row.encoder for row in s.rows)
    compared = [row for row in s.rows if fractions[row.reference] > 1]
    compared = [row for row in compared if row.role == "encoder"] or compared
    names = {name for row in compared for name in (row.encoder, row.reference)}
    areas = {(r.encoder, r.fraction): resampled_auroc(r) for r in s.rows if r.encoder in names}
    lines = []
    for row in compared:
        baseline_rows = sorted((r for r in s.rows if r.encoder == row.reference), key=labeled_patients)
        labeled = np.array([labeled_patients(r) for r in baseline_rows], float)
        baseline = np.stack([areas[r.encoder, r.fraction] for r in baseline_rows])  # (F, 1 + B), the first column without resampling
        needed = patients_needed(labeled, baseline, areas[row.encoder, row.fraction])  # (1 + B,)
        least, most = labeled[0], labeled[-1]
        point, low, high = (format_patients(v, least, most) for v in (needed[0], *needed_interval(needed[1:])))
        own = labeled_patients(row)
        auroc_text = format_interval(row.metrics["auroc"])
        start = [display_names[row.encoder], protocol_title(s), str(own), auroc_text, display_names[row.reference]]
        lines.append([*start, point, f"{low} to {high}", format_patients(needed[0], least, most, minus=own)])
    return lines


def labeled_patients(row: Row) -> int:
    """Number of labeled train patients of a row, the mean over its draws."""
    return round(float(np.mean([r.meta.counts.get("train", {}).get("patients", 1) for r in row.records]))) or 1


def resampled_auroc(row: Row) -> FloatArray:
    """(1 + B,) mean AUROC over draws: on the test part, then on each resample of its patients, equal for all rows of a task."""
    total = np.zeros(1 + SAVINGS_RESAMPLES)
    for record in row.records:
        y, s, patient = record.part("test")
        full = auroc(y, s)
        values = mean_over_labels(bootstrap_values(auroc, y, s, patient, SAVINGS_RESAMPLES, seed=record.identity.fold), full)
        total += np.append(macro(full)[0], values) / len(row.records)
    return total


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
