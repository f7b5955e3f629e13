"""The table of items that could not be read: its path, its content, its display, and the balance of all inputs."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from encoders.runtime.escape import read_csv_cell

MAX_QUARANTINE_SHOWN = 20


def read_quarantine(store: Path) -> list[tuple[str, str]]:
    """The (item, reason) pairs that the ingest of a store wrote; empty if every item was read."""
    path = quarantine_path(store)
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [(read_csv_cell(row["file"]), read_csv_cell(row["reason"])) for row in csv.DictReader(file)]


def quarantine_path(out: Path) -> Path:
    """OUT.quarantine.csv."""
    return out.with_name(out.name + ".quarantine.csv")


def describe_balance(items: int, stored: int, quarantined: int, left_out: Mapping[str, int]) -> str:
    """`12 inputs: 5 stored, 4 quarantined, 3 left out (skipped: .txt 2, no row in the table 1)`.

    "" if the numbers do not add up because an item may be several rows.  left_out: files that are no items, by reason."""
    if items != stored + quarantined:
        return ""
    out = {reason: n for reason, n in left_out.items() if n}
    reasons = f" ({', '.join(f'{reason} {n:,}' for reason, n in sorted(out.items()))})" if out else ""
    left = sum(out.values())
    return f"{items + left:,} inputs: {stored:,} stored, {quarantined:,} quarantined, {left:,} left out{reasons}"


def group_reasons(quarantined: Iterable[Sequence[str]]) -> dict[str, list[str]]:
    """Kind of reason to the items that have it, the most frequent first.

    Reasons are of one kind if they differ only in numbers, quoted words, and after a second colon or a semicolon."""
    groups: dict[str, list[str]] = {}
    for item, reason, *_ in quarantined:
        kind = ": ".join(reason.split(";")[0].split(": ")[:2])
        kind = re.sub(r"\d+([.,]\d+)*", "N", kind)
        kind = re.sub(r"'[^']*'", "'...'", kind)
        groups.setdefault(kind, []).append(item)
    return dict(sorted(groups.items(), key=lambda group: (-len(group[1]), group[0])))


def print_quarantine(quarantined: list[tuple[str, str]], path: Path) -> None:
    """Prints the first (item, reason) pairs as a table, and the path of the complete table."""
    from rich.table import Table

    from encoders.runtime.cli import make_console
    from encoders.runtime.local_notes import prints_to_job_log, relative_to_home
    from encoders.runtime.redact import redact_text

    if prints_to_job_log():  # which is often passed on: reasons and counts, no names
        print(f"{len(quarantined)} quarantined, not in the store; their names are in {relative_to_home(path)}")
        for kind, items in group_reasons(quarantined).items():
            print(f"  {len(items)}: {redact_text(kind)}")
        return
    table = Table("file", "reason", title=f"{len(quarantined)} quarantined, not in the store")
    for name, reason in quarantined[:MAX_QUARANTINE_SHOWN]:
        table.add_row(name, reason)
    out = make_console()
    out.print(table)
    groups = group_reasons(quarantined)
    if len(quarantined) > MAX_QUARANTINE_SHOWN and len(groups) > 1:
        counts = Table("count", "reason", "first file", title="by reason")
        for kind, items in groups.items():
            counts.add_row(str(len(items)), kind, items[0])
        out.print(counts)
    more = f"{len(quarantined) - MAX_QUARANTINE_SHOWN} more and " if len(quarantined) > MAX_QUARANTINE_SHOWN else ""
    out.print(f"{more}all reasons: {path}", soft_wrap=True)
