"""The answer in plain words: is this encoder better, worse, or not distinguishable, by how much, on how many patients.

Differences, intervals and verdicts are those of the table's rows; only Holm's correction over the page is added.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from encoders.runtime.html import Html, tag
from encoders.runtime.svg import DIAGONAL_COLOUR, LINE_COLOURS
from transfer.protocols import describe_protocol, scores_slides
from transfer.stats import Difference, holm, minimal_detectable_difference
from transfer.tables.rows import Row, Section, count_tested

VERDICT_CLASSES = {"better": "better", "worse": "worse", "not distinguishable": "same", "insufficient patients": "none"}
HEADLINE_LINKS = {"not distinguishable": "not distinguishable from", "insufficient patients": "not to be compared with"}
STRIP_SIZE = (220, 34)  # pixels of the interval beside a sentence


class Comparison(NamedTuple):
    """A row that was compared; `adjusted` is its p-value by Holm over all findings of the page."""

    section: Section
    row: Row
    difference: Difference
    adjusted: float


def list_comparisons(parts: Sequence[Section]) -> list[Comparison]:
    """The comparisons that a page is about: of the user's encoders; where none was compared, of all."""
    found = [
        (s, r, r.difference)
        for s in parts
        for r in rows_with_most_labels(s)
        if r.difference is not None and not math.isnan(r.difference.value)
    ]
    found = [f for f in found if f[1].role == "encoder"] or found
    adjusted = holm(np.array([d.p for _, _, d in found]))
    return [Comparison(s, r, d, float(p)) for (s, r, d), p in zip(found, adjusted, strict=True)]


def rows_with_most_labels(section: Section) -> list[Row]:
    """The rows with the most labels."""
    most = max((row.fraction for row in section.rows), default=1.0)
    return [row for row in section.rows if row.fraction == most]


def count_patients_and_images(rows: Sequence[Row]) -> tuple[int, int]:
    """Test patients and test images, each counted once over folds and draws."""
    of = count_tested([record for row in rows for record in row.records])
    return of["patients"], of["images"]


def render_headlines(found: Sequence[Comparison], shown: Mapping[str, str]) -> list[Html]:
    """A sentence for every encoder and what it was compared with."""
    pairs: dict[tuple[str, str], list[Comparison]] = defaultdict(list)
    for f in found:
        pairs[f.row.encoder, f.row.versus].append(f)
    said = []
    for (encoder, versus), mine in pairs.items():
        count = Counter(str(f.difference.told) for f in mine)
        names = tag("b", shown[encoder]), tag("b", shown[versus])
        if len(mine) == 1 or len(count) == 1:
            word = mine[0].difference.told
            every = " in both comparisons" if len(mine) == 2 else f" in all {len(mine)} comparisons" if len(mine) > 2 else ""
            link = HEADLINE_LINKS.get(word, f"{word} than")
            why = ": insufficient patients" if word == "insufficient patients" else ""
            said.append(
                tag("p", names[0], " is ", tag("b", link, class_=VERDICT_CLASSES[word]), " ", names[1], every, why, ".", class_="headline")
            )
        else:
            told = ", ".join(f"{word} in {count[word]}" for word in VERDICT_CLASSES if count[word])
            said.append(tag("p", names[0], " against ", names[1], f": {told} of {len(mine)} comparisons.", class_="headline"))
        lost = sum(map(fails_holm, mine))
        if lost:
            told = f"Corrected for the {len(found)} comparisons of this page (Holm), {lost} of these is no longer distinguishable."
            said.append(tag("p", told if lost == 1 else told.replace("is no", "are no"), class_="bad"))
    return said


def render_verdict_cards(found: Sequence[Comparison], shown: Mapping[str, str]) -> Html:
    """Every comparison: its verdict, its sentence, and its interval drawn on a scale that all share."""
    ends = [abs(v) for f in found for v in (f.difference.low, f.difference.high, f.difference.value) if not math.isnan(v)]
    reach = max(max(ends, default=0.0) * 1.08, 0.01)
    return tag("ul", *(_verdict_card(f, shown, reach, len(found)) for f in found), class_="verdicts")


