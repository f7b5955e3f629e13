"""What a table's verdicts are about: checkpoints or a recipe; and what a test set of this size could not have found."""

from collections.abc import Mapping, Sequence

from encoders.zoo.names import short_name
from transfer.stats import minimal_detectable_difference
from transfer.tables.rows import Row, Section


def describe_seeds(block: Sequence[Section], shown: Mapping[str, str]) -> list[str]:
    """How far pretraining seeds lie apart; and the warning for verdicts on single checkpoints."""
    rows = [(s, row) for s in block for row in s.rows]
    said = []
    for s, row in rows:
        if row.seeds:
            named = ", ".join(map(short_name, row.seeds))
            said.append(
                f"{shown[row.encoder]}, {s.protocol}: about the recipe, from {len(row.seeds)} pretraining seeds ({named}); "
                f"AUROC sd {row.seed_spread:.3f} over seeds, which its intervals hold beside the test patients"
            )
    if any(row.difference is not None and not row.seeds and row.role == "encoder" for _, row in rows):
        said.append("a verdict on one encoder is about this checkpoint: another pretraining seed would move it")
    return said


def describe_missing_imagenet(block: Sequence[Section], missing: Mapping[str, str]) -> list[str]:
    """The networks whose encoders stand beside no ImageNet weights, which is the first question asked of them.

    missing: baselines that are told of as not available already."""
    rows = [row for s in block for row in s.rows]
    arch = {role: {row.records[0].meta.arch for row in rows if row.role == role} for role in ("encoder", "imagenet")}
    alone = sorted(a for a in arch["encoder"] - arch["imagenet"] if f"imagenet_{a}" not in {short_name(name) for name in missing})
    return [f"no ImageNet weights of {a} were benched: whether pretraining beats them is not answered here" for a in alone]


def describe_detectable_differences(block: Sequence[Section], shown: Mapping[str, str]) -> list[str]:
    """The least true difference that a comparison which found none would have found in four of five cases."""
    said = []
    for s in block:
        least = [(row, row_detectable_difference(row)) for row in s.rows]
        told = list(dict.fromkeys(f"{shown[row.encoder]} {value:.3f}" for row, value in least if value is not None))
        if told:
            said.append(f"{s.protocol}: not distinguishable is not equal; found in 4 of 5 cases: a true difference of {', '.join(told)}")
    return said


def row_detectable_difference(row: Row) -> float | None:
    """The minimal detectable difference of a row that could not be told from its reference."""
    d = row.difference
    if d is None or d.told != "not distinguishable" or not d.high > d.low:
        return None
    return minimal_detectable_difference(d)
