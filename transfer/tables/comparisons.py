"""Which rows are compared with which, and the verdicts of a table after Holm's correction.

A pretrained encoder is compared with all ImageNet weights of the table, with the random weights of its own architecture, with the floor
(`pixels`), and with the other pretrained encoders. The floor is the headline's reference only where it is the strongest one. An encoder
made of parts has the architectures of all of them. The encoders of a diagnosis are compared in the report, not here. Every pair is compared
once. The verdicts of a table are those after correction over all of its comparisons.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from encoders.runtime.errors import InputError
from transfer.records.cached_results import cached_result
from transfer.records.record import Record
from transfer.stats import Difference, correct_family
from transfer.stats.estimate import estimate_difference
from transfer.stats.permutation import permutation_p_value
from transfer.stats.verdict import CHANCE, SIGNIFICANT
from transfer.tables.row_estimates import is_same_size, record_position, row_estimate, scored_folds
from transfer.tables.rows import TABLE_METRICS, Comparison, Relation, Row, Section, group_sections

MOST_PAIRED = 4  # pretrained encoders of a section that are also compared with each other


@dataclass(frozen=True)
class CompareOptions:
    """What to compare. baselines: the references of all rows; (): the rules above.  margin: a difference of AUROC that does not matter."""

    baselines: tuple[str, ...] = ()
    margin: float | None = None


def compare_options(baseline: str | Sequence[str] | None, margin: float | None) -> CompareOptions:
    """The options from one baseline, several, or None."""
    return CompareOptions((baseline,) if isinstance(baseline, str) else tuple(baseline or ()), margin)


def compare_section(section: Section, options: CompareOptions) -> None:
    """Compares every row of a section with its references and notes differences of input size."""
    for row in section.rows:
        add_comparisons(row, section, options)


def add_comparisons(row: Row, section: Section, options: CompareOptions) -> None:
    """Sets the comparisons of one row."""
    row.comparisons = []
    for reference in find_references(row, section.rows, options.baselines):
        difference = compare_rows(row, reference, section.judged, options.margin, row.auroc_name)
        if difference is None:
            continue
        relation: Relation = "same architecture" if row.arch == reference.arch else "other architecture"
        row.comparisons.append(Comparison(reference.encoder, relation, difference, compare_other_metrics(row, reference, section.judged)))
        if row.role == "encoder" and reference.role != "floor" and not is_same_size(row, reference):
            sizes = [r.records[0].meta.size for r in (row, reference)]
            note = (
                f"{row.encoder} has input size {sizes[0]} px, {reference.encoder} {sizes[1]} px: "
                "the difference may come from the weights or from the size"
            )
            row.notes += [note] if note not in row.notes else []
    baselines = {r.encoder: r for r in section.rows if r.role not in ("encoder", "diagnosis") or options.baselines}
    candidates = [c for c in row.comparisons if c.reference in baselines] or row.comparisons
    if candidates:
        strongest = max(candidates, key=lambda c: float(np.nan_to_num(row.metrics["auroc"].value - c.difference.value, nan=-1.0)))
        row.comparisons = [replace(c, primary=c is strongest) for c in row.comparisons]


def find_references(row: Row, rows: Sequence[Row], baselines: Sequence[str] = ()) -> list[Row]:
    """The rows that `row` is compared with, at the same label fraction and number of shots. Two baselines are compared once.

    baselines: the only references; (): by the rules of this module."""
    others = [r for r in rows if (r.fraction, r.shots) == (row.fraction, row.shots) and r is not row and not set(r.seeds) & _names(row)]
    if baselines:
        own = next((i for i, name in enumerate(baselines) if _is_called(row, name)), len(baselines))
        return [r for name in baselines[:own] for r in [o for o in others if _is_called(o, name)][:1]]
    if row.role == "random":
        return [r for r in others if r.role == "imagenet" and r.arch == row.arch and is_same_size(r, row)][:1]
    if row.role != "encoder":
        return []
    weights = [r for r in others if r.role in ("imagenet", "floor") or (r.role == "random" and r.arch in row.arch.split("+"))]
    pretrained = [r for r in rows if r.role == "encoder" and (r.fraction, r.shots) == (row.fraction, row.shots)]
    leading = [r for r in pretrained if not any(r.encoder in other.seeds for other in pretrained)]  # a recipe stands for its seeds
    later = leading[leading.index(row) + 1 :] if row in leading and len(leading) <= MOST_PAIRED else []
    return [*weights, *later]


def _is_called(row: Row, name: str) -> bool:
    return not row.seeds and name in (row.encoder, row.records[0].identity.encoder)


def _names(row: Row) -> set[str]:
    return {row.encoder, *row.seeds}


def compare_rows(
    a: Row, b: Row, columns: Sequence[int] | None = None, margin: float | None = None, metric: str = "auroc"
) -> Difference | None:
    """A metric of `a` minus that of `b` on the same test patients; None if `b` lacks a fold, draw or seed of `a`.

    Raises InputError when records of the same split hold different test images."""
    positions = {record_position(r) for r in b.records}
    if any(record_position(r) not in positions for r in a.records):
        return None
    settings = len(a.records), columns, margin, metric
    both = [*a.records, *b.records]
    return cached_result("difference", both, settings, Difference | None, lambda: _compare(a.records, b.records, columns, margin, metric))


def _compare(
    a: Sequence[Record], b: Sequence[Record], columns: Sequence[int] | None, margin: float | None, metric: str
) -> Difference | None:
    check_same_images(a, b)
    one, other = row_estimate(a, metric, columns), row_estimate(b, metric, columns)
    swap = (lambda: permutation_p_value(scored_folds(a, columns), scored_folds(b, columns))) if metric == "auroc" else None
    return estimate_difference(one, other, margin=margin, permutation=swap if len(a) == len(b) else None)


def compare_other_metrics(a: Row, b: Row, columns: Sequence[int] | None) -> dict[str, Difference]:
    """The differences of the metrics besides AUROC. They are not part of the table's family of tests, which is that of the AUROC."""
    if a.shots is not None:
        return {}
    each = {name: compare_rows(a, b, columns, metric=name) for name in TABLE_METRICS if name != "auroc"}
    return {name: difference for name, difference in each.items() if difference is not None}


