"""The charts of one task, a panel a protocol, every encoder with the same pen throughout the page."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from encoders.runtime.html import Html, html_table, tag
from encoders.runtime.svg import Frame, LineStyle, draw_band, draw_chart, draw_diagonal, draw_dots, draw_line, draw_whiskers, line_style
from transfer.metrics import brier, ece, fit_temperature, temper
from transfer.records.record import Record
from transfer.report.curves import CURVE_GRID, gather_probabilities, pooled_risk_coverage, reliability_bins, resampled_curve
from transfer.report.label_savings import labeled_patients
from transfer.report.tables import protocol_title
from transfer.report.verdict import rows_with_most_labels
from transfer.tables.rows import Row, Section

MAX_CURVES, MAX_BANDS = 6, 3  # encoders a panel, and bands in it: more cannot be told apart
Pens = Mapping[str, LineStyle]


def assign_pens(parts: Sequence[Section]) -> dict[str, LineStyle]:
    """A pen for every encoder of the page, in order of the tables."""
    return {name: line_style(i) for i, name in enumerate(dict.fromkeys(row.encoder for s in parts for row in s.rows))}


def draw_legend(block: Sequence[Section], shown: Mapping[str, str], with_: Pens) -> Html:
    """Which line is whose."""
    keys = []
    for name in dict.fromkeys(row.encoder for s in block for row in s.rows):
        look = {"stroke": with_[name].colour, "stroke_width": 2.4, "stroke_dasharray": with_[name].dash}
        swatch = tag("svg", tag("line", x1=0, y1=6, x2=28, y2=6, **look), viewBox="0 0 28 12", class_="swatch", aria_hidden="true")
        keys.append(tag("span", swatch, " ", shown[name]))
    return tag("p", *keys, class_="legend")


def ranking_charts(section: Section, with_: Pens) -> list[Html]:
    """ROC and precision-recall curves with their bands."""
    found = []
    for kind, title, axes in (("roc", "ROC", ("1 − specificity", "sensitivity")), ("pr", "precision-recall", ("recall", "precision"))):
        frame, marks = Frame(), []
        if kind == "roc":
            marks.append(draw_diagonal(frame))
        curves = [(with_[row.encoder], resampled_curve(row.records, kind)) for row in rows_with_most_labels(section)[:MAX_CURVES]]
        marks += [draw_band(frame, CURVE_GRID, c.low, c.high, p) for p, c in curves[:MAX_BANDS]]
        marks += [draw_line(frame, CURVE_GRID, c.y, p) for p, c in curves]
        found.append(tag("figure", draw_chart(frame, marks, f"{title}, {protocol_title(section)}", *axes)))
    return found


def label_efficiency_chart(section: Section, with_: Pens) -> Html | None:
    """AUROC over the number of labeled patients; None where there is one fraction only."""
    if len({row.fraction for row in section.rows}) < 2:
        return None
    lines: dict[str, list[Row]] = {}
    for row in section.rows:
        lines.setdefault(row.encoder, []).append(row)
    labeled = sorted({labeled_patients(row) for row in section.rows})
    known = [v for row in section.rows for v in (row.metrics["auroc"].low, row.metrics["auroc"].high, row.metrics["auroc"].value)]
    spare = (labeled[-1] / labeled[0]) ** 0.06 if labeled[-1] > labeled[0] else 1.5
    frame = Frame((labeled[0] / spare, labeled[-1] * spare), axis_limits(known), log=True)
    marks: list[Html] = []
    for i, (name, rows) in enumerate(list(lines.items())[:MAX_CURVES]):
        rows.sort(key=lambda row: row.fraction)
        # Side by side, so that the whiskers of two encoders do not cover each other.
        x = np.array([labeled_patients(row) for row in rows]) * spare ** (0.18 * (i - (min(len(lines), MAX_CURVES) - 1) / 2))
        y, low, high = (np.array([getattr(row.metrics["auroc"], end) for row in rows]) for end in ("value", "low", "high"))
        marks += [
            draw_line(frame, x, y, with_[name]),
            *draw_whiskers(frame, x, low, high, with_[name]),
            *draw_dots(frame, x, y, with_[name]),
        ]
    shown = [v for i, v in enumerate(labeled) if i in (0, len(labeled) - 1) or v / labeled[0] > 1.3]
    return tag(
        "figure", draw_chart(frame, marks, f"label efficiency, {protocol_title(section)}", "labeled train patients (log)", "AUROC", shown)
    )


def axis_limits(values: Sequence[float]) -> tuple[float, float]:
    """An axis around the values, from one multiple of 0.05 to another; NaN are left out."""
    ends = [v for v in values if not math.isnan(v)] or [0.5, 1.0]
    bottom, top = math.floor(min(ends) * 20) / 20, math.ceil(max(ends) * 20) / 20
    return bottom, max(top, bottom + 0.05)


def reliability_chart(section: Section, with_: Pens, cooled: bool = False) -> Html | None:
    """The reliability diagram, as it is or with validation's temperature; None where no score is a probability."""
    frame, marks = Frame(), [draw_diagonal(Frame())]
    for row in rows_with_most_labels(section)[:MAX_CURVES]:
        found = gather_probabilities(row.records)
        if found is not None and cooled:
            found = gather_probabilities([temper_record(record)[1] for record in row.records])
        if found is not None:
            b = reliability_bins(*found)
            marks += [draw_line(frame, b["confidence"], b["frequency"], with_[row.encoder])]
            marks += draw_dots(frame, b["confidence"], b["frequency"], with_[row.encoder])
    if len(marks) == 1:
        return None
    title = f"reliability{' after temperature' if cooled else ''}, {protocol_title(section)}"
    return tag("figure", draw_chart(frame, marks, title, "mean probability", "share that is so"))


