"""The table of strategies of fine-tuning on a terminal, as Markdown and as CSV."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from encoders.runtime.escape import escape_markdown, lines_to_csv
from encoders.runtime.paths import records_dir
from transfer.strategies.names import describe_search
from transfer.tables.format import format_difference, format_interval, format_verdict
from transfer.tables.render import shorten_names, write_table
from transfer.tables.rows import Section
from transfer.tables.search_rows import find_search
from transfer.tables.strategy_rows import MEGABYTE, StrategyLine
from transfer.tables.terminal_table import build_table

if TYPE_CHECKING:
    from rich.console import Console
STRATEGY_HEADER = (
    "strategy",
    "trained parameters",
    "memory, MB",
    "fit, s",
    "AUROC [95 %]",
    "recall of the rarest class",
    "ECE",
    "AUROC difference [95 %]",
)


def report_strategies(console: "Console", sections: Sequence[Section], tables: Sequence[Sequence[StrategyLine]]) -> None:
    """Prints the tables of encoders with several strategies, and writes them to strategies.csv and strategies.md beside the records."""
    from rich.text import Text

    if not tables:
        return
    names = shorten_names(sections)
    markdown: list[str] = []
    for lines in tables:
        title, caption = describe_table(lines, names[lines[0].row.encoder])
        table = build_table(Text(title), STRATEGY_HEADER)
        for line in lines:
            table.add_row(*map(Text, format_line(line, lines[0])))
        console.print(table)
        console.print(Text(f"  {caption}"), style="dim")
        rows = [STRATEGY_HEADER, ("---",) * len(STRATEGY_HEADER), *(map(escape_markdown, format_line(line, lines[0])) for line in lines)]
        markdown += [
            f"### {escape_markdown(title)}",
            "",
            *(f"| {' | '.join(row)} |" for row in rows),
            "",
            f"- {escape_markdown(caption)}",
            "",
        ]
    write_table(records_dir() / "strategies.md", "\n".join(markdown))
    write_table(records_dir() / "strategies.csv", lines_to_csv([strategy_csv_line(line, lines[0]) for lines in tables for line in lines]))


def describe_table(lines: Sequence[StrategyLine], encoder: str) -> tuple[str, str]:
    """The title of a table and the line below it."""
    first = lines[0]
    same = {(line.images_seen, line.validations) for line in lines}
    budget = f"{first.images_seen:,} images seen and {first.validations} validations each"
    searched = find_search(first.row.records[0])
    if searched:
        listed = ", ".join(f"{line.strategy} {line.images_seen:,} and {line.validations}" for line in lines)
        how = f"{describe_search(first.section.protocol)}, halving by {searched['factor']}"
        budget = f"{how}; images seen and validations of all trials: {listed}"
    elif len(same) > 1:
        listed = ", ".join(f"{line.strategy} {line.images_seen:,} and {line.validations}" for line in lines)
        budget = f"unequal numbers of images seen and of validations, by early stopping: {listed}"
    memory = (
        "peak of the GPU's allocator" if first.memory_source == "allocator" else "weights, gradients, optimizer and activations of a step"
    )
    rare = f"rarest class: {first.rare_class}"
    compared = f"differences are to {first.strategy}, paired by test patient, Holm over {describe_family_size(lines)}"
    note = f"{budget}; memory: {memory}; {rare}; {compared}"
    best = f", {describe_search(first.section.protocol)}" if searched else ""
    return f"strategies of fine-tuning: {first.section.task}, {encoder}{first.row.labels_title}{best}", note


def describe_family_size(lines: Sequence[StrategyLine]) -> str:
    """What the differences of a table are corrected for: its own rows, or all comparisons of a study."""
    own = [line.difference for line in lines if line.difference is not None]
    size = max((d.family for d in own), default=0)
    return "the rows" if size <= len(own) else f"all {size} comparisons of the study"


def format_line(line: StrategyLine, first: StrategyLine) -> tuple[str, ...]:
    """A line as text, with the columns of STRATEGY_HEADER."""
    difference = f"{format_difference(line.difference)} {format_verdict(line.difference, first.strategy)}".strip()
    return (
        line.strategy,
        f"{line.trained_parameters:,}",
        f"{line.memory_bytes / MEGABYTE:,.0f}",
        f"{line.fit_seconds:.0f}",
        format_interval(line.row.metrics["auroc"]),
        f"{line.rare_recall:.3f}",
        f"{line.ece:.3f}",
        difference,
    )


def strategy_csv_line(line: StrategyLine, first: StrategyLine) -> dict[str, object]:
    """A line with full numbers."""
    row, d, auroc = line.row, line.difference, line.row.metrics["auroc"]
    out: dict[str, object] = {
        "task": line.section.task, "encoder": row.encoder, "fraction": row.fraction, "strategy": line.strategy, "family": line.family,
        "protocol_hash": line.section.protocol_hash, "trained_parameters": line.trained_parameters, "memory_bytes": line.memory_bytes,
        "memory_source": line.memory_source, "images_seen": line.images_seen, "validations": line.validations,
        "selected": describe_search(line.section.protocol),
        "fit_seconds": f"{line.fit_seconds:.3f}", "auroc": f"{auroc.value:.6f}", "auroc_low": f"{auroc.low:.6f}",
        "auroc_high": f"{auroc.high:.6f}", "rarest_class": line.rare_class, "rarest_class_recall": f"{line.rare_recall:.6f}",
        "ece": f"{line.ece:.6f}",
    }  # fmt: skip
    if d is not None:
        out |= {"versus": first.strategy, "difference": f"{d.value:.6f}", "difference_low": f"{d.low:.6f}"}
        out |= {"difference_high": f"{d.high:.6f}", "p_holm": f"{d.holm_p:.6g}", "verdict": d.reported_verdict}
    return out