def _verdict_card(f: Comparison, shown: Mapping[str, str], reach: float, n: int) -> Html:
    kind = VERDICT_CLASSES[f.difference.told]
    share = "" if f.row.fraction == 1 else f", {f.row.fraction:.0%} of the labels"
    where = f"{f.section.task}, {describe_protocol(f.section.protocol)}{share}"
    words = tag(
        "div",
        tag("div", where, class_="where"),
        tag("div", describe_comparison(f, shown)),
        tag("div", describe_certainty(f, n), class_="fine"),
    )
    picture = draw_interval_strip(f.difference, reach, kind)
    badge = f"{f.difference.told}, not by Holm" if fails_holm(f) else f.difference.told
    return tag("li", tag("span", badge, class_=f"badge {'same' if fails_holm(f) else kind}"), words, picture, class_=kind)


def describe_comparison(f: Comparison, shown: Mapping[str, str]) -> str:
    """`a is better than b by 0.041 AUROC (95 % interval 0.012 to 0.070).`"""
    d, a, b = f.difference, shown[f.row.encoder], shown[f.row.versus]
    level = f"{d.level:.0%}".replace("%", " %")
    if d.told == "insufficient patients" and not math.isnan(d.low):
        ends = f"{level} interval {d.low:+.3f} to {d.high:+.3f}"
        return f"{a} and {b} differ by {d.value:+.3f} AUROC ({ends}); insufficient patients to conclude anything."
    if math.isnan(d.low):
        return f"{a} and {b} differ by {d.value:+.3f} AUROC; insufficient patients for an interval, so nothing can be said."
    if d.told == "not distinguishable":
        return f"{a} and {b} are not distinguishable: difference {d.value:+.3f} AUROC ({level} interval {d.low:+.3f} to {d.high:+.3f})."
    low, high = sorted((abs(d.low), abs(d.high)))
    return f"{a} is {d.told} than {b} by {abs(d.value):.3f} AUROC ({level} interval {low:.3f} to {high:.3f})."


def fails_holm(f: Comparison) -> bool:
    """Whether a difference that stands alone is no longer one by Holm over the page."""
    return f.difference.told in ("better", "worse") and f.adjusted > 1 - f.difference.level


def describe_certainty(f: Comparison, n: int) -> str:
    """On whom, how sure, and what that does not mean."""
    d = f.difference
    patients, images = count_patients_and_images([f.row])
    said = [f"{patients} test patients, {images} {'slides' if scores_slides(f.section.protocol) else 'images'}."]
    if not math.isnan(d.p):
        lost = fails_holm(f)
        corrected = (
            f"; over the {n} comparisons of this page (Holm) p {_format_p(f.adjusted)}{': no longer distinguishable' if lost else ''}"
        )
        said.append(f"p {_format_p(d.p)}{corrected if n > 1 else ''}.")
    if d.told == "not distinguishable" and not math.isnan(d.low) and d.high > d.low:
        least = minimal_detectable_difference(d)
        said.append(f"That does not make them equal: this test set would find a true difference of {least:.3f} in 4 of 5 cases.")
    if d.note and not math.isnan(d.low):
        said.append(f"The interval may be too narrow ({d.note}).")
    return " ".join(said)


def _format_p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def draw_interval_strip(d: Difference, reach: float, kind: str) -> Html:
    """The interval of a difference beside zero; to the right is better."""
    width, height = STRIP_SIZE
    at = lambda v: width / 2 + v / reach * (width / 2 - 6)  # noqa: E731
    colour = {"better": LINE_COLOURS[2], "worse": LINE_COLOURS[1], "same": DIAGONAL_COLOUR, "none": DIAGONAL_COLOUR}[kind]
    middle = height / 2 - 3
    marks = [tag("line", x1=width / 2, x2=width / 2, y1=2, y2=height - 12, class_="zero")]
    if not math.isnan(d.low):
        ends = {"x1": f"{at(d.low):.1f}", "x2": f"{at(d.high):.1f}", "y1": middle, "y2": middle}
        marks.append(tag("line", **ends, stroke=colour, stroke_width=4, stroke_linecap="round"))
    marks.append(tag("circle", cx=f"{at(d.value):.1f}", cy=middle, r=5, class_="hollow", stroke=colour, stroke_width=2.5))
    for x, text, anchor in ((0, f"−{reach:.2f}", "start"), (width / 2, "0", "middle"), (width, f"+{reach:.2f}", "end")):
        marks.append(tag("text", text, x=x, y=height - 1, text_anchor=anchor))
    told = f"difference {d.value:+.3f}, interval {d.low:+.3f} to {d.high:+.3f}"
    return tag("svg", tag("title", told), *marks, viewBox=f"0 0 {width} {height}", class_="strip", role="img")
