"""What the saved W&B report shows: the matrix of encoders and tasks as HTML and as Markdown, label-efficiency curves, and lineage.

W&B's own panels have no matrix with verdicts, and colours of verdicts are not among its settings.
"""

import re
from collections.abc import Mapping, Sequence
from html import escape

from encoders.runtime.escape import one_line
from encoders.runtime.page import build_policy
from encoders.runtime.wandb_views import ComparisonView
from encoders.zoo.card import Card
from encoders.zoo.names import short_name
from encoders.zoo.pretraining_columns import describe_pretraining
from transfer.stats.verdict import Verdict
from transfer.tables.matrix import (
    MatrixCell,
    VerdictMatrix,
    build_matrix,
    count_tasks,
    describe_cell,
    describe_symbols,
    format_range,
    format_score,
)
from transfer.tables.matrix_sentence import summarize_matrix
from transfer.tables.render import shorten_names
from transfer.tables.rows import Section
from transfer.tables.wandb_columns import SHOWN_COLUMNS

HEADLINE_SCALARS = ("headline/mean_auroc", "headline/mean_rank")
CURVE_COLUMNS = ("encoder", "labels", "auroc", "auroc_low", "auroc_high", "verdict")
PAGE = "overview"
# Background of a cell and square in Markdown, in pairs that differ for readers with deuteranopia too; the symbol says the same.
VERDICT_COLORS: Mapping[Verdict, tuple[str, str]] = {
    "better": ("#bfe3c6", "🟩"),
    "worse": ("#f6c4b8", "🟥"),
    "equivalent": ("#cfe3f5", "🟦"),
    "not inferior": ("#cfe3f5", "🟦"),
}
NEUTRAL = ("#f3f3f3", "⬜")
STYLE = (
    "body{font:14px system-ui,sans-serif;margin:12px;color:#111;background:#fff}table{border-collapse:collapse}"
    "td,th{border:1px solid #ccc;padding:4px 8px;text-align:center}th.name{text-align:left;white-space:nowrap}small{color:#444}"
)


def build_comparison_view(sections: Sequence[Section], cards: Mapping[str, Card]) -> ComparisonView:
    """The workspace and the report of these sections.  cards: of the encoders that are available locally."""
    matrix = build_matrix(sections)
    names = shorten_names(sections)
    trained = [name for name, card in cards.items() if card.lineage.get("run_id")]
    return ComparisonView(
        metrics=sorted({f"bench/{s.task}/{s.protocol}/auroc" for s in sections}),
        headline=HEADLINE_SCALARS,
        columns=SHOWN_COLUMNS,
        overview=matrix_to_markdown(matrix, names),
        page=PAGE,
        curves=[(f"{title}: AUROC by labels", name) for title, name, _ in build_label_curves(sections)],
        scale=("encoder.pretraining_images", HEADLINE_SCALARS[:1]),
        lineage=lineage_to_markdown(cards),
        artifacts=[short_name(name) for name in trained],
    )


def matrix_to_markdown(matrix: VerdictMatrix, names: Mapping[str, str]) -> str:
    """The matrix as a Markdown table. A cell: coloured square, AUROC, interval, symbol of the verdict."""
    head = ["encoder", *(f"{column.task}, {column.protocol}" for column in matrix.columns)]
    lines = [summarize_matrix(matrix, names), "", _markdown_line(head), _markdown_line(["---"] * len(head))]
    for row in matrix.rows:
        lines.append(_markdown_line([f"`{names[row.encoder]}`", *(_markdown_cell(cell) for cell in row.cells)]))
    return "\n".join([*lines, "", "; ".join(describe_symbols(matrix))])


def _markdown_cell(cell: MatrixCell) -> str:
    if cell.auroc is None:
        return cell.state
    return f"{_colors(cell)[1]} {format_score(cell.auroc.value)} [{format_range(cell.auroc)}] {cell.symbol()}".strip()


def _markdown_line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(one_line(cell).replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def _colors(cell: MatrixCell) -> tuple[str, str]:
    return NEUTRAL if cell.verdict is None else VERDICT_COLORS.get(cell.verdict, NEUTRAL)


def matrix_to_html(matrix: VerdictMatrix, names: Mapping[str, str]) -> str:
    """The matrix as a page without scripts and without addresses, coloured by verdict."""
    tasks = "".join(f'<th colspan="{count}">{escape(task)}</th>' for task, count in count_tasks(matrix.columns))
    protocols = "".join(f"<th>{escape(column.protocol)}</th>" for column in matrix.columns)
    rows = "".join(
        f'<tr><th class="name">{escape(names[row.encoder])}</th>{"".join(_html_cell(cell, names) for cell in row.cells)}</tr>'
        for row in matrix.rows
    )
    head = f"<tr><th rowspan=2>encoder</th>{tasks}</tr><tr>{protocols}</tr>"
    symbols = escape("; ".join(describe_symbols(matrix)))
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{build_policy()}"><title>Encoders by task</title><style>{STYLE}</style>'
        f"<p>{escape(summarize_matrix(matrix, names))}</p><table>{head}{rows}</table>"
        f"<p><small>AUROC, 95 % interval over test patients, verdict after Holm correction: {symbols}</small></p></html>"
    )


def _html_cell(cell: MatrixCell, names: Mapping[str, str]) -> str:
    if cell.auroc is None:
        return f"<td>{escape(cell.state)}</td>"
    told = escape(describe_cell(cell, names), quote=True)
    score = f"<b>{format_score(cell.auroc.value)}</b> {escape(cell.symbol())}<br><small>{escape(format_range(cell.auroc))}</small>"
    return f'<td style="background:{_colors(cell)[0]}" title="{told}">{score}</td>'


def build_label_curves(sections: Sequence[Section]) -> list[tuple[str, str, list[list[float | str | None]]]]:
    """(title, name of the table, lines of CURVE_COLUMNS) of each section with several numbers of labels.

    labels: the number of shots, else of train patients where all records name it, else the share of the labels."""
    curves = []
    for section in sections:
        lines: list[list[float | str | None]] = []
        for row in section.rows:
            auroc, d = row.metrics["auroc"], row.difference
            verdict = d.reported_verdict if d else ""
            labels = float(row.shots if row.shots is not None else row.labels_order[2])
            lines.append([short_name(row.encoder), labels, auroc.value, auroc.low, auroc.high, verdict])
        if len({line[1] for line in lines}) > 1:
            name = re.sub(r"[^A-Za-z0-9]+", "_", f"label_efficiency_{section.task}_{section.protocol}")
            curves.append((f"{section.task}, {section.protocol}", name, lines))
    return curves


def lineage_to_markdown(cards: Mapping[str, Card]) -> str:
    """Where each encoder comes from, as a Markdown table: parent, pretraining, weights and licence; "" without a card."""
    head = ("encoder", "started from", "pretraining run", "method", "images", "epochs", "weights", "licence")
    lines = [_markdown_line(head), _markdown_line(["---"] * len(head))]
    for name, card in cards.items():
        facts = describe_pretraining(card)
        run = f"{facts['pretraining_run']} ({facts['run_id']})" if facts["run_id"] else ""
        images = [facts["parent"], run, facts["method"], facts["pretraining_images"], facts["epochs"]]
        cells = [f"`{short_name(name)}`", *images, (card.sha256 or "")[:12], card.licence]
        lines.append(_markdown_line(["" if cell is None else str(cell) for cell in cells]))
    return "\n".join(lines) if cards else ""
