"""What the difference between an encoder and its start is made of: its weights, or its BatchNorm statistics.

`transfer bench --diagnose batchnorm` scores, for an encoder E that was trained from S, also E with the weights of S (`E~weights=S`) and E
with the statistics of S (`E~statistics=S`). Each change alone, and each on top of the other, is a difference of two of these four on the
same test patients, with an interval. The p-values are corrected (Holm) for all lines of a block.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from encoders.zoo.names import split_swap
from transfer.stats import Difference, correct_family
from transfer.stats.verdict import SIGNIFICANT
from transfer.tables.comparisons import compare_rows
from transfer.tables.rows import Row, Section

CHANGES = ("all changes", "statistics alone", "weights alone", "statistics, after the weights", "weights, after the statistics")


@dataclass(frozen=True)
class DiagnosisLine:
    """One change from the start to the encoder, and what it does to the AUROC."""

    encoder: str
    start: str
    protocol: str
    labels_title: str
    change: str
    difference: Difference


def gather_diagnoses(block: Sequence[Section]) -> list[DiagnosisLine]:
    """The lines of every encoder of a block that has a diagnosis: those of CHANGES, in this order. [] if none has."""
    lines = [line for section in block for row in section.rows for line in _diagnose_row(row, section)]
    corrected = correct_family([line.difference for line in lines])
    return [replace(line, difference=difference) for line, difference in zip(lines, corrected, strict=True)]


def _diagnose_row(row: Row, section: Section) -> list[DiagnosisLine]:
    """The lines of one encoder, read from its row with the start's statistics."""
    swap = split_swap(row.records[0].identity.encoder) if not row.seeds and row.role == "diagnosis" else None
    if swap is None or swap[1] != "statistics":
        return []
    encoder, _, start = swap
    rows = [_find_row(name, row, section) for name in (encoder, start, f"{encoder}~weights={start}")]
    if any(found is None for found in rows):
        return []
    whole, first, with_start_weights = (found for found in rows if found is not None)
    pairs = [(whole, first), (with_start_weights, first), (row, first), (whole, row), (whole, with_start_weights)]
    differences = [compare_rows(a, b, section.judged, metric=row.auroc_name) for a, b in pairs]
    return [
        DiagnosisLine(encoder, start, section.protocol, row.labels_title, change, difference)
        for change, difference in zip(CHANGES, differences, strict=True)
        if difference is not None
    ]


def _find_row(name: str, beside: Row, section: Section) -> Row | None:
    """The row of an encoder at the same label fraction and number of shots; None if there is none, or several of the name."""
    rows = [r for r in section.rows if not r.seeds and r.records[0].identity.encoder == name]
    found = [r for r in rows if (r.fraction, r.shots) == (beside.fraction, beside.shots)]
    return found[0] if len(found) == 1 else None


def describe_diagnosis(lines: Sequence[DiagnosisLine]) -> str:
    """One sentence about the lines of one encoder, protocol and label fraction: which changes alone matter."""
    by_change = {line.change: line.difference for line in lines}
    effects = {name: by_change.get(f"{name} alone") for name in ("statistics", "weights")}
    clear = {name: d for name, d in effects.items() if d is not None and d.verdict in SIGNIFICANT}
    if len(clear) == 2:
        return f"the statistics alone {_direction(clear['statistics'])} the AUROC, and the weights alone {_direction(clear['weights'])} it"
    if clear:
        name, other = ("statistics", "weights") if "statistics" in clear else ("weights", "statistics")
        return f"the {name} alone {_direction(clear[name])} the AUROC; an effect of the {other} alone is not significant"
    return "neither the statistics alone nor the weights alone have a significant effect"


def _direction(difference: Difference) -> str:
    return "raise" if difference.value > 0 else "lower"
