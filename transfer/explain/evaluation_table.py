"""The evaluation of methods as rows of a table, for a terminal, a CSV file and a page."""

from transfer.explain.evaluate import HIGHER_IS_BETTER, Evaluation, FaithfulnessRow, SanityRow
from transfer.explain.randomised_weights import UNCHANGED
from transfer.stats.interval import Interval

FAITHFULNESS_HEADER = ("method", "measure", "map", "compared with", "that", "difference [95 %]", "", "images", "patients")
SANITY_HEADER = ("method", "weights randomised", "rank correlation", "SSIM", "")
ARROWS = {True: "higher is better", False: "lower is better"}


def faithfulness_cells(row: FaithfulnessRow) -> tuple[str, ...]:
    """One line of the table."""
    verdict = {True: "better", False: "worse", None: "not distinguishable"}[row.better]
    counts = f"{row.images:,}", f"{row.patients:,}"
    measure = f"{row.measure} ({ARROWS[HIGHER_IS_BETTER[row.measure]]})"
    difference = format_paired(row.difference)
    return row.method, measure, f"{row.value.value:.3f}", row.baseline, f"{row.baseline_value:.3f}", difference, verdict, *counts


def format_paired(value: Interval) -> str:
    """`+0.021 [-0.003, +0.045]`."""
    if value.low != value.low:
        return f"{value.value:+.3f} [one patient]"
    return f"{value.value:+.3f} [{value.low:+.3f}, {value.high:+.3f}]"


def sanity_cells(row: SanityRow) -> tuple[str, ...]:
    """One line of the table of the sanity check."""
    verdict = "" if row.changes is None else "changes" if row.changes else "DOES NOT CHANGE: it does not show what was learned"
    return row.method, row.randomised, f"{row.rank:.3f}", f"{row.similarity:.3f}", verdict


def brief_sanity(evaluation: Evaluation) -> list[SanityRow]:
    """Of each method, the head, the upper half of the units, and all."""
    rows: list[SanityRow] = []
    for method in dict.fromkeys(row.method for row in evaluation.sanity):
        own = [row for row in evaluation.sanity if row.method == method]
        rows += [own[i] for i in sorted({0, len(own) // 2, len(own) - 1})]
    return rows


def describe_evaluation(evaluation: Evaluation) -> list[str]:
    """Sentences on what was measured."""
    lines = [f"{evaluation.images:,} images whose label is decided positive were measured; {evaluation.skipped:,} others were left out"]
    if evaluation.masks:
        lines.append(f"{evaluation.masks:,} of them have a mask of the finding")
    else:
        lines.append("there are no masks of the finding, so no pointing game and no energy (phantoms: `encoders ingest phantom --masks`)")
    if evaluation.trained_on:
        lines.append(f"{evaluation.trained_on:,} images trained or calibrated the model; use --part test to measure on others")
    last = {row.method: row for row in evaluation.sanity if row.changes is not None}
    for name, row in last.items():
        if not row.changes:
            lines.append(
                f"warning: the maps of {name} hardly change when all weights are randomised (rank correlation {row.rank:.2f}, limit "
                f"{UNCHANGED:g}): they show the image, not what the network learned"
            )
    return lines


def evaluation_csv_rows(evaluation: Evaluation) -> list[list[object]]:
    """The rows of `evaluation.csv`, with a header."""
    rows: list[list[object]] = [
        [
            "method",
            "measure",
            "baseline",
            "value",
            "value_low",
            "value_high",
            "baseline_value",
            "difference",
            "difference_low",
            "difference_high",
            "images",
            "patients",
        ]
    ]
    for row in evaluation.rows:
        ends = [*row.value.ends, row.baseline_value, *row.difference.ends]
        rows.append([row.method, row.measure, row.baseline, *(f"{v:.6g}" for v in ends), row.images, row.patients])
    for other in evaluation.sanity:
        for measure, value in (("rank correlation", other.rank), ("SSIM", other.similarity)):
            rows.append([other.method, measure, f"randomised: {other.randomised}", f"{value:.6g}", *[""] * 8])
    return rows
