"""What could not be read, shown so that one line says how bad it is and a few lines say what to look at."""

from pathlib import Path

SHOWN = 20


def show(quarantined: list[tuple[str, str]], path: Path) -> None:
    """Prints the first of the (item, reason) pairs as a table, and where all of them are."""
    from rich.markup import escape
    from rich.table import Table

    from encoders.runtime.cli import console

    table = Table("file", "reason", title=f"{len(quarantined)} quarantined, not in the store")
    for name, reason in quarantined[:SHOWN]:
        table.add_row(escape(name), escape(reason))
    out = console()
    out.print(table)
    more = f"{len(quarantined) - SHOWN} more and " if len(quarantined) > SHOWN else ""
    out.print(f"{more}all reasons: {path}", soft_wrap=True)
