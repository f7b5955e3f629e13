"""The curves of a run as charts, from the lines of its metrics.jsonl."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from encoders.runtime.html import Html, tag
from encoders.runtime.svg import Frame, draw_chart
from pretrain.watch.diagnose import MetricsLine

CHART_WIDTH, CHART_HEIGHT = 340, 210  # pixels of a chart
MAX_POINTS = 400  # of a curve: more cannot be distinguished at this width
NOT_CURVES = ("step", "time", "skipped", "loss", "lr", "grad_norm")  # numbers of a line that are no curve, or have one of their own

# metric: (title, what it says)
TRAINING_CURVES = {
    "loss": ("loss", ""),
    "lr": ("learning rate", "as used, after warm-up, schedule and rollbacks"),
    "grad_norm": ("gradient norm", "before clipping"),
    "time/images_per_s": ("images per second", "of the whole run, over all processes"),
}
ENCODER_CURVES = {
    "watch/knn": ("k-NN probe", "balanced accuracy on the labeled images; dashed: at step 0; band: 2 standard errors of the gain"),
    "watch/rank": ("rank of the features", "effective; below a third of its best value: dimensional collapse"),
    "watch/head_rank": ("rank of the head's outputs", "effective"),
    "watch/std": ("spread of the features", "standard deviation, L2-normalised, over the probe images"),
    "watch/cosine": ("mean cosine of two images", "near 1: all images look alike to the encoder, complete collapse"),
    "watch/head_cosine": ("mean cosine in the head's outputs", ""),
    "watch/teacher_entropy": ("entropy of the teacher", "share of log K; near 1: the teacher says nothing about an image"),
    "watch/teacher_marginal": ("entropy of the teacher's mean", "share of log K; near 0: one prototype for all images"),
    "watch/drift": ("drift from the start", "1 - cosine between the features of an image now and at step 0"),
    "watch/overlap": ("neighbours kept from the start", "share of the ten nearest images that are those of step 0"),
}


class CurveEvent(NamedTuple):
    """A step to mark in every chart.  kind: the class of its line in the style sheet, `event` or `event back`."""

    step: int
    kind: str


def draw_training_curves(lines: Sequence[MetricsLine], events: Sequence[CurveEvent]) -> list[Html]:
    """Loss, learning rate, gradient and speed; then every other number that the method logs, and those of auxiliary labels."""
    logged = dict.fromkeys(key for line in lines for key in line)
    own = [key for key in logged if key not in NOT_CURVES and ("/" not in key or key.startswith("auxiliary/"))]
    titles = {key: text for key, text in TRAINING_CURVES.items() if key in logged} | {key: (key.replace("_", " "), "") for key in own}
    return [draw_curve(lines, key, title, caption, events) for key, (title, caption) in titles.items()]


def draw_encoder_curves(lines: Sequence[MetricsLine], baseline: Mapping[str, float], events: Sequence[CurveEvent]) -> list[Html]:
    """What the watchdog measured of the encoder.  baseline: the same of the untrained network, drawn at step 0."""
    measured = [line for line in lines if any(key in line for key in ENCODER_CURVES)]
    first: list[MetricsLine] = [{"step": 0, **baseline}] if baseline else []
    logged = {key for line in measured for key in line}
    return [
        draw_curve([*first, *measured], key, title, caption, events)
        for key, (title, caption) in ENCODER_CURVES.items()
        if key in logged
    ]  # fmt: skip


def draw_curve(lines: Sequence[MetricsLine], key: str, title: str, caption: str = "", events: Sequence[CurveEvent] = ()) -> Html:
    """A chart of a metric over the steps; NaN and inf are left out, and counted."""
    points = [(int(line["step"]), float(line[key])) for line in lines if key in line]
    finite = [(step, value) for step, value in points if math.isfinite(value)]
    lost = f"{len(points) - len(finite)} of {len(points)} values are NaN or inf" if len(finite) < len(points) else ""
    notes = "; ".join(filter(None, (caption, lost)))
    if not finite:
        return tag("figure", tag("figcaption", f"{title}: {notes or 'no value'}"))
    band = knn_band(lines) if key == "watch/knn" else []
    values = [value for _, value in finite] + [end for _, low, high in band for end in (low, high)]
    room = 0.06 * (max(values) - min(values)) or max(abs(max(values)), 1e-12) * 0.05
    last_step = max(int(lines[-1]["step"]), finite[0][0] + 1)
    frame = Frame((finite[0][0], last_step), (min(values) - room, max(values) + room), width=CHART_WIDTH, height=CHART_HEIGHT)
    marks = [_draw_event(frame, event) for event in events if frame.x[0] <= event.step <= frame.x[1]]
    if band:
        marks.append(_draw_area(frame, band))
    if key == "watch/knn" and finite[0][0] == 0:
        marks.append(_draw_polyline(frame, [(0, finite[0][1]), (last_step, finite[0][1])], "start"))
    marks.append(_draw_polyline(frame, thin_out(finite), "curve"))
    if len(finite) == 1:
        marks.append(_draw_dot(frame, *finite[0]))
    chart = draw_chart(frame, marks, f"{title}, last {finite[-1][1]:.4g}", "step", "")
    return tag("figure", chart, tag("figcaption", notes) if notes else None)


def knn_band(lines: Sequence[MetricsLine]) -> list[tuple[int, float, float]]:
    """(step, low, high) of two standard errors of the gain around the k-NN probe, where it is known."""
    found = []
    for line in lines:
        value, error = line.get("watch/knn", math.nan), line.get("watch/knn_gain_se", math.nan)
        if math.isfinite(value + error):
            found.append((int(line["step"]), value - 2 * error, value + 2 * error))
    return found


def thin_out(points: Sequence[tuple[int, float]], most: int = MAX_POINTS) -> list[tuple[int, float]]:
    """At most `most` points in the same order: the lowest and the highest of each of equally long stretches, and both ends."""
    if len(points) <= most:
        return list(points)
    n = (most - 2) // 2
    inner, kept = points[1:-1], [points[0]]
    for i in range(n):
        stretch = inner[i * len(inner) // n : (i + 1) * len(inner) // n]
        kept += sorted({min(stretch, key=lambda p: p[1]), max(stretch, key=lambda p: p[1])})
    return [*kept, points[-1]]


def _draw_polyline(frame: Frame, points: Sequence[tuple[int, float]], kind: str) -> Html:
    x, y = zip(*points, strict=True)
    return tag("polyline", points=_join_points(frame, x, y), fill="none", stroke_width=1.8 if kind == "curve" else 1.2, class_=kind)


def _draw_area(frame: Frame, band: Sequence[tuple[int, float, float]]) -> Html:
    x, low, high = zip(*band, strict=True)
    return tag("polygon", points=f"{_join_points(frame, x, low)} {_join_points(frame, x[::-1], high[::-1])}", class_="band")


def _draw_event(frame: Frame, event: CurveEvent) -> Html:
    return tag(
        "polyline",
        points=_join_points(frame, (event.step, event.step), frame.y),
        fill="none",
        stroke_width=1.4,
        class_=event.kind,
    )


def _draw_dot(frame: Frame, step: int, value: float) -> Html:
    (x,), (y,) = frame.to_pixels([step], [value])
    return tag("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3, class_="dot")


def _join_points(frame: Frame, x: Iterable[float], y: Iterable[float]) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(*frame.to_pixels(list(x), list(y)), strict=True))
