"""The verdict of a report in words: is an encoder better, worse or not distinguishable, by how much, on how many patients.

Differences, intervals and verdicts are those of the table's rows, corrected for all comparisons of the table.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from encoders.runtime.html import Html, tag
from encoders.runtime.svg import DIAGONAL_COLOUR, LINE_COLOURS
from transfer.protocols import describe_protocol, scores_slides
from transfer.stats import Difference, minimal_detectable_difference
from transfer.stats.verdict import Verdict
from transfer.tables.format import format_ends, format_nonzero, format_signed
from transfer.tables.rows import Relation, Row, Section, count_tested, rows_at_largest_fraction

StyleClass = Literal["better", "worse", "same", "none"]  # of style.css
VERDICT_CLASSES: dict[Verdict, StyleClass] = {
    "better": "better",
    "worse": "worse",
    "equivalent": "same",
    "not inferior": "same",
    "not distinguishable": "same",
    "insufficient patients": "none",
    "insufficient draws": "none",
    "does not transfer": "none",
}
HEADLINE_VERBS: dict[Verdict, tuple[str, str]] = {  # verdict -> verb, and the words between the two encoders
    "better": ("is", "better than"),
    "worse": ("is", "worse than"),
    "equivalent": ("is", "equivalent to"),
    "not inferior": ("is", "not inferior to"),
    "not distinguishable": ("is", "not distinguishable from"),
    "insufficient patients": ("cannot", "be compared with"),
    "insufficient draws": ("cannot", "be compared with"),
    "does not transfer": ("does not transfer; it cannot", "be compared with"),
}
STRIP_SIZE = (220, 34)  # pixels of the interval plot beside a sentence


class JudgedRow(NamedTuple):
    """A row with its difference to its strongest baseline."""

    section: Section
    row: Row
    difference: Difference
    relation: Relation


def list_comparisons(sections: Sequence[Section]) -> list[JudgedRow]:
    """The comparisons of the user's encoders with their strongest baselines; if there are none, those of all rows."""
    compared = [
        JudgedRow(s, r, r.primary.difference, r.primary.relation)
        for s in sections
        for r in rows_at_largest_fraction(s)
        if r.primary is not None and not math.isnan(r.primary.difference.value)
    ]
    return [c for c in compared if c.row.role == "encoder"] or compared


def count_patients_and_images(rows: Sequence[Row]) -> tuple[int, int]:
    """Number of test patients and test images, each counted once over folds and draws."""
    counts = count_tested([record for row in rows for record in row.records])
    return counts["patients"], counts["images"]


def render_headlines(comparisons: Sequence[JudgedRow], display_names: Mapping[str, str]) -> list[Html]:
    """One sentence for every encoder and its reference."""
    pairs: dict[tuple[str, str], list[JudgedRow]] = defaultdict(list)
    for c in comparisons:
        pairs[c.row.encoder, c.row.reference].append(c)
    others = {(c.row.encoder, c.row.reference) for c in comparisons if c.relation == "other architecture"}
    lines = []
    for (encoder, reference), own in pairs.items():
        count = Counter(c.difference.reported_verdict for c in own)
        architecture = " (other architecture)" if (encoder, reference) in others else ""
        names = tag("b", display_names[encoder]), tag("b", display_names[reference])
        if len(count) == 1:
            verdict = own[0].difference.reported_verdict
            every = " in both comparisons" if len(own) == 2 else f" in all {len(own)} comparisons" if len(own) > 2 else ""
            verb, link = HEADLINE_VERBS[verdict]
            reason = f": {verdict}" if verdict in ("insufficient patients", "insufficient draws") else ""
            words = tag("b", link, class_=VERDICT_CLASSES[verdict])
            lines.append(tag("p", names[0], f" {verb} ", words, " ", names[1], architecture, every, reason, ".", class_="headline"))
        else:
            counts = ", ".join(f"{verdict} in {count[verdict]}" for verdict in VERDICT_CLASSES if count[verdict])
            lines.append(
                tag("p", names[0], " versus ", names[1], f"{architecture}: {counts} of {len(own)} comparisons.", class_="headline")
            )
        lost = sum(c.difference.loses_to_holm for c in own)
        if lost:
            text = f"{lost} of these differences {'is' if lost == 1 else 'are'} significant alone but not after Holm correction"
            lines.append(tag("p", f"{text} for the {max(c.difference.family for c in own)} comparisons of the table.", class_="note"))
    return lines


