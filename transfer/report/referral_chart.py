"""Referral of the least certain images: the share of all errors that is caught over the share that is referred, and a table.

Shapes: M test images, U patients, B resamples, Q bins of certainty, G shares.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.html import Html, collapsible_section, html_table, join_html, tag
from encoders.runtime.svg import Frame, draw_band, draw_chart, draw_line
from transfer.records.average_records import has_probability_scores
from transfer.records.cached_results import cached_result
from transfer.records.record import Record
from transfer.report.context import Block, ReportContext, leak_warnings
from transfer.report.decision_chart import TREAT_NONE
from transfer.report.panels import MAX_BANDS, draw_legend, group_curve, panel_title, split_panels
from transfer.report.plots import chart_figure
from transfer.report.tables import protocol_title
from transfer.stats.bootstrap import percentile_band
from transfer.stats.patient_draws import draw_patients
from transfer.tables.referral import ReferralRule, decide_part, row_referrals
from transfer.tables.referral_table import REFERRAL_HEADER, REFERRAL_NOTE, iterate_cells
from transfer.tables.rows import Section, rows_with_most_labels

REFERRED_SHARES = np.linspace(0, 0.5, 51)
CERTAINTY_BINS = 400  # of certainty, with equal numbers of decisions
REFERRAL_RESAMPLES = 300
REPORT_RULE = ReferralRule(ranking=False, resamples=REFERRAL_RESAMPLES)
TABLE_COLUMNS = (0, 1, 2, 3, 4, 5, 7)  # of REFERRAL_HEADER; without the AUROC, whose resamples take long


class ReferralCurve(NamedTuple):
    """The share of all errors that is caught at REFERRED_SHARES (G,), with the pointwise 95 % band over test patients."""

    caught: Array
    low: Array
    high: Array


def referral_section(block: Block, context: ReportContext) -> Html | None:
    """One chart per protocol with a table below; None if no encoder has probabilities."""
    charts = [chart for s in block for chart in referral_charts(s, context)]
    if not charts:
        return None
    note = (
        "Share of all errors that is among the referred images. Dotted: referred at random. Bands: pointwise 95 % intervals from "
        f"{REFERRAL_RESAMPLES} resamples of the test patients. Decisions on several labels are counted together."
    )
    tables = [table for s in block if (table := referral_table(s, context)) is not None]
    grid = tag("div", *charts, class_="grid")
    return join_html([*leak_warnings(block, context), draw_legend(block, context), grid, tag("p", note, class_="note"), *tables])


def referral_charts(section: Section, context: ReportContext) -> list[Html]:
    """The curves of a section; [] if no score is a probability."""
    found = ((row.encoder, row_referral_curve(row.records)) for row in rows_with_most_labels(section))
    curves = {name: curve for name, curve in found if curve is not None}
    frame, charts = Frame((0.0, float(REFERRED_SHARES[-1])), (0.0, 1.0)), []
    panels = split_panels(curves, context.pens) if curves else []
    for i, names in enumerate(panels):
        marks = [draw_line(frame, REFERRED_SHARES, REFERRED_SHARES, TREAT_NONE)]
        for k, name in enumerate(names):
            c, pen = curves[name], context.pens[name]
            band = draw_band(frame, REFERRED_SHARES, c.low, c.high, pen)
            marks.append(group_curve(context.display_names[name], [draw_line(frame, REFERRED_SHARES, c.caught, pen)], band, k < MAX_BANDS))
        title = panel_title(f"referral, {protocol_title(section)}", i, len(panels))
        charts.append(chart_figure(draw_chart(frame, marks, title, "share referred", "share of errors caught"), names, context))
    return charts


def referral_table(section: Section, context: ReportContext) -> Html | None:
    """The numbers at the usual shares; None for several labels, whose table `transfer compare --refer` writes."""
    if section.rows[0].records[0].meta.kind == "multilabel":
        return None
    names, lines = context.display_names, []
    for row in rows_with_most_labels(section):
        found = row_referrals(row, REPORT_RULE)
        lines += [(names[row.encoder], cells) for cells in iterate_cells(section, row, found, REPORT_RULE, names)]
    shown = [i for i in TABLE_COLUMNS if any(cells[i] for _, cells in lines)]  # without a baseline, no difference
    header, rows = ["encoder", *(REFERRAL_HEADER[i] for i in shown)], [[name, *(cells[i] for i in shown)] for name, cells in lines]
    note = tag("p", f"{REFERRAL_NOTE}.", class_="note")
    return collapsible_section(f"Referral in numbers, {protocol_title(section)}", html_table(header, rows), note) if lines else None


def row_referral_curve(records: Sequence[Record]) -> ReferralCurve | None:
    """The curve of a row, mean over its records; None for scores that are no probabilities, and without an error."""
    return cached_result("referral curve", records, (), ReferralCurve | None, lambda: _measure_curve(records))


def _measure_curve(records: Sequence[Record]) -> ReferralCurve | None:
    if not all(has_probability_scores(record) for record in records):
        return None
    draws = np.mean([resample_caught(record) for record in records], axis=0)  # (1 + B, G)
    if np.isnan(draws[0]).any():
        return None
    return ReferralCurve(draws[0], *percentile_band(draws[1:], 0.95))


def resample_caught(record: Record, bins: int = CERTAINTY_BINS) -> FloatArray:
    """(1 + B, G) the share of errors caught on the test part, then on resamples; within a bin, decisions are equally certain."""
    from scipy.sparse import csr_array

    decided = decide_part(record, "test")
    code, drawn = draw_patients(record.arrays["test_patient"], REFERRAL_RESAMPLES, seed=record.identity.fold)
    certainty, error = (np.concatenate([getattr(d, name) for d, _ in decided]) for name in ("certainty", "error"))
    patient = np.concatenate([code[known] for _, known in decided])
    edges = np.unique(np.quantile(certainty, np.linspace(0, 1, bins + 1), method="lower")) if len(certainty) else np.zeros(1)
    bin_of = np.searchsorted(edges, certainty, side="left")  # ascending certainty: the first bins are referred first
    shape = len(edges) + 1, len(drawn)
    sums = [
        np.cumsum(csr_array((value.astype(np.float64), (bin_of, patient)), shape=shape) @ drawn.astype(np.float64), axis=0)
        for value in (np.ones(len(error)), error)
    ]
    return np.stack([_interpolate(count, wrong) for count, wrong in zip(sums[0].T, sums[1].T, strict=True)])


def _interpolate(count: Array, wrong: Array) -> FloatArray:
    """(G,) the share of errors among the first shares of the decisions. count, wrong: (Q,) cumulated."""
    if wrong[-1] == 0:
        return np.full(len(REFERRED_SHARES), np.nan)
    return np.asarray(np.interp(REFERRED_SHARES * count[-1], np.append(0.0, count), np.append(0.0, wrong)) / wrong[-1])
