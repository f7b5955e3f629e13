"""HTML in which everything that `tag` did not create is text, and is escaped."""

from collections.abc import Iterable
from html import escape

VOID_TAGS = {"img", "meta", "br", "wbr", "col"}


class Html(str):
    """HTML markup. A plain string is never treated as markup."""

    __slots__ = ()


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """An element. `class_` is written as class, `stroke_width` as stroke-width; an attribute that is None is omitted."""
    pairs = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(str(v))}"' for key, v in attributes.items() if v is not None)
    return Html(f"<{name}{pairs}>") if name in VOID_TAGS else Html(f"<{name}{pairs}>{join_html(children)}</{name}>")


def join_html(parts: Iterable[object]) -> Html:
    """The concatenated parts, with text escaped; None is omitted."""
    return Html("".join(part if isinstance(part, Html) else escape(str(part)) for part in parts if part is not None))


def html_table(header: Iterable[object], rows: Iterable[Iterable[object]], class_: str | None = None) -> Html:
    """A table whose cells have their column's name as an attribute, so that a narrow screen can show a row as a card."""
    names = [column_label(name) for name in header]
    head = tag("thead", tag("tr", *(tag("th", name, scope="col") for name in names)))
    return tag("div", tag("table", head, tag("tbody", *(_render_row(names, row) for row in rows)), class_=class_), class_="wide")


def column_label(name: object) -> str:
    """A column's name, with a non-breaking space before %."""
    return str(name).replace(" %", "\N{NO-BREAK SPACE}%")


def _render_row(names: list[str], row: Iterable[object]) -> Html:
    cells = []
    for name, value in zip(names, row, strict=True):
        if isinstance(value, Html) and value.startswith(("<td", "<th")):
            cells.append(value)
        else:
            kind = "th" if not cells else "td"
            cells.append(tag(kind, value, data_label=name, class_=None if str(value) else "none", scope="row" if kind == "th" else None))
    return tag("tr", *cells)


def short_hash(value: str) -> Html:
    """The first twelve digits of a hash, which the style sheet keeps on one line."""
    return tag("code", value[:12], class_="hash")


def collapsible_section(title: str, *children: object) -> Html:
    """A section that is closed until it is clicked."""
    return tag("details", tag("summary", title), *children)
