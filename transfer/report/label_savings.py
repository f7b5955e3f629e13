"""Labels saved: how many labeled patients the baseline needs to reach what an encoder reaches with a given number of them.

Between two fractions the AUROC is taken as straight over the logarithm of the number of patients. Its uncertainty is that of the test
patients: each resample of them gives a number of its own.

Shapes: F fractions, B resamples.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from encoders.runtime.arrays import FloatArray
from encoders.runtime.html import Html, html_table, join_html, tag
from transfer.metrics import auroc, macro
from transfer.report.tables import protocol_title
from transfer.stats.bootstrap import bootstrap_values, mean_over_labels, percentile_interval
from transfer.tables import render
from transfer.tables.rows import Row, Section

SAVINGS_RESAMPLES = 500


def label_savings_section(block: Sequence[Section], shown: Mapping[str, str]) -> Html | None:
    """The table of a task; None where no baseline was benched at several fractions."""
    lines = [line for s in block for line in _savings_lines(s, shown)]
    if not lines:
        return None
    about = (
        "Labeled patients with which the baseline reaches the AUROC that the encoder has with fewer or more; between fractions read off "
        f"straight over the logarithm, beyond them only bounded (≤, >). Intervals: 95 %, {SAVINGS_RESAMPLES} resamples of the test patients; they "
        "do not hold the spread over draws of the labeled patients. Negative: the baseline needs fewer."
    )
    header = ["encoder", "protocol", "patients", "AUROC", "baseline", "baseline needs", "95 % interval", "patients saved"]
    return join_html([tag("h3", "Labels saved"), html_table(header, lines), tag("p", about, class_="note")])


def _savings_lines(s: Section, shown: Mapping[str, str]) -> list[list[str]]:
    """A line for every fraction of every encoder that was compared."""
    fractions = Counter(row.encoder for row in s.rows)
    compared = [row for row in s.rows if fractions[row.versus] > 1]
    compared = [row for row in compared if row.role == "encoder"] or compared
    asked = {name for row in compared for name in (row.encoder, row.versus)}
    areas = {(r.encoder, r.fraction): resampled_auroc(r) for r in s.rows if r.encoder in asked}
    lines = []
    for row in compared:
        theirs = sorted((r for r in s.rows if r.encoder == row.versus), key=labeled_patients)
        labeled = np.array([labeled_patients(r) for r in theirs], float)
        theirs_drawn = np.stack([areas[r.encoder, r.fraction] for r in theirs])  # (F, 1 + B), the first column is the data themselves
        needed = patients_needed(labeled, theirs_drawn, areas[row.encoder, row.fraction])  # (1 + B,)
        least, most = labeled[0], labeled[-1]
        point, low, high = (format_patients(v, least, most) for v in (needed[0], *needed_interval(needed[1:])))
        mine = labeled_patients(row)
        start = [shown[row.encoder], protocol_title(s), str(mine), render.format_interval(row.metrics["auroc"]), shown[row.versus]]
        lines.append([*start, point, f"{low} to {high}", format_patients(needed[0], least, most, less=mine)])
    return lines


def labeled_patients(row: Row) -> int:
    """Labeled train patients of a row, the mean over its draws."""
    return round(float(np.mean([r.meta.counts.get("train", {}).get("patients", 1) for r in row.records]))) or 1


def resampled_auroc(row: Row) -> FloatArray:
    """(1 + B,) mean AUROC of the draws: on the test part, then on each resample of its patients, the same for every row of a task."""
    total = np.zeros(1 + SAVINGS_RESAMPLES)
    for record in row.records:
        y, s, patient = record.part("test")
        full = auroc(y, s)
        values = mean_over_labels(bootstrap_values(auroc, y, s, patient, SAVINGS_RESAMPLES, seed=record.identity.fold), full)
        total += np.append(macro(full)[0], values) / len(row.records)
    return total


def patients_needed(labeled: FloatArray, ours: FloatArray, goal: FloatArray) -> FloatArray:
    """(B,) the fewest patients at which `ours` is at least `goal`: the first fraction's where it is there already, infinity when never.

    labeled: (F,) ascending.  ours: (F, B).  goal: (B,)."""
    over = ours >= goal  # (F, B)
    first = np.where(over.any(axis=0), over.argmax(axis=0), len(labeled))
    out = np.where(first == 0, labeled[0], np.inf)
    for b in np.flatnonzero((first > 0) & (first < len(labeled))):
        i = int(first[b])
        below, above = ours[i - 1, b], ours[i, b]
        share = (goal[b] - below) / (above - below)
        out[b] = np.exp(np.log(labeled[i - 1]) + share * (np.log(labeled[i]) - np.log(labeled[i - 1])))
    return np.where(np.isnan(goal), np.nan, out)


def needed_interval(needed: FloatArray) -> tuple[float, float]:
    """The middle 95 % of the resamples; never reached counts as more than all."""
    most = np.nanmax(np.where(np.isfinite(needed), needed, np.nan), initial=1.0)
    low, high = percentile_interval(np.where(np.isinf(needed), 10 * most, needed), 0.95)
    return (np.inf if low > most else low), (np.inf if high > most else high)


def format_patients(value: float, least: float, most: float, less: int | None = None) -> str:
    """A number of patients, or what can be said where the fractions end; `less` some, with its sign."""
    if np.isnan(value):
        return "unknown"
    bound = "> " if value > most else "≤ " if value <= least else ""
    number = min(max(value, least), most)
    return bound + (f"{number:.0f}" if less is None else f"{number - less:+.0f}")
