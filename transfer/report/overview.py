"""The top of the page: one sentence, and the matrix of encoders x (task, protocol) with its symbols.

The rows of the ImageNet weights are part of the table's head, so that they stay in view on a screen and are repeated on every printed page.
A phone shows every encoder as a card, with a line of protocols for each task.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from encoders.runtime.html import Html, join_html, tag
from transfer.report.verdict_text import VERDICT_CLASSES
from transfer.tables.matrix import (
    VERDICT_SYMBOLS,
    CellState,
    MatrixCell,
    MatrixColumn,
    MatrixRow,
    VerdictMatrix,
    count_tasks,
    describe_cell,
    describe_symbols,
    format_range,
    format_score,
    group_columns_by_task,
    split_name,
)

MOST_COLUMNS = 12  # of one table: more do not fit 1280 pixels or a sheet of paper
MOST_PINNED = 3  # rows that stay in view; more would cover the others
NAMES_WEIGHT = 2.6  # width of the column of names, in columns of scores
MOST_ON_PHONE = 3  # protocols beside each other on a phone
STATE_SIGNS: dict[CellState, str] = {"failed": "failed", "fewer labels": "fewer labels", "not run": "–"}


def render_matrix(matrix: VerdictMatrix, display_names: Mapping[str, str]) -> Html:
    """The matrix as one table, or as several with all rows where it has more than MOST_COLUMNS columns, and its legend."""
    groups = group_columns_by_task(matrix, MOST_COLUMNS)
    tables = [_render_table(matrix.select(columns), display_names) for columns in groups]
    return join_html([*tables, _render_legend(matrix)])


def _render_table(matrix: VerdictMatrix, display_names: Mapping[str, str]) -> Html:
    weights = [row for row in matrix.rows if row.role == "imagenet"]
    pinned, rest = weights[:MOST_PINNED], [*weights[MOST_PINNED:], *(row for row in matrix.rows if row.role != "imagenet")]
    tasks = count_tasks(matrix.columns)
    starts = _task_starts(matrix.columns)
    task_names = (tag("th", task, colspan=count, scope="colgroup", class_="first") for task, count in tasks)
    titles = tag("tr", tag("td"), *task_names, class_="head tasks")
    protocols = [tag("th", c.protocol, scope="col", class_="first" if i in starts else None) for i, c in enumerate(matrix.columns)]
    head = tag(
        "thead",
        titles,
        tag("tr", tag("th", "encoder", scope="col"), *protocols, class_="head"),
        *(_render_row(row, matrix.columns, starts, display_names) for row in pinned),
    )
    body = tag("tbody", *(_render_row(row, matrix.columns, starts, display_names) for row in rest))
    names_share = NAMES_WEIGHT / (NAMES_WEIGHT + len(matrix.columns))
    columns = tag("colgroup", tag("col", style=f"width: {names_share:.1%}"), *(tag("col") for _ in matrix.columns))
    across = min(max(count for _, count in tasks), MOST_ON_PHONE)
    sizes = f"--across: {across}; --columns: {len(matrix.columns)}"
    return tag("div", tag("table", columns, head, body, class_="overview", style=sizes), class_="pane")


def _task_starts(columns: Sequence[MatrixColumn]) -> set[int]:
    """The first column of every task."""
    return {i for i, column in enumerate(columns) if i == 0 or columns[i - 1].task != column.task}


def _render_row(row: MatrixRow, columns: Sequence[MatrixColumn], starts: set[int], display_names: Mapping[str, str]) -> Html:
    name = tag("th", breakable_name(display_names[row.encoder]), scope="row", class_="seed" if row.is_seed else None)
    cells = [_render_cell(cell, columns[i], i in starts, display_names) for i, cell in enumerate(row.cells)]
    return tag("tr", name, *cells, class_=f"role-{row.role}")


def breakable_name(name: str) -> Html:
    """The name with the places where a line may end."""
    return join_html([part for i, piece in enumerate(split_name(name)) for part in ([tag("wbr")] if i else []) + [piece]])


def _render_cell(cell: MatrixCell, column: MatrixColumn, is_first: bool, display_names: Mapping[str, str]) -> Html:
    words = describe_cell(cell, display_names)
    if cell.auroc is None:
        style, parts = "absent", [tag("span", STATE_SIGNS[cell.state], class_="state")]
    else:
        style = VERDICT_CLASSES[cell.verdict] if cell.verdict is not None else "reference"
        symbol = tag("span", cell.symbol(), class_="sign", role="img", aria_label=cell.verdict) if cell.verdict is not None else None
        interval = format_range(cell.auroc)
        score = tag("span", tag("b", format_score(cell.auroc.value)), " " if symbol is not None else None, symbol, class_="score")
        parts = [score, *([tag("span", interval, class_="range")] if interval else [])]
    classes = f"{style} first" if is_first else style
    return tag("td", *parts, class_=classes, data_task=column.task if is_first else None, data_label=column.protocol, title=words or None)


def _render_legend(matrix: VerdictMatrix) -> Html:
    """What the numbers, symbols and colours mean."""
    classes = {VERDICT_SYMBOLS[verdict][0]: VERDICT_CLASSES[verdict] for verdict in matrix.used_verdicts}
    keys = []
    for line in describe_symbols(matrix):
        symbol, _, words = line.partition(" ")
        keys.append(tag("span", tag("span", symbol, class_=f"sign {classes.get(symbol, 'same')}"), f" {words}"))
    text = "AUROC with its 95 % interval" + ("; verdict against the strongest baseline, Holm-corrected:" if keys else ".")
    states = Counter(cell.state for row in matrix.rows for cell in row.cells)
    missing = [f"{states[state]} {'cell' if states[state] == 1 else 'cells'} {state}" for state in STATE_SIGNS if states[state]]
    return tag("p", tag("span", text), *keys, *(tag("span", f"{'; '.join(missing)}.") for _ in missing[:1]), class_="key")
