"""How encoders are drawn in charts: line styles, legends, and panels of at most six curves.

A page with more encoders has small multiples: a panel shows up to five of them beside the page's first baseline, so that no encoder is left
out and no two lines of a panel look alike. A curve under the pointer stands out, and shows its band.
"""

from collections.abc import Iterable, Mapping, Sequence

from encoders.runtime.html import Html, tag
from encoders.runtime.svg import LINE_COLOURS, LINE_DASHES, LineStyle, line_style
from transfer.report.context import Pens, ReportContext
from transfer.tables.rows import Row, Section

MAX_CURVES = len(LINE_COLOURS)  # of a panel; more cannot be distinguished
MAX_BANDS = 3  # bands of a panel that are shown without the pointer
BESIDE_LEAD = MAX_CURVES - 1


def assign_pens(sections: Sequence[Section]) -> dict[str, LineStyle]:
    """A line style for every encoder of the page, in order of the tables; of more than MAX_CURVES, the first ImageNet weights lead.

    Styles then repeat after BESIDE_LEAD encoders, which is where a new panel begins."""
    roles: dict[str, str] = {}
    for row in (row for s in sections for row in s.rows):
        roles.setdefault(row.encoder, row.role)
    names = list(roles)
    if len(names) <= MAX_CURVES:
        return {name: line_style(i) for i, name in enumerate(names)}
    lead = next((name for name in names if roles[name] == "imagenet"), names[0])
    others = [name for name in names if name != lead]
    return {lead: line_style(0)} | {name: _repeated_style(i) for i, name in enumerate(others)}


def _repeated_style(i: int) -> LineStyle:
    slot = 1 + i % BESIDE_LEAD
    return LineStyle(LINE_COLOURS[slot], LINE_DASHES[slot])


def split_panels(names: Iterable[str], pens: Pens) -> list[list[str]]:
    """The encoders of a chart by panel: all in one, or the lead with up to five others in each. Every encoder is in a panel."""
    wanted = set(names)
    present = [name for name in pens if name in wanted]
    if len(pens) <= MAX_CURVES:
        return [present]
    order = {name: i for i, name in enumerate(pens)}
    lead = [name for name in present if order[name] == 0]
    panels: dict[int, list[str]] = {}
    for name in present:
        if order[name]:
            panels.setdefault((order[name] - 1) // BESIDE_LEAD, list(lead)).append(name)
    return [*panels.values()] or [lead]


def split_rows(rows: Sequence[Row], pens: Pens) -> list[list[Row]]:
    """The rows of a chart by panel."""
    return [[row for row in rows if row.encoder in names] for names in split_panels((row.encoder for row in rows), pens)]


def panel_title(title: str, i: int, count: int) -> str:
    """The title of a panel, with its number among several."""
    return title if count == 1 else f"{title} ({i + 1} of {count})"


def group_curve(name: str, marks: Iterable[Html], band: Html | None = None, show_band: bool = True) -> Html:
    """The marks of one encoder as a group with its name, so that the style sheet can highlight it under the pointer."""
    behind = None if band is None else tag("g", band, class_="band" if show_band else "band quiet")
    return tag("g", tag("title", name), behind, *marks, class_="curve")


def draw_legend(block: Sequence[Section], context: ReportContext) -> Html | None:
    """The line style of every encoder of a block; None where every panel has a legend of its own."""
    if len(context.pens) > MAX_CURVES:
        return None
    return render_keys(dict.fromkeys(row.encoder for s in block for row in s.rows), context)


def panel_legend(names: Iterable[str], context: ReportContext) -> Html | None:
    """The line styles of one panel of several; None where the block has one legend."""
    return render_keys(names, context) if len(context.pens) > MAX_CURVES else None


def render_keys(names: Iterable[str], context: ReportContext) -> Html:
    """A short line in the style of each encoder, and its name."""
    return render_line_keys({context.display_names[name]: context.pens[name] for name in names})


def render_line_keys(pens: Mapping[str, LineStyle]) -> Html:
    """A short line in each style, and its name."""
    keys = []
    for name, pen in pens.items():
        line = tag("line", x1=0, y1=6, x2=28, y2=6, stroke=pen.colour, stroke_width=2.4, stroke_dasharray=pen.dash)
        swatch = tag("svg", line, viewBox="0 0 28 12", class_="swatch", aria_hidden="true")
        keys.append(tag("span", swatch, " ", name))
    return tag("p", *keys, class_="legend")
