"""The table of `transfer ood`: how well distances from the train images tell another store's images from the task's own.

Shapes: M images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.escape import lines_to_csv
from encoders.zoo.names import PIXELS, short_name
from transfer.bench.outlier_test import OutlierTest
from transfer.metrics.outliers import NEIGHBOURS, OutlierScore
from transfer.stats import Difference, Interval, correct_family
from transfer.stats.auroc_intervals import auroc_difference, auroc_interval
from transfer.tables.format import format_difference, format_interval, format_verdict
from transfer.tables.terminal_table import build_table

if TYPE_CHECKING:
    from rich.console import Console

OUTLIER_TITLES: dict[OutlierScore, str] = {
    "mahalanobis": "Mahalanobis",
    "relative": "relative Mahalanobis",
    "knn": f"{NEIGHBOURS} nearest neighbors",
}
OUTLIER_HEADER = ("encoder", "distance", "AUROC [95 %]", "found at 5 % false alarms", "difference to pixels [95 %]", "verdict")
FALSE_ALARMS = 0.05
TOLD_APART = 0.95  # AUROC of the floor from which the stores differ in what a histogram shows


@dataclass(frozen=True)
class OutlierLine:
    """One encoder and kind of distance.  found: share of the other images beyond the distance that 5 % of the task's own are beyond.

    difference: of AUROC, to the floor with the same kind of distance; None for the floor."""

    encoder: str
    kind: OutlierScore
    auroc: Interval
    found: float
    difference: Difference | None = None


def build_outlier_lines(test: OutlierTest) -> list[OutlierLine]:
    """A line for each encoder and kind of distance, with Holm's correction over the differences of the table."""
    floor = {scored.kind: scored.distance for scored in test.scored if scored.encoder == PIXELS}
    lines = []
    for scored in test.scored:
        interval = auroc_interval(test.outside, scored.distance, test.patient)
        other = floor[scored.kind]
        difference = None if scored.encoder == PIXELS else auroc_difference(test.outside, scored.distance, other, test.patient)
        lines.append(OutlierLine(scored.encoder, scored.kind, interval, share_found(test.outside, scored.distance), difference))
    corrected = iter(correct_family([line.difference for line in lines if line.difference is not None]))
    return [line if line.difference is None else replace(line, difference=next(corrected)) for line in lines]


def share_found(outside: Array, distance: Array, false_alarms: float = FALSE_ALARMS) -> float:
    """The share of the other images that are farther than all but `false_alarms` of the task's own."""
    cut = np.quantile(distance[outside == 0], 1 - false_alarms, method="inverted_cdf")
    return float((distance[outside == 1] > cut).mean())


def describe_outlier_test(test: OutlierTest, lines: Sequence[OutlierLine]) -> list[str]:
    """How the numbers were obtained, and what may explain them besides the images' content."""
    counts = [
        f"{int((test.outside == side).sum()):,} images of {len(set(test.patient[test.outside == side])):,} patients" for side in (0, 1)
    ]
    part = "validation" if test.part == "val" else "test"
    notes = [
        f"in distribution: {part} part of {test.task}, {counts[0]}, without labels; against {test.against}, {counts[1]}; distances are "
        "from the train part",
        *dict.fromkeys(line.auroc.note for line in lines if line.auroc.note),
        *(f"warning: {warning}" for warning in test.warnings),
    ]
    floor = max((line.auroc.value for line in lines if line.encoder == PIXELS), default=0.0)
    if floor >= TOLD_APART:
        notes.append(
            f"warning: {PIXELS}, which has no network, tells the stores apart with an AUROC of {floor:.3f}: brightness, framing or color "
            "are enough, so this does not show that an encoder notices an unusual finding"
        )
    return notes


def print_outliers(console: "Console", test: OutlierTest, lines: Sequence[OutlierLine]) -> None:
    """Prints the table with its notes."""

    title = f"Images unlike {test.task}: {test.against}"
    table = build_table(title, OUTLIER_HEADER)
    for line in lines:
        verdict = format_verdict(line.difference, PIXELS) if line.difference is not None else ""
        cells = format_interval(line.auroc), f"{100 * line.found:.1f} %", format_difference(line.difference), verdict
        table.add_row(short_name(line.encoder), OUTLIER_TITLES[line.kind], *cells)
    console.print(table)
    for note in describe_outlier_test(test, lines):
        console.print(f"  {note}", style="yellow" if note.startswith("warning") else "dim", markup=False)


def outliers_to_csv(test: OutlierTest, lines: Sequence[OutlierLine]) -> str:
    """One line per encoder and kind of distance, numbers with six decimals."""
    rows: list[dict[str, object]] = []
    for line in lines:
        row: dict[str, object] = {"task": test.task, "part": test.part, "against": test.against, "encoder": line.encoder}
        row |= {"distance": line.kind} | {
            name: f"{value:.6f}" for name, value in zip(("auroc", "auroc_low", "auroc_high"), line.auroc.ends, strict=True)
        }
        row |= {"found_at_5_percent_false_alarms": f"{line.found:.6f}"}
        if (d := line.difference) is not None:
            row |= {"versus": PIXELS, "difference": f"{d.value:.6f}", "difference_low": f"{d.low:.6f}"}
            row |= {"difference_high": f"{d.high:.6f}", "p_holm": f"{d.corrected_p:.6g}", "verdict": d.reported_verdict}
        rows.append(row | {"warnings": "; ".join(test.warnings)})
    return lines_to_csv(rows)
