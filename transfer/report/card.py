"""The card of a report: its sentence and its matrix as a PNG of 1200 x 630 pixels, the size of a preview in chats and on websites.

matplotlib draws it from the same matrix as the page. It holds names of encoders, tasks and protocols, and numbers; nothing of a patient.
More rows or columns than are readable make several cards, so that no encoder is left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from encoders.runtime.files import atomic_write
from transfer.report.verdict_text import VERDICT_CLASSES, StyleClass
from transfer.tables.matrix import (
    MatrixCell,
    MatrixRow,
    VerdictMatrix,
    count_tasks,
    describe_symbols,
    format_range,
    format_score,
    group_columns_by_task,
    split_name,
)
from transfer.tables.matrix_sentence import summarize_matrix
from transfer.tables.rows import Section

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH, HEIGHT, DPI = 1200, 630, 100  # pixels
MOST_COLUMNS, MOST_ROWS, MOST_REPEATED = 12, 17, 3  # of one card; baselines that every card shows
MARGIN, NAMES_WIDTH, FOOT = 28, 236, 46  # pixels
INK, SOFT, RULE, PINNED = "#1d2329", "#5b6570", "#c9ced4", "#e9eff6"
FILLS: dict[StyleClass, str] = {"better": "#d8efe5", "worse": "#fae3d3", "same": "#eef0f3", "none": "#ffffff"}
INKS: dict[StyleClass, str] = {"better": "#00704f", "worse": "#b34700", "same": "#5b6570", "none": "#5b6570"}
FAMILY, FONT_PIXELS = "DejaVu Sans", DPI / 72  # the font that matplotlib brings along; pixels of a point


class PixelBox(NamedTuple):
    """Pixels from the upper left corner."""

    x: float
    y: float
    width: float
    height: float


def write_cards(page: Path, sections: Sequence[Section], display_names: Mapping[str, str]) -> list[Path]:
    """Writes the card of a page beside it, as `report.png` for `report.html`; further ones are `report-2.png`, ... Returns the paths.

    [] where there is no result."""
    paths = []
    for i, figure in enumerate(draw_cards(sections, display_names)):
        path = page.with_name(f"{page.stem}{'' if i == 0 else f'-{i + 1}'}.png")
        with atomic_write(path) as part:
            figure.savefig(part, format="png", dpi=DPI)
        paths.append(path)
    return paths


def draw_cards(sections: Sequence[Section], display_names: Mapping[str, str]) -> "list[Figure]":
    """The cards of these sections."""
    from transfer.tables.matrix import build_matrix

    matrix = build_matrix(sections)
    if not matrix.rows:
        return []
    parts = split_matrix(matrix)
    sentence = summarize_matrix(matrix, display_names)
    return [_draw_card(part, sentence, display_names, f"{i + 1} of {len(parts)}" if len(parts) > 1 else "") for i, part in enumerate(parts)]


def split_matrix(matrix: VerdictMatrix) -> list[VerdictMatrix]:
    """The matrix in parts of readable size; each repeats the first ImageNet rows. Every row and column is in one of them."""
    pinned = [row for row in matrix.rows if row.role == "imagenet"][:MOST_REPEATED]
    rest = [row for row in matrix.rows if row not in pinned]
    room = MOST_ROWS - len(pinned)
    chunks = [rest[i : i + room] for i in range(0, len(rest), room)] or [[]]
    return [
        replace(matrix.select(columns), rows=tuple(row for row in matrix.select(columns).rows if _is_one_of(row, [*pinned, *chunk])))
        for columns in group_columns_by_task(matrix, MOST_COLUMNS)
        for chunk in chunks
    ]


def _is_one_of(row: MatrixRow, rows: Sequence[MatrixRow]) -> bool:
    return any(row.encoder == other.encoder for other in rows)


def _draw_card(matrix: VerdictMatrix, sentence: str, display_names: Mapping[str, str], number: str) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    top = _draw_sentence(figure, sentence)
    columns, rows = len(matrix.columns), len(matrix.rows)
    width = min((WIDTH - 2 * MARGIN - NAMES_WIDTH) / columns, 170)
    names = WIDTH - 2 * MARGIN - width * columns if columns > 5 else 330
    head = _draw_head(figure, matrix, PixelBox(MARGIN + names, top, width, 0))
    height = min((HEIGHT - FOOT - head) / rows, 46)
    for i, row in enumerate(matrix.rows):
        y = head + i * height
        fill = PINNED if row.role == "imagenet" else "white"
        _fill(figure, PixelBox(MARGIN, y, names + width * columns, height), fill)
        _draw_name(
            figure, display_names[row.encoder], PixelBox(MARGIN + 4 + 12 * row.is_seed, y, names - 10 - 12 * row.is_seed, height), row.role
        )
        for k, cell in enumerate(row.cells):
            _draw_cell(figure, cell, PixelBox(MARGIN + names + k * width, y, width, height), row.role)
        _line(figure, (MARGIN, y + height), (MARGIN + names + width * columns, y + height), RULE if row.role != "imagenet" else SOFT)
    starts = [k for k, column in enumerate(matrix.columns) if k and matrix.columns[k - 1].task != column.task]
    for k in starts:
        _line(figure, (MARGIN + names + k * width, top), (MARGIN + names + k * width, head + rows * height), SOFT)
    _draw_foot(figure, matrix, number)
    return figure


def _draw_sentence(figure: "Figure", sentence: str) -> float:
    """Draws the wrapped sentence, smaller if it is long, and returns the y below it."""
    size = next((s for s in (17, 15, 13, 11) if len(_wrap(sentence, WIDTH - 2 * MARGIN, s, True)) <= 2), 10)
    lines = _wrap(sentence, WIDTH - 2 * MARGIN, size, True)
    pitch = size * FONT_PIXELS * 1.3
    for i, line in enumerate(lines):
        _text(figure, MARGIN, 24 + pitch * (i + 0.5), line, size, weight="bold")
    return 24 + pitch * len(lines) + 14


def _draw_head(figure: "Figure", matrix: VerdictMatrix, first: PixelBox) -> float:
    """Draws the titles of tasks and protocols and returns the y below them. first: the first column."""
    x, size = first.x, 10.0
    wrapped = [_wrap(column.protocol, first.width - 4, 8.5) for column in matrix.columns]
    tasks = [(_wrap(task, count * first.width - 6, size, True), count) for task, count in count_tasks(matrix.columns)]
    task_height, protocol_height = 15 * max(len(lines) for lines, _ in tasks), 13 * max(map(len, wrapped))
    for lines, count in tasks:
        for i, line in enumerate(lines):
            _text(figure, x + count * first.width / 2, first.y + 15 * (i + 0.5), line, size, align="center", weight="bold")
        x += count * first.width
    bottom = first.y + task_height + protocol_height + 8
    for k, lines in enumerate(wrapped):
        for i, line in enumerate(reversed(lines)):
            _text(figure, first.x + (k + 0.5) * first.width, bottom - 4 - 13 * (i + 0.5), line, 8.5, align="center", colour=SOFT)
    return bottom


def _draw_name(figure: "Figure", name: str, box: PixelBox, role: str) -> None:
    """The whole name: smaller and on several lines if it is long."""
    bold = role == "encoder"
    size, lines = next(
        ((s, lines) for s in (10.0, 9.0, 8.0, 7.0, 6.0) if _fits(lines := _wrap(name, box.width, s, bold), s, box.height)),
        (5.0, _wrap(name, box.width, 5.0, bold)),
    )
    pitch = size * FONT_PIXELS * 1.08
    for i, line in enumerate(lines):
        y = box.y + box.height / 2 + pitch * (i - (len(lines) - 1) / 2)
        _text(figure, box.x, y, line, size, weight="bold" if bold else "normal")


def _fits(lines: Sequence[str], size: float, height: float) -> bool:
    return len(lines) * size * FONT_PIXELS * 1.08 <= height


def _draw_cell(figure: "Figure", cell: MatrixCell, box: PixelBox, role: str) -> None:
    """Score and symbol over the interval; beside it where a row is too low."""
    middle, centre = box.y + box.height / 2, box.x + box.width / 2
    if cell.auroc is None:
        _text(figure, centre, middle, {"not run": "–"}.get(cell.state, cell.state), 8, align="center", colour=SOFT)
        return
    style = VERDICT_CLASSES[cell.verdict] if cell.verdict is not None else None
    if style is not None and role != "imagenet":
        _fill(figure, PixelBox(box.x + 1, box.y + 1, box.width - 2, box.height - 1), FILLS[style])
    size = min(11.5, box.height / 2.9)
    interval, symbol = format_range(cell.auroc), cell.symbol()
    y = middle - (box.height * 0.18 if interval else 0)
    score = format_score(cell.auroc.value)
    _text(figure, centre - (6 if symbol else 0), y, score, size, align="center", weight="bold")
    if symbol:
        _text(figure, centre + size * 2.3 - 4, y, symbol, size, colour=INKS[style or "same"], weight="bold")
    if interval:
        _text(figure, centre, middle + box.height * 0.24, interval, size * 0.68, align="center", colour=SOFT)


def _draw_foot(figure: "Figure", matrix: VerdictMatrix, number: str) -> None:
    symbols = "   ".join(describe_symbols(matrix))
    about = f"AUROC, 95 % interval{'; verdict against the strongest baseline, Holm-corrected:   ' if symbols else ''}{symbols}"
    for i, line in enumerate(_wrap(about, WIDTH - 2 * MARGIN - 150, 8.5)[:2]):
        _text(figure, MARGIN, HEIGHT - 28 + 13 * i, line, 8.5, colour=SOFT)
    _text(figure, WIDTH - MARGIN, HEIGHT - 28, f"isograft{f', card {number}' if number else ''}", 8.5, align="right", colour=SOFT)


def _wrap(text: str, width: float, size: float, bold: bool = False) -> list[str]:
    """The lines of a text, by the measured width of its letters; a piece that is longer than a line is split."""
    lines = [""]
    for piece in split_name(text):
        if lines[-1] and _measure(f"{lines[-1]}{piece.rstrip()}", size, bold) > width:
            lines.append("")
        for letter in piece if _measure(piece.rstrip(), size, bold) > width else [piece]:
            if lines[-1] and _measure(f"{lines[-1]}{letter.rstrip()}", size, bold) > width:
                lines.append("")
            lines[-1] += letter
    return [line.rstrip() for line in lines]


@cache
def _measure(text: str, size: float, bold: bool) -> float:
    """The width of a text in pixels."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties(family=FAMILY, weight="bold" if bold else "normal")))
    font.set_size(size, DPI)
    font.set_text(text, 0)
    return float(font.get_width_height()[0]) / 64


def _text(
    figure: "Figure", x: float, y: float, text: str, size: float, align: str = "left", weight: str = "normal", colour: str = INK
) -> None:
    # Without mathtext: a `$` in a name is a letter.
    figure.text(
        x / WIDTH,
        1 - y / HEIGHT,
        text,
        fontsize=size,
        ha=align,
        va="center",
        fontweight=weight,
        color=colour,
        family=FAMILY,
        parse_math=False,
    )


def _fill(figure: "Figure", box: PixelBox, colour: str) -> None:
    from matplotlib.patches import Rectangle

    corner = box.x / WIDTH, 1 - (box.y + box.height) / HEIGHT
    figure.add_artist(
        Rectangle(
            corner, box.width / WIDTH, box.height / HEIGHT, transform=figure.transFigure, facecolor=colour, edgecolor="none", zorder=0
        )
    )


def _line(figure: "Figure", start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    from matplotlib.lines import Line2D

    xs, ys = (start[0] / WIDTH, end[0] / WIDTH), (1 - start[1] / HEIGHT, 1 - end[1] / HEIGHT)
    figure.add_artist(Line2D(xs, ys, transform=figure.transFigure, color=colour, linewidth=0.7, zorder=1))
