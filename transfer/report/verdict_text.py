"""The verdict of a report in words: is an encoder better, worse or not distinguishable, by how much, on how many patients.

Differences, intervals and verdicts are those of the table's rows; only the Holm correction over all comparisons of the page is added.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from encoders.runtime.html import Html, tag
from encoders.runtime.svg import DIAGONAL_COLOUR, LINE_COLOURS
from transfer.protocols import describe_protocol, scores_slides
from transfer.stats import Difference, holm, minimal_detectable_difference
from transfer.stats.verdict import Verdict
from transfer.tables.rows import Row, Section, count_tested

StyleClass = Literal["better", "worse", "same", "none"]  # of style.css
VERDICT_CLASSES: dict[Verdict, StyleClass] = {
    "better": "better",
    "worse": "worse",
    "not distinguishable": "same",
    "insufficient patients": "none",
}
HEADLINE_VERBS: dict[Verdict, tuple[str, str]] = {  # verdict -> verb, and the words between the two encoders
    "better": ("is", "better than"),
    "worse": ("is", "worse than"),
    "not distinguishable": ("is", "not distinguishable from"),
    "insufficient patients": ("cannot", "be compared with"),
}
STRIP_SIZE = (220, 34)  # pixels of the interval plot beside a sentence


class Comparison(NamedTuple):
    """A row with its difference to its reference. holm_p: p-value after Holm correction over all comparisons of the page."""

    section: Section
    row: Row
    difference: Difference
    holm_p: float


def list_comparisons(sections: Sequence[Section]) -> list[Comparison]:
    """The comparisons of the user's encoders; if there are none, all comparisons."""
    compared = [
        (s, r, r.difference)
        for s in sections
        for r in rows_with_most_labels(s)
        if r.difference is not None and not math.isnan(r.difference.value)
    ]
    compared = [c for c in compared if c[1].role == "encoder"] or compared
    corrected = holm(np.array([d.p for _, _, d in compared]))
    return [Comparison(s, r, d, float(p)) for (s, r, d), p in zip(compared, corrected, strict=True)]


def rows_with_most_labels(section: Section) -> list[Row]:
    """The rows with the largest label fraction."""
    most = max((row.fraction for row in section.rows), default=1.0)
    return [row for row in section.rows if row.fraction == most]


def count_patients_and_images(rows: Sequence[Row]) -> tuple[int, int]:
    """Number of test patients and test images, each counted once over folds and draws."""
    counts = count_tested([record for row in rows for record in row.records])
    return counts["patients"], counts["images"]


def render_headlines(comparisons: Sequence[Comparison], display_names: Mapping[str, str]) -> list[Html]:
    """One sentence for every encoder and its reference."""
    pairs: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for c in comparisons:
        pairs[c.row.encoder, c.row.reference].append(c)
    lines = []
    for (encoder, reference), own in pairs.items():
        count = Counter(c.difference.reported_verdict for c in own)
        names = tag("b", display_names[encoder]), tag("b", display_names[reference])
        if len(count) == 1:
            verdict = own[0].difference.reported_verdict
            every = " in both comparisons" if len(own) == 2 else f" in all {len(own)} comparisons" if len(own) > 2 else ""
            verb, link = HEADLINE_VERBS[verdict]
            reason = ": insufficient patients" if verdict == "insufficient patients" else ""
            words = tag("b", link, class_=VERDICT_CLASSES[verdict])
            lines.append(tag("p", names[0], f" {verb} ", words, " ", names[1], every, reason, ".", class_="headline"))
        else:
            counts = ", ".join(f"{verdict} in {count[verdict]}" for verdict in VERDICT_CLASSES if count[verdict])
            lines.append(tag("p", names[0], " versus ", names[1], f": {counts} of {len(own)} comparisons.", class_="headline"))
        lost = sum(map(fails_holm, own))
        if lost:
            text = f"{lost} of these differences {'is' if lost == 1 else 'are'} not significant after Holm correction"
            lines.append(tag("p", f"{text} for the {len(comparisons)} comparisons of this page.", class_="bad"))
    return lines


def render_verdict_cards(comparisons: Sequence[Comparison], display_names: Mapping[str, str]) -> Html:
    """Every comparison: its verdict, its sentence, and its interval on a common scale."""
    ends = [abs(v) for c in comparisons for v in (c.difference.low, c.difference.high, c.difference.value) if not math.isnan(v)]
    reach = max(max(ends, default=0.0) * 1.08, 0.01)
    return tag("ul", *(_verdict_card(c, display_names, reach, len(comparisons)) for c in comparisons), class_="verdicts")


