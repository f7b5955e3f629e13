"""Small charts as inline SVG: a frame with ticks, and lines, bands, dots and whiskers in it.

Coordinates are data; `Frame.to_pixels` maps them to pixels of a viewBox, so a chart scales with its column on any screen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from encoders.runtime.arrays import FloatArray
from encoders.runtime.html import Html, tag

MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 46, 12, 26, 40  # pixels around the frame for tick labels and titles
# Okabe and Ito (2008): distinguishable for colour-blind readers; the dashes also in black-and-white print.
LINE_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#8a6d00")
LINE_DASHES = (None, "7 3", "2 3", "9 3 2 3", "4 2", "1 2")
DIAGONAL_COLOUR = "#777777"
TITLE_FIT_LETTERS = 38  # letters of a title that fit the frame's width; a longer title is set smaller


class LineStyle(NamedTuple):
    """How one encoder is drawn in all charts of a page."""

    colour: str
    dash: str | None


def line_style(i: int) -> LineStyle:
    """The style of the i-th encoder."""
    return LineStyle(LINE_COLOURS[i % len(LINE_COLOURS)], LINE_DASHES[(i + i // len(LINE_COLOURS)) % len(LINE_DASHES)])


@dataclass(frozen=True)
class Frame:
    """The range and size of a chart.  x, y: from and to.  log: the x axis is logarithmic.  width, height: pixels of the whole chart."""

    x: tuple[float, float] = (0.0, 1.0)
    y: tuple[float, float] = (0.0, 1.0)
    log: bool = False
    width: int = 320
    height: int = 300

    def to_pixels(self, x: ArrayLike, y: ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Data coordinates as pixels."""
        scale = np.log if self.log else np.asarray
        low, high = (float(scale(v)) for v in self.x)
        across = (scale(np.asarray(x, dtype=float)) - low) / (high - low)
        up = (np.asarray(y, dtype=float) - self.y[0]) / (self.y[1] - self.y[0])
        return MARGIN_LEFT + across * (self.width - MARGIN_LEFT - MARGIN_RIGHT), self.height - MARGIN_BOTTOM - up * (
            self.height - MARGIN_TOP - MARGIN_BOTTOM
        )


def draw_chart(frame: Frame, marks: Sequence[Html], title: str, x_label: str, y_label: str, x_ticks: Sequence[float] | None = None) -> Html:
    """The frame with its marks. Title and axes are also given as text for screen readers."""
    across, down = frame.width - MARGIN_RIGHT, frame.height - MARGIN_BOTTOM
    grid: list[Html] = []
    for value in round_ticks(*frame.y):
        _, (py,) = frame.to_pixels([frame.x[1]], [value])
        grid += [_draw_rule(MARGIN_LEFT, py, across, py), _draw_text(MARGIN_LEFT - 5, py + 4, f"{value:g}", "end")]
    for value in round_ticks(*frame.x) if x_ticks is None else x_ticks:
        (px,), _ = frame.to_pixels([value], [frame.y[0]])
        grid += [_draw_rule(px, MARGIN_TOP, px, down), _draw_text(px, down + 15, f"{value:g}", "middle")]
    small = f"font-size:{11 * TITLE_FIT_LETTERS / len(title):.1f}px" if len(title) > TITLE_FIT_LETTERS else None
    names = [
        _draw_text(MARGIN_LEFT, 15, title, "start", font_weight="600", style=small),
        _draw_text((MARGIN_LEFT + across) / 2, frame.height - 7, x_label, "middle"),
        _draw_text(0, 0, y_label, "middle", transform=f"translate(12 {(MARGIN_TOP + down) / 2:.0f}) rotate(-90)"),
    ]
    axes = f"{y_label} from {frame.y[0]:.3g} to {frame.y[1]:.3g} over {x_label} from {frame.x[0]:.3g} to {frame.x[1]:.3g}"
    texts = tag("title", title), tag("desc", axes)
    return tag("svg", *texts, *grid, *marks, *names, viewBox=f"0 0 {frame.width} {frame.height}", role="img")


def draw_line(frame: Frame, x: ArrayLike, y: ArrayLike, style: LineStyle) -> Html:
    """A line through the points."""
    return tag(
        "polyline",
        points=_format_points(*frame.to_pixels(x, y)),
        fill="none",
        stroke=style.colour,
        stroke_width=1.8,
        stroke_dasharray=style.dash,
    )


def draw_diagonal(frame: Frame) -> Html:
    """A line from the lower left to the upper right: chance in a ROC curve, perfect calibration in a reliability diagram."""
    return tag(
        "polyline",
        points=_format_points(*frame.to_pixels(frame.x, frame.y)),
        fill="none",
        stroke=DIAGONAL_COLOUR,
        stroke_width=1,
        stroke_dasharray="1 3",
    )


def draw_band(frame: Frame, x: ArrayLike, low: ArrayLike, high: ArrayLike, style: LineStyle) -> Html:
    """The area between two lines; unknown values are omitted."""
    x, low, high = np.asarray(x), np.asarray(low), np.asarray(high)
    known = ~(np.isnan(low) | np.isnan(high))
    there, back = frame.to_pixels(x[known], low[known]), frame.to_pixels(x[known][::-1], high[known][::-1])
    both = np.concatenate([there[0], back[0]]), np.concatenate([there[1], back[1]])
    return tag("polygon", points=_format_points(*both), fill=style.colour, fill_opacity=0.13, stroke="none")


def draw_dots(frame: Frame, x: ArrayLike, y: ArrayLike, style: LineStyle, radius: ArrayLike = 3.0) -> list[Html]:
    """A dot at every point."""
    px, py = frame.to_pixels(x, y)
    sizes = np.broadcast_to(radius, px.shape)
    return [
        tag("circle", cx=f"{a:.1f}", cy=f"{b:.1f}", r=f"{r:.1f}", fill=style.colour, stroke=style.colour, stroke_width=1.3)
        for a, b, r in zip(px, py, sizes, strict=True)
    ]


def draw_whiskers(frame: Frame, x: ArrayLike, low: ArrayLike, high: ArrayLike, style: LineStyle) -> list[Html]:
    """Vertical intervals; unknown values are omitted."""
    x, low, high = np.asarray(x), np.asarray(low), np.asarray(high)
    keep = ~(np.isnan(low) | np.isnan(high))
    px, a = frame.to_pixels(x[keep], low[keep])
    _, b = frame.to_pixels(x[keep], high[keep])
    return [_draw_rule(p, u, p, v, style.colour, 1.3) for p, u, v in zip(px, a, b, strict=True)]


def round_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers between the ends."""
    raw = (high - low) / count
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * m for m in (1, 2, 2.5, 5, 10) if unit * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * k, 10) + 0.0 for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _draw_rule(x1: float, y1: float, x2: float, y2: float, colour: str | None = None, width: float = 1) -> Html:
    """A straight line; without a colour it is a grid line, whose colour the style sheet sets."""
    ends = {"x1": f"{x1:.1f}", "y1": f"{y1:.1f}", "x2": f"{x2:.1f}", "y2": f"{y2:.1f}"}
    return tag("line", **ends, stroke=colour, stroke_width=width, class_=None if colour else "rule")


def _draw_text(x: float, y: float, text: str, anchor: str, **attributes: str | None) -> Html:
    return tag("text", text, x=f"{x:.0f}", y=f"{y:.0f}", text_anchor=anchor, **attributes)


def _format_points(px: FloatArray, py: FloatArray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(px, py, strict=True))
