"""The tables of a study as rows of text, and as they are printed and saved."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.runtime.escape import escape_markdown, lines_to_csv
from transfer.stats import Difference
from transfer.strategies.names import FULL
from transfer.tables.format import format_difference, format_interval
from transfer.tables.labels_needed import count_needed
from transfer.tables.matrix import VERDICT_SYMBOLS
from transfer.tables.render import shorten_names, write_table
from transfer.tables.rows import Row, Section
from transfer.tables.strategy_rows import MEGABYTE, StrategyLine
from transfer.tables.strategy_table import strategy_csv_line
from transfer.tables.study_rows import StrategyChoice, StrategyCost, choose_strategies, measure_costs
from transfer.tables.terminal_table import build_table

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class TextTable:
    """A table as text. note: what the reader must know, below it.  task: whose strategies it lists by number of labels; "" for another."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str
    task: str = ""


def build_study_tables(sections: Sequence[Section], tables: Sequence[Sequence[StrategyLine]]) -> list[TextTable]:
    """All tables of a study, without empty ones.  tables: of strategies, corrected by `judge_study`, as the sections are."""
    names = shorten_names(sections)
    choices = choose_strategies(tables)
    symbols = describe_study_symbols(_list_differences(sections, choices))
    made = [
        tabulate_choices(choices, names),
        *tabulate_strategies(choices, names, symbols),
        *tabulate_encoders(sections, names, symbols),
        *tabulate_savings(sections, tables, names),
        tabulate_costs(measure_costs(sections)),
    ]
    return [table for table in made if table.rows]


def _list_differences(sections: Sequence[Section], choices: Sequence[StrategyChoice]) -> list[Difference]:
    of_encoders = [c.difference for section in sections for row in section.rows for c in row.comparisons]
    return of_encoders + [line.difference for choice in choices for line in choice.lines if line.difference is not None]


def tabulate_choices(choices: Sequence[StrategyChoice], names: Mapping[str, str]) -> TextTable:
    """Which strategy when: a row for each task, number of labels and encoder."""
    header = ("task", "labels", "encoder", "chosen by validation", "AUROC [95 %]", "AUROC difference to the first", "best on the test part",
              "better than the first", "worse than the first")  # fmt: skip
    rows = []
    for choice in choices:
        first, chosen, best = choice.lines[0], choice.lines[choice.chosen], choice.lines[choice.best]
        difference = "" if chosen.difference is None else format_difference(chosen.difference)
        rows.append(
            (
                first.section.task,
                title_of_labels(first.row),
                names[first.row.encoder],
                chosen.strategy,
                format_interval(chosen.row.metrics["auroc"]),
                difference,
                f"{best.strategy} {best.row.metrics['auroc'].value:.3f}",
                choice.describe("better"),
                choice.describe("worse"),
            )
        )
    firsts = ", ".join(dict.fromkeys(choice.lines[0].strategy for choice in choices))
    note = (
        f"first: {firsts}; chosen by validation: the strategy with the best mean validation score, whose AUROC is an honest estimate. The "
        "best on the test part is the best of several, and its own AUROC is too high. Better and worse: after Holm's correction"
    )
    return TextTable("which strategy when", header, rows, note)