def _verdict_card(c: Comparison, display_names: Mapping[str, str], reach: float, n: int) -> Html:
    style = VERDICT_CLASSES[c.difference.reported_verdict]
    share = "" if c.row.fraction == 1 else f", {c.row.fraction:.0%} of the labels"
    where = f"{c.section.task}, {describe_protocol(c.section.protocol)}{share}"
    words = tag(
        "div",
        tag("div", where, class_="where"),
        tag("div", describe_comparison(c, display_names)),
        tag("div", describe_certainty(c, n), class_="fine"),
    )
    verdict = c.difference.reported_verdict
    badge = f"{verdict} (uncorrected)" if fails_holm(c) else verdict
    badge_style = "same" if fails_holm(c) else style
    return tag(
        "li", tag("span", badge, class_=f"badge {badge_style}"), words, draw_interval_strip(c.difference, reach, style), class_=style
    )


def describe_comparison(c: Comparison, display_names: Mapping[str, str]) -> str:
    """`a is better than b by 0.041 AUROC (95 % interval 0.012 to 0.070).`"""
    d, a, b = c.difference, display_names[c.row.encoder], display_names[c.row.reference]
    level = f"{d.level:.0%}".replace("%", " %")
    interval = f"{level} interval {d.low:+.3f} to {d.high:+.3f}"
    if math.isnan(d.low):
        return f"{a} and {b} differ by {d.value:+.3f} AUROC; there are insufficient patients for an interval and a verdict."
    if d.reported_verdict == "insufficient patients":
        return f"{a} and {b} differ by {d.value:+.3f} AUROC ({interval}); there are insufficient patients for a verdict."
    if d.reported_verdict == "not distinguishable":
        return f"{a} and {b} are not distinguishable: difference {d.value:+.3f} AUROC ({interval})."
    low, high = sorted((abs(d.low), abs(d.high)))
    return f"{a} is {d.reported_verdict} than {b} by {abs(d.value):.3f} AUROC ({level} interval {low:.3f} to {high:.3f})."


def fails_holm(c: Comparison) -> bool:
    """Whether a difference is significant by itself but not after Holm correction."""
    return c.difference.reported_verdict in ("better", "worse") and c.holm_p > 1 - c.difference.level


def describe_certainty(c: Comparison, n: int) -> str:
    """Sample size, p-values, and what the test set could have detected. n: comparisons of the page."""
    d = c.difference
    patients, images = count_patients_and_images([c.row])
    lines = [f"{patients} test patients, {images} {'slides' if scores_slides(c.section.protocol) else 'images'}."]
    if not math.isnan(d.p):
        result = "; not significant after Holm correction" if fails_holm(c) else ""
        corrected = f"; Holm-corrected for the {n} comparisons of this page: p {_format_p(c.holm_p)}{result}"
        lines.append(f"p {_format_p(d.p)}{corrected if n > 1 else ''}.")
    if d.reported_verdict == "not distinguishable" and not math.isnan(d.low) and d.high > d.low:
        smallest = minimal_detectable_difference(d)
        lines.append(
            f"This does not mean that they are equal: the test set detects true differences of at least {smallest:.3f} with 80 % power."
        )
    if d.note and not math.isnan(d.low):
        lines.append(f"The interval may be too narrow ({d.note}).")
    return " ".join(lines)


def _format_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def draw_interval_strip(d: Difference, reach: float, style: StyleClass) -> Html:
    """The interval of a difference relative to zero; values to the right are better."""
    width, height = STRIP_SIZE
    at = lambda v: width / 2 + v / reach * (width / 2 - 6)  # noqa: E731
    colours = {"better": LINE_COLOURS[2], "worse": LINE_COLOURS[1], "same": DIAGONAL_COLOUR, "none": DIAGONAL_COLOUR}
    colour, middle = colours[style], height / 2 - 3
    marks = [tag("line", x1=width / 2, x2=width / 2, y1=2, y2=height - 12, class_="zero")]
    if not math.isnan(d.low):
        ends = {"x1": f"{at(d.low):.1f}", "x2": f"{at(d.high):.1f}", "y1": middle, "y2": middle}
        marks.append(tag("line", **ends, stroke=colour, stroke_width=4, stroke_linecap="round"))
    marks.append(tag("circle", cx=f"{at(d.value):.1f}", cy=middle, r=5, class_="hollow", stroke=colour, stroke_width=2.5))
    for x, text, anchor in ((0, f"−{reach:.2f}", "start"), (width / 2, "0", "middle"), (width, f"+{reach:.2f}", "end")):
        marks.append(tag("text", text, x=x, y=height - 1, text_anchor=anchor))
    title = tag("title", f"difference {d.value:+.3f}, interval {d.low:+.3f} to {d.high:+.3f}")
    return tag("svg", title, *marks, viewBox=f"0 0 {width} {height}", class_="strip", role="img")
