"""The overview of a working folder as one static page, `index.html`: encoders, runs and benchmarks, linked to each other and to files.

All links are relative, so the folder can be moved or served as it is. The rows are filtered and sorted by a script in the page; without
scripts they are all shown.
"""

import time
from collections.abc import Iterator, Sequence
from importlib.resources import files
from itertools import groupby
from urllib.parse import quote

from encoders.gallery.entries import EntryKind, GalleryEntry, Link
from encoders.runtime.html import Html, join_html, tag
from encoders.runtime.page import render_document

FILTER_BOX = Html('<input id="filter" type="search" placeholder="filter: words that a row contains" aria-label="filter">')
MOST_ON_ONE_LINE = 26  # letters of a cell
GENERATOR = "isograft overview"  # by which a page is known as ours, and may be replaced
TITLES: dict[EntryKind, str] = {
    "run": "Pretraining runs",
    "encoder": "Encoders",
    "bench": "Submitted benchmarks",
    "task": "Results by task",
}


def render_index(entries: Sequence[GalleryEntry], name: str) -> str:
    """The HTML of the overview.  entries: sorted by kind.  name: of the working folder."""
    known = {(entry.kind, entry.name) for entry in entries}
    sections = [render_kind(kind, list(own), known) for kind, own in groupby(entries, key=lambda entry: entry.kind)]
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    tools = tag(
        "div",
        FILTER_BOX,
        tag("label", "sort by ", tag("select", *map(_option, ("2d newest", "0a name", "1a status")), id="order")),
        tag("span", id="count", class_="note"),
        class_="tools",
        hidden="hidden",  # shown by the script, without which it does nothing
    )
    header = tag(
        "header",
        tag("p", "isograft", class_="kicker"),
        tag("h1", f"{name}: runs, encoders and benchmarks"),
        tag("p", f"Written {made} by the last command that changed one of them. No image of a patient is on this page; run pages may "
            "show some.", class_="note"),
        tools,
    )  # fmt: skip
    empty = [] if entries else [tag("p", "Nothing yet: `pretrain run`, `encoders import` and `transfer bench` fill this page.")]
    return render_document(
        f"{name}: isograft", header, *sections, *empty, style=_read("index.css"), script=_read("index.js"), generator=GENERATOR
    )


def render_kind(kind: EntryKind, entries: Sequence[GalleryEntry], known: set[tuple[EntryKind, str]]) -> Html:
    """The section of one kind: a table with the numbers that one of its entries has.  known: the entries of the page."""
    columns = [name for name in dict.fromkeys(name for e in entries for name in e.numbers) if any(e.numbers.get(name) for e in entries)]
    heads = ("name", "status", "date", *columns, "links")
    head = tag("tr", *(tag("th", tag("button", name, type="button"), scope="col") for name in heads))
    rows = [render_entry(entry, columns, known) for entry in entries]
    table = tag("table", tag("thead", head), tag("tbody", *rows))
    return tag("section", tag("h2", f"{TITLES[kind]} ({len(entries)})"), tag("div", table, class_="wide"), id=f"{kind}s")


def render_entry(entry: GalleryEntry, columns: Sequence[str], known: set[tuple[EntryKind, str]]) -> Html:
    """The row of an entry, whose address is its kind and name."""
    details = [tag("div", tag("dt", key), tag("dd", value)) for key, value in entry.details]
    more = tag("details", tag("summary", "details"), tag("dl", *details, class_="more")) if details else None
    day = time.strftime("%Y-%m-%d %H:%M", time.gmtime(entry.changed)) if entry.changed else ""
    grade = entry.grade if entry.grade != "open" else ""
    return tag(
        "tr",
        tag("th", entry.name, more, scope="row", data_v=entry.name.lower()),
        _cell("status", entry.status, entry.status, f"state {grade}".strip()),
        _cell("date", day, f"{entry.changed:.0f}", "date"),
        *(_number_cell(name, entry.numbers.get(name, "")) for name in columns),
        tag("td", tag("span", *render_links(entry.links, known)), data_label="links", class_="links" if entry.links else "none"),
        id=anchor(entry.kind, entry.name),
    )


def render_links(links: Sequence[Link], known: set[tuple[EntryKind, str]]) -> Iterator[Html]:
    """Links to files, and to entries of this page; one that leads to no entry of this page is plain text."""
    for link in links:
        if isinstance(link.target, str):
            yield join_html([tag("a", link.text, href=quote(link.target)), " "])
        elif link.target in known:
            yield join_html([tag("a", link.text, href=f"#{quote(anchor(*link.target))}"), " "])
        else:
            yield join_html([tag("span", link.text, class_="note"), " "])


def anchor(kind: EntryKind, name: str) -> str:
    """The address of an entry on the page, without quotation."""
    return f"{kind}-{name}".replace(" ", "_")


def sort_value(text: str) -> str:
    """What a cell is sorted by: its first number without thousands separators, or its text."""
    first = text.split(" ")[0].replace(",", "")
    try:
        return repr(float(first))
    except ValueError:
        return text.lower()


def _cell(label: str, text: str, value: str, kind: str | None = None) -> Html:
    return tag("td", tag("span", text) if text else "", data_label=label, data_v=value, class_=kind if text else "none")


def _number_cell(name: str, text: str) -> Html:
    """A cell of a number, or of a few words, on one line where it is short."""
    return _cell(name, text, sort_value(text), "n" if len(text) < MOST_ON_ONE_LINE else None)


def _option(words: str) -> Html:
    """An option of the menu that sorts all tables: column and direction, then its text."""
    value, text = words.split(" ")
    return tag("option", text, value=value)


def _read(name: str) -> str:
    """A file of this room."""
    return (files("encoders.gallery") / name).read_text()
