"""A table on a terminal, in the one form that all tables of results have."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


def build_table(title: "str | Text", header: Iterable[str]) -> "Table":
    """An empty table with its columns, whose cells fold; rows are added to it."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in header:
        table.add_column(name, overflow="fold")
    return table
