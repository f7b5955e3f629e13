"""The overview of a report: encoders x (task, protocol), each cell with its AUROC, interval and corrected verdict.

The page, its card and the terminal show the same matrix. A cell is the row of its encoder with the most labels in its column. Its verdict
is that of the table, against the strongest baseline.
"""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from transfer.protocols import describe_protocol, protocol_order
from transfer.stats import Difference, Interval
from transfer.stats.verdict import NOT_TESTED, Verdict
from transfer.tables.format import format_difference, format_p
from transfer.tables.rows import Row, Section, rows_with_most_labels

# Distinguishable without colours: the shape is the verdict. The second symbol is for terminals without Unicode.
VERDICT_SYMBOLS: dict[Verdict, tuple[str, str]] = {
    "better": ("▲", "+"),
    "worse": ("▼", "-"),
    "equivalent": ("=", "="),
    "not inferior": ("≥", ">="),
    "not distinguishable": ("○", "o"),
    "insufficient patients": ("?", "?"),
    "insufficient draws": ("?", "?"),
    "does not transfer": ("×", "x"),
}
NO_VERDICT: tuple[Verdict, ...] = (*NOT_TESTED, "does not transfer")
ROLES = ("imagenet", "encoder", "diagnosis", "random", "floor")  # the rows of a matrix, from top to bottom
OTHER_BASELINE = ("†", "*")  # marks a verdict against another baseline than ImageNet weights, in Unicode and in ASCII
CellState = Literal["scored", "failed", "fewer labels", "not run"]


class MatrixColumn(NamedTuple):
    """task: title of the task.  protocol: title of the protocol, with what distinguishes it from others of the same name."""

    task: str
    protocol: str


@dataclass(frozen=True)
class MatrixCell:
    """auroc: None unless the state is "scored".  difference: to the strongest baseline, `reference`; None: compared with nothing."""

    state: CellState
    auroc: Interval | None = None
    difference: Difference | None = None
    reference: str = ""
    reference_role: str = ""

    @property
    def verdict(self) -> Verdict | None:
        """The corrected verdict; None for a cell that is compared with nothing."""
        return None if self.difference is None else self.difference.reported_verdict

    @property
    def has_other_baseline(self) -> bool:
        """Whether the verdict is against something else than ImageNet weights."""
        return self.difference is not None and self.reference_role != "imagenet"

    def symbol(self, ascii_only: bool = False) -> str:
        """The symbol of the verdict, with a mark where it is not against ImageNet weights; "" without a verdict."""
        if self.verdict is None:
            return ""
        return VERDICT_SYMBOLS[self.verdict][ascii_only] + (OTHER_BASELINE[ascii_only] if self.has_other_baseline else "")


@dataclass(frozen=True)
class MatrixRow:
    """One encoder. cells: one per column.  is_seed: it is averaged in the row of a recipe above it."""

    encoder: str
    role: str
    cells: tuple[MatrixCell, ...]
    is_seed: bool = False


@dataclass(frozen=True)
class VerdictMatrix:
    """columns: sorted by task, then in the order of the registry of protocols.  rows: ImageNet weights first."""

    columns: tuple[MatrixColumn, ...]
    rows: tuple[MatrixRow, ...]

    def select(self, columns: Sequence[int]) -> "VerdictMatrix":
        """The matrix with some of its columns, and all rows."""
        rows = tuple(replace(row, cells=tuple(row.cells[i] for i in columns)) for row in self.rows)
        return VerdictMatrix(tuple(self.columns[i] for i in columns), rows)

    @property
    def used_verdicts(self) -> list[Verdict]:
        """The verdicts that occur, in the order of VERDICT_SYMBOLS."""
        found = {cell.verdict for row in self.rows for cell in row.cells}
        return [verdict for verdict in VERDICT_SYMBOLS if verdict in found]


def build_matrix(sections: Sequence[Section]) -> VerdictMatrix:
    """The matrix of these sections, with a column for each of them and a row for every encoder of any of them."""
    ordered = sorted(sections, key=lambda s: (s.task, protocol_order(s.protocol)))
    columns = name_matrix_columns(ordered)
    roles: dict[str, str] = {}
    for section in ordered:
        roles |= {row.encoder: row.role for row in section.rows if row.encoder not in roles}
        roles |= {r.identity.encoder: r.meta.role for r in section.failed if r.identity.encoder not in roles}
    seeds = {name for section in ordered for row in section.rows for name in row.seeds}
    lookups = [{row.encoder: row for row in rows_with_most_labels(section)} for section in ordered]
    rows = [
        MatrixRow(
            name, role, tuple(_build_cell(name, section, lookup) for section, lookup in zip(ordered, lookups, strict=True)), name in seeds
        )
        for name, role in roles.items()
    ]
    rank = {role: i for i, role in enumerate(ROLES)}
    return VerdictMatrix(tuple(columns), tuple(sorted(rows, key=lambda row: rank.get(row.role, 1))))


