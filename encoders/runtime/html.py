"""Markup that cannot be forged: whatever is not made by `tag` here is text, and is escaped."""

from collections.abc import Iterable
from html import escape
from typing import Any

VOID_TAGS = {"img", "meta", "br"}


class Html(str):
    """Markup. A plain string is never taken for it."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """An element. `class_` stands for class, `stroke_width` for stroke-width; an attribute that is None is left out."""
    told = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(str(v))}"' for key, v in attributes.items() if v is not None)
    return Html(f"<{name}{told}>") if name in VOID_TAGS else Html(f"<{name}{told}>{join_html(children)}</{name}>")


def join_html(parts: Iterable[Any]) -> Html:
    """The parts behind each other; text among them is escaped."""
    return Html("".join(part if isinstance(part, Html) else escape(str(part)) for part in parts if part is not None))


def html_table(header: Iterable[Any], rows: Iterable[Iterable[Any]], class_: str | None = None) -> Html:
    """A table whose cells carry their column's name, so that a phone can show a row as a card."""
    names = [column_label(name) for name in header]
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in names)))
    return tag("div", tag("table", head, tag("tbody", *(_render_row(names, row) for row in rows)), class_=class_), class_="wide")


def column_label(name: Any) -> str:
    """A column's name, its number and % kept on one line."""
    return str(name).replace(" %", "\N{NO-BREAK SPACE}%")


def _render_row(names: list[str], row: Iterable[Any]) -> Html:
    cells = []
    for name, value in zip(names, row, strict=True):
        if isinstance(value, Html) and value.startswith(("<td", "<th")):
            cells.append(value)
        else:
            kind = "th" if not cells else "td"
            cells.append(tag(kind, value, data_label=name, class_=None if str(value) else "none", scope="row" if kind == "th" else None))
    return tag("tr", *cells)


def short_hash(value: str) -> Html:
    """The first twelve digits, on one line however narrow the column."""
    return tag("code", value[:12], class_="hash")


def collapsible_section(title: str, *inside: Any) -> Html:
    """What is there for those who want it."""
    return tag("details", tag("summary", title), *inside)
