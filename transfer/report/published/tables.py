"""Published results as text: the rows of a block, its notes and its numbered sources, for the page, the terminal and CSV."""

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from encoders.runtime.escape import lines_to_csv
from transfer.records.record import Record
from transfer.report.published.official_split import match_official_split
from transfer.report.published.sets import PublishedMetric, PublishedResult, PublishedSet, read_published_sets
from transfer.tables.rows import Section

if TYPE_CHECKING:
    from rich.console import Console

PUBLISHED_MARK = "published, not rerun"
PUBLISHED_HEADER = ("model", "pretraining", "training", "input", "AUROC", "accuracy", "balanced accuracy", "source")
PUBLISHED_METRICS: tuple[PublishedMetric, ...] = ("auroc", "accuracy", "balanced_accuracy")
NOT_COMPARED = (
    "Numbers of other groups, as printed by them: they enter no difference, no interval and no verdict. ± is a standard deviation over "
    "training runs, not an interval over patients."
)


class PublishedBlock(NamedTuple):
    """Published results for one task, or the reason why none are shown."""

    task: str
    known: PublishedSet | None
    reason: str = ""


def find_published_results(sections: Sequence[Section], sets: Sequence[PublishedSet] | None = None) -> list[PublishedBlock]:
    """One entry for each task whose data set has published results, in the order of the tables. sets: None for those of this package."""
    by_task: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for s in sections:
        by_task[s.task, s.labels, s.store, s.partition] += [r for row in s.rows for r in row.records]
    found = []
    for (task, *_), records in by_task.items():
        match = match_official_split(records, read_published_sets() if sets is None else sets) if records else None
        if isinstance(match, PublishedSet):
            found.append(PublishedBlock(task, match))
        elif match is not None:
            found.append(PublishedBlock(task, None, match))
    return found


def format_published_row(row: PublishedResult, numbers: dict[str, int]) -> tuple[str, ...]:
    """The cells of `PUBLISHED_HEADER`. numbers: key of a source -> its number in the list below the table."""
    cells = [_format_metric(row, name) for name in PUBLISHED_METRICS]
    if row.per_label:
        cells[0] = ", ".join(f"{label} {value:.3f}" for label, value in row.per_label.items())
    return (row.method, row.pretraining, row.training, row.input, *cells, f"[{numbers[row.source]}]")


def _format_metric(row: PublishedResult, name: PublishedMetric) -> str:
    if name not in row.metrics:
        return ""
    return f"{row.metrics[name]:.3f}" + (f" ± {row.sd[name]:.3f}" if name in row.sd else "")


def number_sources(known: PublishedSet) -> dict[str, int]:
    """Key of every source that a result cites -> 1, 2, ... in order of the results."""
    return {key: i for i, key in enumerate(dict.fromkeys(row.source for row in known.results), 1)}


def describe_sources(known: PublishedSet) -> list[str]:
    """One line per source: citation, table, address, protocol and limits."""
    lines = []
    for key, i in number_sources(known).items():
        source = known.sources[key]
        note = f" Note: {source.note}." if source.note else ""
        lines.append(f"[{i}] {source.citation}; {source.table}; {source.address}. Protocol: {source.protocol}.{note}")
    return lines


def describe_official_split(known: PublishedSet) -> str:
    """What was checked before the results were shown."""
    note = f" {known.note}" if known.note else ""
    return (
        f"{known.title}, {known.split}: the {known.test:,} official test images were scored, and the stored split has the official "
        f"{known.development:,} other images; the pixels were not compared with those of the source.{note}"
    )


def print_published_results(console: "Console", blocks: Sequence[PublishedBlock]) -> None:
    """Prints the published results of every block below the tables of one's own."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    for block in blocks:
        if block.known is None:
            console.print(Text(f"  {block.task}: no published results are shown: {block.reason}"), style="dim")
            continue
        title = Text(f"task {block.task}: {PUBLISHED_MARK}")
        table = Table(title=title, title_justify="left", title_style="bold", pad_edge=False, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name in PUBLISHED_HEADER:
            table.add_column(name, overflow="fold")
        numbers = number_sources(block.known)
        for row in block.known.results:
            table.add_row(*map(Text, format_published_row(row, numbers)))
        console.print(table)
        for line in (NOT_COMPARED, describe_official_split(block.known), *describe_sources(block.known)):
            console.print(Text(f"  {line}"), style="dim")


def published_to_csv(blocks: Sequence[PublishedBlock]) -> str:
    """The published results of all blocks as CSV, one line per result, each with its source."""
    lines: list[dict[str, object]] = []
    for task, known, _ in blocks:
        for row in known.results if known is not None else ():
            assert known is not None
            source = known.sources[row.source]
            values: dict[str, object] = {name: row.metrics.get(name, "") for name in PUBLISHED_METRICS}
            values |= {f"{name}_sd": row.sd.get(name, "") for name in PUBLISHED_METRICS}
            values["auroc_per_label"] = "; ".join(f"{label}: {value}" for label, value in row.per_label.items())
            lines.append(
                {"task": task, "origin": PUBLISHED_MARK, "model": row.method, "pretraining": row.pretraining, "training": row.training}
                | {"input": row.input, **values}
                | {"source": source.citation, "table": source.table, "address": source.address, "protocol": source.protocol}
                | {"note": source.note}
            )
    return lines_to_csv(lines)
