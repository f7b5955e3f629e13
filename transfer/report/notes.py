"""Notes below a table: at most ten lines are shown, the most important first; the others open on a click."""

import math
from collections.abc import Sequence

from encoders.runtime.html import Html, collapsible_section, join_html, tag

MOST_LINES = 10
LETTERS_A_LINE = 150  # of a note at the width of the page
LEAK, WARNING = "LEAK", "warn"


def render_notes(lines: Sequence[str]) -> Html:
    """The notes as a list. Leaks and warnings come first; nothing is left out."""
    rank = [0 if line.startswith(LEAK) else 1 if line.startswith(WARNING) else 2 for line in lines]
    ordered = [line for _, line in sorted(zip(rank, lines, strict=True), key=lambda pair: pair[0])]
    shown = count_shown(ordered)
    rest = ordered[shown:]
    folded = collapsible_section(f"{len(rest)} more note{'' if len(rest) == 1 else 's'}", _render_list(rest)) if rest else None
    return join_html([_render_list(ordered[:shown]), folded])


def count_shown(lines: Sequence[str]) -> int:
    """The number of notes whose lines fit MOST_LINES, one of which says how many more there are; leaks are always shown."""
    heights = [math.ceil(len(line) / LETTERS_A_LINE) for line in lines]
    if sum(heights) <= MOST_LINES:
        return len(lines)
    used, shown = 1, 0
    for line, height in zip(lines, heights, strict=True):
        if used + height > MOST_LINES and not line.startswith(LEAK):
            break
        used, shown = used + height, shown + 1
    return shown


def _render_list(lines: Sequence[str]) -> Html:
    items = (tag("li", line, class_="bad" if line.startswith((LEAK, WARNING)) else None) for line in lines)
    return tag("ul", *items, class_="captions")
