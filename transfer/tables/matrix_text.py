"""The matrix on a terminal: in as many tables, one below the other, as its width needs. Names are wrapped, never cut."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from transfer.stats.verdict import Verdict
from transfer.tables.matrix import (
    MatrixCell,
    VerdictMatrix,
    build_matrix,
    count_tasks,
    describe_symbols,
    format_range,
    format_score,
    group_columns_by_task,
)
from transfer.tables.matrix_sentence import summarize_matrix
from transfer.tables.rows import Section

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

VERDICT_STYLES: Mapping[Verdict, str] = {"better": "bold green", "worse": "bold red", "equivalent": "cyan", "not inferior": "cyan"}
CELL_WIDTH, GAP = 9, 2  # letters of `.902–.953`, and between two columns
NAME_WIDTHS = (12, 34)  # letters of the column of names, at least and at most


def print_matrix(console: "Console", sections: Sequence[Section], display_names: Mapping[str, str]) -> None:
    """Prints the matrix with the meaning of its symbols, unless it has a single column, and then one sentence."""
    from rich.text import Text

    matrix = build_matrix(sections)
    if not matrix.rows:
        return
    ascii_only = not (console.encoding or "").lower().startswith("utf")
    if len(matrix.columns) > 1:
        for columns in group_columns_by_task(matrix, _most_columns(matrix, console.width, display_names)):
            for line in build_matrix_lines(matrix.select(columns), console.width, display_names, ascii_only):
                console.print(line, no_wrap=True, crop=False)
        symbols = "; ".join(describe_symbols(matrix, ascii_only))
        note = "AUROC, 95 % interval" + (f", and verdict against the strongest baseline, Holm-corrected: {symbols}" if symbols else "")
        console.print(Text(note), style="dim")
    console.print(Text(summarize_matrix(matrix, display_names)), style="bold")


def build_matrix_lines(matrix: VerdictMatrix, width: int, display_names: Mapping[str, str], ascii_only: bool = False) -> "Iterator[Text]":
    """The lines of the matrix: tasks over their protocols, then a score with its symbol over an interval for every encoder.

    A cell is wrapped to the width of its column, so that nothing is cut. ImageNet weights come first, above a rule."""
    from rich.text import Text

    names = _name_width(matrix, width, display_names)
    widths = [names] + [CELL_WIDTH] * len(matrix.columns)
    tasks = count_tasks(matrix.columns)
    task_widths = [names] + [count * (CELL_WIDTH + GAP) - GAP for _, count in tasks]
    rule = Text(("-" if ascii_only else "─") * (sum(widths) + GAP * len(matrix.columns)), style="dim")
    yield from _join_cells([Text(""), *(Text(task, style="bold") for task, _ in tasks)], task_widths)
    yield from _join_cells([Text("encoder", style="bold"), *(Text(column.protocol) for column in matrix.columns)], widths)
    yield rule
    for i, row in enumerate(matrix.rows):
        if i and matrix.rows[i - 1].role == "imagenet" != row.role:
            yield rule
        name = Text(("  " if row.is_seed else "") + display_names[row.encoder], style="bold" if row.role == "encoder" else "")
        yield from _join_cells([name, *(_format_cell(cell, ascii_only) for cell in row.cells)], widths)
    yield Text("")


def _join_cells(cells: Sequence["Text"], widths: Sequence[int]) -> "Iterator[Text]":
    """The lines of one row: every cell wrapped to its width and padded."""
    from rich.console import Console
    from rich.text import Text

    console = Console(width=max(widths))
    wrapped = [list(cell.wrap(console, width, overflow="fold")) or [Text("")] for cell, width in zip(cells, widths, strict=True)]
    for i in range(max(map(len, wrapped))):
        line = Text("")
        for lines, width in zip(wrapped, widths, strict=True):
            part = lines[i].copy() if i < len(lines) else Text("")
            part.truncate(width, pad=True)
            line.append_text(part).append(" " * GAP)
        line.rstrip()
        yield line


def _format_cell(cell: MatrixCell, ascii_only: bool) -> "Text":
    from rich.text import Text

    if cell.auroc is None:
        return Text("" if cell.state == "not run" else cell.state, style="dim")
    style = VERDICT_STYLES.get(cell.verdict, "") if cell.verdict is not None else ""
    text = Text(f"{format_score(cell.auroc.value)} {cell.symbol(ascii_only)}".rstrip(), style=style)
    interval = format_range(cell.auroc)
    if interval:
        text.append(f"\n{interval.replace('–', '-') if ascii_only else interval}", style="not bold dim")
    return text


def _name_width(matrix: VerdictMatrix, width: int, display_names: Mapping[str, str]) -> int:
    """The longest name, at most NAME_WIDTHS[1] and a third of the width."""
    longest = max(len(display_names[row.encoder]) + 2 * row.is_seed for row in matrix.rows)
    return max(NAME_WIDTHS[0], min(longest, NAME_WIDTHS[1], width // 3))


def _most_columns(matrix: VerdictMatrix, width: int, display_names: Mapping[str, str]) -> int:
    return max(1, (width - _name_width(matrix, width, display_names)) // (CELL_WIDTH + GAP))