def check_same_images(a: Sequence[Record], b: Sequence[Record]) -> None:
    """Raises InputError unless records of the same position hold the same test images."""
    theirs = {record_position(record): record for record in b}
    for record in a:
        other = theirs[record_position(record)]
        ours, others = record.arrays["test_key"], other.arrays["test_key"]
        if ours is not others and not np.array_equal(ours, others) and not np.array_equal(np.sort(ours), np.sort(others)):
            raise InputError(
                f"records of {record.identity.encoder} and {other.identity.encoder} on {record.identity.task} have different test images; "
                "run `transfer bench` with --again"
            )


def judge_sections(sections: Sequence[Section]) -> None:
    """Corrects the comparisons of every table for their number (Holm), and withholds verdicts where neither encoder is above chance."""
    for block in group_sections(sections):
        rows = [(section, row) for section in block for row in section.rows]
        differences = [_withhold_chance(c, row, section) for section, row in rows for c in row.comparisons]
        remaining = iter(correct_family(differences))
        for _, row in rows:
            row.comparisons = [replace(c, difference=next(remaining)) for c in row.comparisons]


def _withhold_chance(c: Comparison, row: Row, section: Section) -> Difference:
    """The difference without a verdict if the better of the two encoders is not above chance by its own interval."""
    d = c.difference
    if d.withheld is not None or d.verdict not in SIGNIFICANT:
        return d
    same_labels = [r for r in section.rows if (r.fraction, r.shots) == (row.fraction, row.shots)]
    better = row if d.value > 0 else next((r for r in same_labels if r.encoder == c.reference), row)
    interval = better.metrics["auroc"]
    if np.isnan(interval.low) or interval.low > CHANCE:
        return d
    return replace(d, withheld="does not transfer", note="the better encoder is not above chance on this test part")


def describe_below_chance(row: Row, protocol: str) -> list[str]:
    """A warning for a row whose AUROC is below chance by its own interval: its scores are inverted."""
    interval = row.metrics["auroc"]
    if np.isnan(interval.high) or interval.high >= CHANCE:
        return []
    return [
        f"{row.encoder}, {protocol}{row.labels_title}: AUROC is below chance [{interval.low:.3f}, {interval.high:.3f}]: the scores are "
        "inverted on this test part; check the coding of the labels and how the two data sets differ"
    ]