def render_verdict_cards(comparisons: Sequence[JudgedRow], display_names: Mapping[str, str]) -> Html:
    """Every comparison: its verdict, its sentence, and its interval on a common scale."""
    ends = [abs(v) for c in comparisons for v in (c.difference.low, c.difference.high, c.difference.value) if not math.isnan(v)]
    reach = max(max(ends, default=0.0) * 1.08, 0.01)
    return tag("ul", *(_verdict_card(c, display_names, reach) for c in comparisons), class_="verdicts")


def _verdict_card(c: JudgedRow, display_names: Mapping[str, str], reach: float) -> Html:
    d = c.difference
    style = VERDICT_CLASSES[d.reported_verdict]
    where = f"{c.section.task}, {describe_protocol(c.section.protocol)}{c.row.labels_title}"
    words = tag(
        "div",
        tag("div", where, class_="where"),
        tag("div", describe_comparison(c, display_names)),
        tag("div", describe_certainty(c), class_="fine"),
    )
    badge = tag("span", d.reported_verdict, class_=f"badge {style}")
    return tag("li", badge, words, draw_interval_strip(d, reach, style), class_=style)


def describe_comparison(c: JudgedRow, display_names: Mapping[str, str]) -> str:
    """`a is better than b by 0.041 AUROC (95 % interval 0.012 to 0.070).`"""
    d, a, b = c.difference, display_names[c.row.encoder], display_names[c.row.reference]
    if c.relation == "other architecture":
        b += " (other architecture)"
    verdict, level = d.reported_verdict, f"{d.level:.0%}".replace("%", " %")
    if math.isnan(d.low):
        if math.isnan(d.p):
            return f"{a} and {b} differ by {d.value:+.3f} AUROC; there are insufficient patients for an interval and a verdict."
        ends = "no interval"
    else:
        ends = f"{level} interval {' to '.join(format_ends(d))}"
    if verdict in ("insufficient patients", "insufficient draws", "does not transfer"):
        reasons = {
            "insufficient patients": "there are insufficient patients for a verdict",
            "insufficient draws": "the labeled patients were drawn once, so there is no verdict for other draws",
            "does not transfer": "the better of the two is not above chance, so there is no verdict",
        }
        return f"{a} and {b} differ by {d.value:+.3f} AUROC ({ends}); {reasons[verdict]}."
    if verdict == "not distinguishable":
        return f"{a} and {b} are not distinguishable: difference {format_signed(d.value)} AUROC ({ends})."
    if verdict in ("equivalent", "not inferior"):
        return f"{a} is {verdict} to {b} at a margin of {d.margin:g}: difference {format_signed(d.value)} AUROC ({ends})."
    low, high = sorted((d.low, d.high), key=abs)
    size = "no interval" if math.isnan(low) else f"{level} interval {' to '.join(format_nonzero(abs(v)).lstrip('+') for v in (low, high))}"
    return f"{a} is {verdict} than {b} by {format_nonzero(abs(d.value)).lstrip('+')} AUROC ({size})."


def describe_certainty(c: JudgedRow) -> str:
    """Sample size, p-values, and what the test set could have detected."""
    d = c.difference
    patients, images = count_patients_and_images([c.row])
    lines = [f"{patients} test patients, {images} {'slides' if scores_slides(c.section.protocol) else 'images'}."]
    if not math.isnan(d.p):
        result = "; significant alone, not after Holm correction" if d.loses_to_holm else ""
        corrected = f"; Holm-corrected for the {d.family} comparisons of this table: p {_format_p(d.corrected_p)}{result}"
        lines.append(f"p {_format_p(d.p)}{corrected if d.family > 1 else ''}.")
    if d.reported_verdict == "not distinguishable" and not math.isnan(d.low) and d.high > d.low:
        smallest = minimal_detectable_difference(d)
        lines.append(
            f"This does not mean that they are equal: the test set detects true differences of at least {smallest:.3f} with 80 % power."
        )
    if d.note:
        lines.append(f"{d.note[0].upper()}{d.note[1:]}.")
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