def tabulate_strategies(choices: Sequence[StrategyChoice], names: Mapping[str, str], symbols: str) -> list[TextTable]:
    """A table for each task: strategies of each encoder by number of labels, with the verdict against full fine-tuning."""
    grid: dict[str, dict[tuple[str, str], dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for choice in choices:
        for line in choice.lines:
            cell = f"{format_interval(line.row.metrics['auroc'])} {_symbol(line.difference)}".strip()
            grid[line.section.task][names[line.row.encoder], line.strategy][title_of_labels(line.row)] = cell
    first = ", ".join(dict.fromkeys(choice.lines[0].strategy for choice in choices))
    note = f"AUROC [95 %] with the verdict against {first} of the same encoder and labels; {symbols}"
    titles = ("encoder", "strategy")
    return [replace(_tabulate_grid(f"strategies by number of labels: {task}", titles, own, note), task=task) for task, own in grid.items()]


def tabulate_encoders(sections: Sequence[Section], names: Mapping[str, str], symbols: str) -> list[TextTable]:
    """A table for each task: the difference of each encoder to its strongest baseline, by protocol and number of labels."""
    grid: dict[str, dict[tuple[str, str], dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for section in sections:
        for row in section.rows:
            if row.difference is not None and row.role == "encoder":
                cell = f"{format_difference(row.difference)} {_symbol(row.difference)} {names[row.reference]}".replace("  ", " ")
                grid[section.task][names[row.encoder], section.protocol][title_of_labels(row)] = cell
    note = f"AUROC difference [95 %] to the strongest baseline of the same protocol and labels, which is named; {symbols}"
    return [_tabulate_grid(f"encoders by number of labels: {task}", ("encoder", "protocol"), own, note) for task, own in grid.items()]


def tabulate_savings(sections: Sequence[Section], tables: Sequence[Sequence[StrategyLine]], names: Mapping[str, str]) -> list[TextTable]:
    """A table for each task: how many labeled patients full fine-tuning of ImageNet weights needs for the AUROC of each row.

    Without ImageNet weights it is the first encoder of the task; a task with one number of labels has no table."""
    made = []
    for task in dict.fromkeys(section.task for section in sections):
        lines = [line for table in tables for line in table if line.section.task == task]
        full = [line for line in lines if line.strategy == FULL]
        chosen = next((line for line in full if line.row.role == "imagenet"), full[0] if full else None)
        if chosen is None:
            continue
        others = [line.row for line in full if line.row.encoder == chosen.row.encoder and line.family == chosen.family]
        if len(others) < 2:
            continue
        grid: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
        for line in lines:
            if line.row not in others and line.family == chosen.family:
                needed = count_needed(line.row, others, line.section.judged)
                grid[names[line.row.encoder], line.strategy][title_of_labels(line.row)] = f"{needed.patients} ({needed.interval})"
        note = (
            f"labeled patients with which {FULL} of {names[chosen.row.encoder]} reaches the AUROC of the row (95 % interval over test "
            "patients and draws); interpolated over the logarithm of the number of patients, only a bound beyond the numbers of this study"
        )
        made.append(_tabulate_grid(f"labels needed instead: {task}", ("encoder", "strategy"), grid, note))
    return made


def tabulate_costs(costs: Sequence[StrategyCost]) -> TextTable:
    """What the strategies cost."""
    header = ("strategy", "trainings", "trained parameters", "memory, MB", "images seen", "seconds of a training", "hours in all", "device")
    rows = [
        (
            cost.strategy,
            str(cost.cells),
            _format_range(cost.trained_parameters),
            f"{cost.memory_bytes / MEGABYTE:,.0f}",
            _format_range(cost.images_seen),
            f"{cost.fit_seconds[1]:.0f} ({cost.fit_seconds[0]:.0f} to {cost.fit_seconds[2]:.0f})",
            f"{cost.hours:.2f}",
            cost.device,
        )
        for cost in costs
    ]
    hours: dict[str, float] = defaultdict(float)
    for cost in costs:
        hours[cost.device] += cost.hours
    total = ", ".join(f"{value:.2f} hours on {device}" for device, value in hours.items())
    note = f"in all {total}; seconds: median (range); memory: of a training step, the most; hours include validation and scoring"
    return TextTable("cost", header, rows, note)


def _tabulate_grid(title: str, first: tuple[str, str], grid: Mapping[tuple[str, str], Mapping[str, str]], note: str) -> TextTable:
    """Rows by pairs of names, columns by number of labels in the order in which they come."""
    columns = list(dict.fromkeys(name for cells in grid.values() for name in cells))
    return TextTable(title, (*first, *columns), [(*pair, *(cells.get(name, "") for name in columns)) for pair, cells in grid.items()], note)


def title_of_labels(row: Row) -> str:
    """`50 patients`, `10% of the labels`, or `all labels`."""
    return row.labels_title.removeprefix(", ") or "all labels"


def _symbol(difference: Difference | None) -> str:
    return "" if difference is None else VERDICT_SYMBOLS[difference.reported_verdict][0]


def describe_study_symbols(differences: Sequence[Difference]) -> str:
    """What the symbols mean that occur, and how the verdicts were corrected."""
    found = {d.reported_verdict for d in differences}
    symbols = ", ".join(f"{symbols[0]} {verdict}" for verdict, symbols in VERDICT_SYMBOLS.items() if verdict in found)
    family = max((d.family for d in differences), default=0)
    return f"{symbols}, after Holm's correction over all {family} comparisons of the study"


def _format_range(ends: tuple[int, int]) -> str:
    return f"{ends[0]:,}" if ends[0] == ends[1] else f"{ends[0]:,} to {ends[1]:,}"


def report_study(console: "Console", sections: Sequence[Section], tables: Sequence[Sequence[StrategyLine]], folder: Path) -> None:
    """Prints the tables of a study, and writes them to study.md, and every strategy with full numbers to study.csv, in its folder."""
    from rich.text import Text

    markdown: list[str] = []
    for made in build_study_tables(sections, tables):
        table = build_table(Text(made.title), made.header)
        for row in made.rows:
            table.add_row(*map(Text, row))
        console.print(table)
        console.print(Text(f"  {made.note}"), style="dim")
        rows = [made.header, ("---",) * len(made.header), *(map(escape_markdown, row) for row in made.rows)]
        lines = [f"| {' | '.join(row)} |" for row in rows]
        markdown += [f"### {escape_markdown(made.title)}", "", *lines, "", f"- {escape_markdown(made.note)}", ""]
    write_table(folder / "study.md", "\n".join(markdown))
    write_table(folder / "study.csv", lines_to_csv([strategy_csv_line(line, table[0]) for table in tables for line in table]))