def name_matrix_columns(sections: Sequence[Section]) -> list[MatrixColumn]:
    """The title of every column. Sections of one task and protocol are told apart by what differs: settings, precision, split, labels."""
    same: dict[tuple[str, str], list[Section]] = defaultdict(list)
    for section in sections:
        same[section.task, section.protocol].append(section)
    columns = []
    for section in sections:
        others = same[section.task, section.protocol]
        title = describe_protocol(section.protocol) + _shots_title(section)
        for name in ("protocol_hash", "precision", "partition", "labels", "store"):
            if len({getattr(other, name) for other in others}) > 1:
                title += f", {name.partition('_')[0]} {getattr(section, name)[:8]}"
        columns.append(MatrixColumn(section.task, title))
    return columns


def _shots_title(section: Section) -> str:
    """`, 16 shots`, or `, 10% of the labels` where no encoder has them all."""
    titles = {row.labels_title for row in rows_with_most_labels(section)}
    return min(titles) if len(titles) == 1 else ""


def _build_cell(encoder: str, section: Section, lookup: Mapping[str, Row]) -> MatrixCell:
    row = lookup.get(encoder)
    if row is None:
        if any(other.encoder == encoder for other in section.rows):
            return MatrixCell("fewer labels")
        failed = any(r.identity.encoder == encoder for r in section.failed)
        return MatrixCell("failed" if failed else "not run")
    primary = row.primary
    if primary is None or math.isnan(primary.difference.value):
        return MatrixCell("scored", row.metrics["auroc"])
    roles = {other.encoder: other.role for other in section.rows}
    return MatrixCell("scored", row.metrics["auroc"], primary.difference, primary.reference, roles.get(primary.reference, ""))


def group_columns_by_task(matrix: VerdictMatrix, most: int) -> list[list[int]]:
    """The columns in groups of at most `most`; those of one task stay together unless they are more."""
    by_task: dict[str, list[int]] = defaultdict(list)
    for i, column in enumerate(matrix.columns):
        by_task[column.task].append(i)
    groups: list[list[int]] = []
    for columns in by_task.values():
        if groups and len(groups[-1]) + len(columns) <= most:
            groups[-1] += columns
        else:
            groups += [columns[i : i + most] for i in range(0, len(columns), most)]
    return groups


def count_tasks(columns: Sequence[MatrixColumn]) -> list[tuple[str, int]]:
    """(task, number of its columns) in order."""
    return list(Counter(column.task for column in columns).items())


def split_name(name: str) -> list[str]:
    """The pieces of a name or text between which a line may end: after `_`, `-`, `.`, `/`, `@`, `:`, `,`, `+` and blanks."""
    return re.split(r"(?<=[_\-./@:,+ ])(?=.)", name)


def format_score(value: float) -> str:
    """`.931`, `1.000`; `n/a` for NaN."""
    return "n/a" if math.isnan(value) else f"{value:.3f}".removeprefix("0")


def format_range(interval: Interval) -> str:
    """`.902–.953`; "" without an interval."""
    return "" if math.isnan(interval.low) else f"{format_score(interval.low)}–{format_score(interval.high)}"


def describe_cell(cell: MatrixCell, display_names: Mapping[str, str]) -> str:
    """The verdict of a cell in words: `better than imagenet_resnet50: +0.041 [+0.012, +0.070], p (Holm) 0.003`; its state without one."""
    if cell.state != "scored":
        return cell.state
    d = cell.difference
    if d is None:
        return ""
    p = format_p(d.corrected_p)
    end = f", p{' (Holm)' if d.family > 1 else ''} {p}" if p else ""
    return f"{d.reported_verdict}; {display_names.get(cell.reference, cell.reference)}: {format_difference(d)}{end}"


def describe_symbols(matrix: VerdictMatrix, ascii_only: bool = False) -> list[str]:
    """The meaning of every symbol that occurs."""
    verdicts: dict[str, list[str]] = {}
    for verdict in matrix.used_verdicts:
        verdicts.setdefault(VERDICT_SYMBOLS[verdict][ascii_only], []).append(verdict)
    lines = [f"{symbol} {' or '.join(words)}" for symbol, words in verdicts.items()]
    if any(cell.has_other_baseline for row in matrix.rows for cell in row.cells):
        lines.append(f"{OTHER_BASELINE[ascii_only]} the strongest baseline is not ImageNet weights")
    return lines