def risk_chart(section: Section, with_: Pens) -> Html | None:
    """Error over coverage, when the least confident images are left to a person; None where no score is a probability."""
    drawn = [
        (with_[row.encoder], curve_)
        for row in rows_with_most_labels(section)[:MAX_CURVES]
        if (curve_ := pooled_risk_coverage(row.records)) is not None
    ]
    if not drawn:
        return None
    top = max(float(c["risk"].max()) for _, c in drawn)
    frame = Frame((0.0, 1.0), (0.0, max(math.ceil(top * 20) / 20, 0.05)))
    marks = [draw_line(frame, _subsample(c["coverage"]), _subsample(c["risk"]), p) for p, c in drawn]
    return tag(
        "figure", draw_chart(frame, marks, f"risk and coverage, {protocol_title(section)}", "share of answers given", "error among them")
    )


def _subsample(values: np.ndarray) -> np.ndarray:
    """At most 200 of the values, the last among them: more cannot be seen and would only make the page heavy."""
    return values[np.unique(np.linspace(0, len(values) - 1, 200).round().astype(int))]


def calibration_table(block: Sequence[Section], shown: Mapping[str, str]) -> Html:
    """Calibration error and Brier score, before and after the temperature that validation patients ask for."""
    lines = []
    for section in block:
        for row in rows_with_most_labels(section):
            before = gather_probabilities(row.records)
            if before is None:
                lines.append([shown[row.encoder], protocol_title(section), "no probabilities", "", "", "", ""])
                continue
            temperatures, cooled = zip(*map(temper_record, row.records), strict=True)
            after = gather_probabilities(cooled)
            assert after is not None
            numbers = [f"{float(of(y[:, None], p[:, None])):.3f}" for of in (_binned_ece, _brier_score) for y, p in (before, after)]
            lines.append([shown[row.encoder], protocol_title(section), *numbers, f"{np.mean(temperatures):.2f}"])
    return html_table(["encoder", "protocol", "ECE", "ECE, tempered", "Brier", "Brier, tempered", "temperature"], lines)


def temper_record(record: Record) -> tuple[float, Record]:
    """The temperature of a record's validation part, and the record with its test scores divided by it."""
    t = fit_temperature(*record.part("val")[:2], kind=record.meta.kind)
    return t, Record(record.meta, {**record.arrays, "test_scores": temper(record.arrays["test_scores"], t, record.meta.kind)})


def _binned_ece(y: np.ndarray, p: np.ndarray) -> float:
    return float(ece(y, p, 10, "equal_mass")[0])


def _brier_score(y: np.ndarray, p: np.ndarray) -> float:
    return float(brier(y, p)[0])
