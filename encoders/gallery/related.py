"""What belongs to one encoder: its run, its results, and its row in the overview, as lines of text."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from encoders.gallery.bench_entries import format_auroc, read_headlines
from encoders.gallery.entries import UNREADABLE
from encoders.gallery.index_page import anchor
from encoders.gallery.refresh import INDEX_NAME
from encoders.gallery.run_entries import read_run_entry


def list_related(name: str, run: str | None, home: Path) -> Iterator[tuple[str, str]]:
    """(what, text) of the run that made an encoder, its results on tasks, and its place in the overview.

    name: of the entry of the zoo.  run: name of its run, as its card says.  home: the working folder."""
    folder = home / "runs" / run if run and run == Path(run).name else None
    if folder is not None and folder.is_dir():
        try:
            entry = read_run_entry(folder, home)
            yield "run", f"runs/{run}: {entry.status}"
        except UNREADABLE:
            yield "run", f"runs/{run}: its files cannot be read"
        page = folder / "report.html"
        yield "page of the run", str(page) if page.is_file() else f"none; `pretrain report {run}` writes it"
    headlines: list[tuple[str, dict[str, Any]]] = []
    with suppress(*UNREADABLE):
        headlines = read_headlines(home / "records")
    for task, results in headlines:
        try:
            rows = [row for row in results["rows"] if row["encoder"] == name]
            own = [f"{row['protocol']} {format_auroc(row)} {row.get('verdict') or ''}".strip() for row in rows]
        except UNREADABLE:
            continue
        if own:
            yield f"task {task}", f"AUROC by {'; '.join(own)}"
    index = home / INDEX_NAME
    if index.is_file():
        yield "overview", f"{index.as_uri()}#{quote(anchor('encoder', name))}"
