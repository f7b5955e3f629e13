"""Limits of a table's verdicts: whether they are about checkpoints or a recipe, and the smallest difference the test set can detect."""

from collections.abc import Mapping, Sequence

from encoders.zoo.names import short_name
from transfer.stats import minimal_detectable_difference
from transfer.tables.rows import Row, Section


def describe_seeds(block: Sequence[Section], display_names: Mapping[str, str]) -> list[str]:
    """The variation between pretraining seeds, and a caveat for verdicts on single checkpoints."""
    rows = [(s, row) for s in block for row in s.rows]
    lines = []
    for s, row in rows:
        if row.seeds:
            seeds = ", ".join(map(short_name, row.seeds))
            lines.append(
                f"{display_names[row.encoder]}, {s.protocol}: mean over {len(row.seeds)} pretraining seeds of one recipe ({seeds}); "
                f"AUROC sd {row.seed_std:.3f} over seeds; the intervals include this variation"
            )
    if any(row.difference is not None and not row.seeds and row.role == "encoder" for _, row in rows):
        lines.append("verdicts on a single encoder are about this checkpoint; another pretraining seed can give another result")
    return lines


def describe_missing_imagenet(block: Sequence[Section], missing: Mapping[str, str]) -> list[str]:
    """A caveat for every network that was benchmarked without its ImageNet weights.

    missing: baselines that are already listed as not available."""
    rows = [row for s in block for row in s.rows]
    arch = {role: {row.records[0].meta.arch for row in rows if row.role == role} for role in ("encoder", "imagenet")}
    alone = sorted(a for a in arch["encoder"] - arch["imagenet"] if f"imagenet_{a}" not in {short_name(name) for name in missing})
    return [f"no ImageNet weights of {a} were benchmarked, so this table does not compare pretraining with them" for a in alone]


def describe_detectable_differences(block: Sequence[Section], display_names: Mapping[str, str]) -> list[str]:
    """For comparisons without a detected difference, the smallest true difference that has a power of 80 %."""
    lines = []
    for s in block:
        smallest = [(row, row_detectable_difference(row)) for row in s.rows]
        listed = list(dict.fromkeys(f"{display_names[row.encoder]} {value:.3f}" for row, value in smallest if value is not None))
        if listed:
            lines.append(
                f"{s.protocol}: 'not distinguishable' does not mean equal; "
                f"smallest AUROC difference detectable with 80 % power: {', '.join(listed)}"
            )
    return lines


def row_detectable_difference(row: Row) -> float | None:
    """The minimal detectable difference of a row that is not distinguishable from its reference; None for other rows."""
    d = row.difference
    if d is None or d.reported_verdict != "not distinguishable" or not d.high > d.low:
        return None
    return minimal_detectable_difference(d)
