"""The table of items that could not be read: its path, its content, and its display."""

import csv
from pathlib import Path

MAX_QUARANTINE_SHOWN = 20


def read_quarantine(store: Path) -> list[tuple[str, str]]:
    """The (item, reason) pairs that the ingest of a store wrote; empty if every item was read."""
    path = quarantine_path(store)
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [(row["file"], row["reason"]) for row in csv.DictReader(file)]


def quarantine_path(out: Path) -> Path:
    """OUT.quarantine.csv."""
    return out.with_name(out.name + ".quarantine.csv")


def print_quarantine(quarantined: list[tuple[str, str]], path: Path) -> None:
    """Prints the first (item, reason) pairs as a table, and the path of the complete table."""
    from rich.markup import escape
    from rich.table import Table

    from encoders.runtime.cli import make_console

    table = Table("file", "reason", title=f"{len(quarantined)} quarantined, not in the store")
    for name, reason in quarantined[:MAX_QUARANTINE_SHOWN]:
        table.add_row(escape(name), escape(reason))
    out = make_console()
    out.print(table)
    more = f"{len(quarantined) - MAX_QUARANTINE_SHOWN} more and " if len(quarantined) > MAX_QUARANTINE_SHOWN else ""
    out.print(f"{more}all reasons: {path}", soft_wrap=True)
