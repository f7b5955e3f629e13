"""The charts of one task, a panel a protocol, every encoder with the same pen throughout the page."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from encoders.runtime.html import Html, table, tag
from encoders.runtime.svg import Frame, Pen, band, chart, diagonal, dots, line, pen, whiskers
from transfer.metrics import brier, ece, fit_temperature, temper
from transfer.record import Record
from transfer.report.curves import GRID, bins, curve, probabilities, refusal
from transfer.report.saved import patients
from transfer.report.tables import protocol
from transfer.report.verdict import full
from transfer.table import Row, Section

MOST, BANDS = 6, 3  # encoders a panel, and bands in it: more cannot be told apart
Pens = Mapping[str, Pen]


def pens(parts: Sequence[Section]) -> dict[str, Pen]:
    """A pen for every encoder of the page, in order of the tables."""
    return {name: pen(i) for i, name in enumerate(dict.fromkeys(row.encoder for s in parts for row in s.rows))}


def legend(block: Sequence[Section], shown: Mapping[str, str], with_: Pens) -> Html:
    """Which line is whose."""
    keys = []
    for name in dict.fromkeys(row.encoder for s in block for row in s.rows):
        look = {"stroke": with_[name].colour, "stroke_width": 2.4, "stroke_dasharray": with_[name].dash}
        swatch = tag("svg", tag("line", x1=0, y1=6, x2=28, y2=6, **look), viewBox="0 0 28 12", class_="swatch", aria_hidden="true")
        keys.append(tag("span", swatch, " ", shown[name]))
    return tag("p", *keys, class_="legend")


def ranking(section: Section, with_: Pens) -> list[Html]:
    """ROC and precision-recall curves with their bands."""
    found = []
    for kind, title, axes in (("roc", "ROC", ("1 − specificity", "sensitivity")), ("pr", "precision-recall", ("recall", "precision"))):
        frame, marks = Frame(), []
        if kind == "roc":
            marks.append(diagonal(frame))
        curves = [(with_[row.encoder], curve(row.records, kind)) for row in full(section)[:MOST]]
        marks += [band(frame, GRID, c.low, c.high, p) for p, c in curves[:BANDS]]
        marks += [line(frame, GRID, c.y, p) for p, c in curves]
        found.append(tag("figure", chart(frame, marks, f"{title}, {protocol(section)}", *axes)))
    return found


def efficiency(section: Section, with_: Pens) -> Html | None:
    """AUROC over the number of labeled patients; None where there is one fraction only."""
    if len({row.fraction for row in section.rows}) < 2:
        return None
    lines: dict[str, list[Row]] = {}
    for row in section.rows:
        lines.setdefault(row.encoder, []).append(row)
    labeled = sorted({patients(row) for row in section.rows})
    known = [v for row in section.rows for v in (row.metrics["auroc"].low, row.metrics["auroc"].high, row.metrics["auroc"].value)]
    spare = (labeled[-1] / labeled[0]) ** 0.06 if labeled[-1] > labeled[0] else 1.5
    frame = Frame((labeled[0] / spare, labeled[-1] * spare), spanned(known), log=True)
    marks: list[Html] = []
    for i, (name, rows) in enumerate(list(lines.items())[:MOST]):
        rows.sort(key=lambda row: row.fraction)
        # Side by side, so that the whiskers of two encoders do not cover each other.
        x = np.array([patients(row) for row in rows]) * spare ** (0.18 * (i - (min(len(lines), MOST) - 1) / 2))
        y, low, high = (np.array([getattr(row.metrics["auroc"], end) for row in rows]) for end in ("value", "low", "high"))
        marks += [line(frame, x, y, with_[name]), *whiskers(frame, x, low, high, with_[name]), *dots(frame, x, y, with_[name])]
    shown = [v for i, v in enumerate(labeled) if i in (0, len(labeled) - 1) or v / labeled[0] > 1.3]
    return tag("figure", chart(frame, marks, f"label efficiency, {protocol(section)}", "labeled train patients (log)", "AUROC", shown))


def spanned(values: Sequence[float]) -> tuple[float, float]:
    """An axis around the values, from one multiple of 0.05 to another; NaN are left out."""
    ends = [v for v in values if not math.isnan(v)] or [0.5, 1.0]
    bottom, top = math.floor(min(ends) * 20) / 20, math.ceil(max(ends) * 20) / 20
    return bottom, max(top, bottom + 0.05)


def calibrations(section: Section, with_: Pens, cooled: bool = False) -> Html | None:
    """The reliability diagram, as it is or with validation's temperature; None where no score is a probability."""
    frame, marks = Frame(), [diagonal(Frame())]
    for row in full(section)[:MOST]:
        found = probabilities(row.records)
        if found is not None and cooled:
            found = probabilities([tempered(record)[1] for record in row.records])
        if found is not None:
            b = bins(*found)
            marks += [line(frame, b["confidence"], b["frequency"], with_[row.encoder])]
            marks += dots(frame, b["confidence"], b["frequency"], with_[row.encoder])
    if len(marks) == 1:
        return None
    title = f"reliability{' after temperature' if cooled else ''}, {protocol(section)}"
    return tag("figure", chart(frame, marks, title, "mean probability", "share that is so"))


def risks(section: Section, with_: Pens) -> Html | None:
    """Error over coverage, when the least confident images are left to a person; None where no score is a probability."""
    drawn = [(with_[row.encoder], curve_) for row in full(section)[:MOST] if (curve_ := refusal(row.records)) is not None]
    if not drawn:
        return None
    top = max(float(c["risk"].max()) for _, c in drawn)
    frame = Frame((0.0, 1.0), (0.0, max(math.ceil(top * 20) / 20, 0.05)))
    marks = [line(frame, _thin(c["coverage"]), _thin(c["risk"]), p) for p, c in drawn]
    return tag("figure", chart(frame, marks, f"risk and coverage, {protocol(section)}", "share of answers given", "error among them"))


def _thin(values: np.ndarray) -> np.ndarray:
    """At most 200 of the values, the last among them: more cannot be seen and would only make the page heavy."""
    return values[np.unique(np.linspace(0, len(values) - 1, 200).round().astype(int))]


def calibration_table(block: Sequence[Section], shown: Mapping[str, str]) -> Html:
    """Calibration error and Brier score, before and after the temperature that validation patients ask for."""
    lines = []
    for section in block:
        for row in full(section):
            before = probabilities(row.records)
            if before is None:
                lines.append([shown[row.encoder], protocol(section), "no probabilities", "", "", "", ""])
                continue
            temperatures, cooled = zip(*map(tempered, row.records), strict=True)
            after = probabilities(cooled)
            assert after is not None
            numbers = [f"{float(of(y[:, None], p[:, None])):.3f}" for of in (_ece, _brier) for y, p in (before, after)]
            lines.append([shown[row.encoder], protocol(section), *numbers, f"{np.mean(temperatures):.2f}"])
    return table(["encoder", "protocol", "ECE", "ECE, tempered", "Brier", "Brier, tempered", "temperature"], lines)


def tempered(record: Record) -> tuple[float, Record]:
    """The temperature of a record's validation part, and the record with its test scores divided by it."""
    t = fit_temperature(*record.part("val")[:2], kind=record.meta.kind)
    return t, Record(record.meta, {**record.arrays, "test_scores": temper(record.arrays["test_scores"], t, record.meta.kind)})


def _ece(y: np.ndarray, p: np.ndarray) -> float:
    return float(ece(y, p, 10, "equal_mass")[0])


def _brier(y: np.ndarray, p: np.ndarray) -> float:
    return float(brier(y, p)[0])
