"""Records of the same tasks that a page does not show: how many, and a link to where they are."""

from collections.abc import Sequence
from pathlib import Path

from encoders.gallery.links import find_overview_link
from encoders.runtime.html import Html, tag
from transfer.records.record import Record, find_records, record_path


def link_other_records(shown: Sequence[Record], page: Path) -> Html | None:
    """A sentence about the records of these tasks in the working folder that are not among `shown`; None if there are none.

    page: its file. Inside the working folder the sentence links the overview, from which every report is reached."""
    tasks, known = {r.identity.task for r in shown}, {record_path(r.identity) for r in shown}
    others = [path for path in find_records() if path.parent.name in tasks and path not in known]
    if not others:
        return None
    count = f"{len(others)} other record{'s' if len(others) > 1 else ''} of {'these tasks' if len(tasks) > 1 else 'this task'}"
    link = find_overview_link(page)
    where = ("working folder", ".") if link is None else (tag("a", "overview of all benchmarks", href=link), ".")
    return tag("p", f"{count} {'are' if len(others) > 1 else 'is'} not on this page: see the ", *where, class_="note")
