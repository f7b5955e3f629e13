"""Rows about a recipe: the mean over encoders that differ in their pretraining seed only, beside the rows of the checkpoints themselves."""

from collections.abc import Sequence

from encoders.runtime.errors import InputError, unknown_name_error
from encoders.zoo.names import short_name
from transfer.records.record import Record
from transfer.stats import Interval
from transfer.stats.seeds import seed_std, seeds_difference, widen_by_seeds
from transfer.tables.rows import Row, find_reference, pair_test_parts, pooled_auroc


def add_seed_rows(rows: list[Row], seeds_of: Sequence[str] = (), baseline: str | None = None) -> list[Row]:
    """The rows of the recipes that have several seeds, in front. seeds_of: encoders that are said to be seeds of one recipe."""
    made = []
    for same in _group_by_recipe(rows, seeds_of):
        row = _average_row(same)
        against = find_reference(row, [r for r in rows if r not in same], baseline)
        if against is not None:
            aligned = [pair_test_parts(one, against) for one in same]
            if all(a is not None for a in aligned):
                row.versus = against.encoder
                row.difference = seeds_difference([a[0] for a in aligned if a], aligned[0][1])  # type: ignore[index]
        made.append(row)
    return [*made, *rows]


def validate_seed_encoders(seeds_of: Sequence[str], records: Sequence[Record]) -> list[str]:
    """The encoders, if all have records and there are two. Raises InputError otherwise."""
    known = {r.identity.encoder for r in records}
    for name in seeds_of:
        if name not in known:
            raise unknown_name_error("encoder among the records", name, known)
    if len(set(seeds_of)) == 1:
        raise InputError(f"--seeds-of names {seeds_of[0]} only; name all encoders that one recipe gave with different seeds, a,b,c")
    return list(dict.fromkeys(seeds_of))


def _group_by_recipe(rows: Sequence[Row], seeds_of: Sequence[str]) -> list[list[Row]]:
    """Rows of one recipe and one share of the labels, with different weights on the same folds and draws."""
    apart: dict[tuple, list[Row]] = {}
    for row in rows:
        first = row.records[0]
        recipe = "named" if first.identity.encoder in seeds_of else first.meta.recipe
        place = tuple((r.identity.fold, r.identity.draw, r.identity.seed) for r in row.records)
        if recipe and row.role == "encoder":
            apart.setdefault((recipe, row.fraction, place), []).append(row)
    return [same for (recipe, *_), same in apart.items() if _are_independent(same, named=recipe == "named")]


def _are_independent(same: Sequence[Row], named: bool) -> bool:
    """Whether these are several trainings: unlike weights, from unlike seeds (the same seed on another machine is no new draw)."""
    weights = {row.records[0].identity.encoder_sha256 for row in same}
    seeds = {row.records[0].meta.pretraining_seed for row in same}
    return len(weights) == len(same) > 1 and (named or len(seeds) == len(same))


def _average_row(same: Sequence[Row]) -> Row:
    """Their mean. Every interval holds the spread over seeds too."""
    records = [record for row in same for record in row.records]
    metrics = {name: _mean_over_seeds([row.metrics[name] for row in same]) for name in same[0].metrics}
    each = [row.metrics["auroc"].value for row in same]
    metrics["auroc"] = widen_by_seeds(pooled_auroc(records), each)
    first = same[0]
    name = f"{short_name(first.encoder)} and {len(same) - 1} more seed{'s' if len(same) > 2 else ''}"
    row = Row(name, first.role, first.protocol, first.fraction, metrics, records)
    row.seeds, row.seed_spread = [r.encoder for r in same], seed_std(each)
    row.notes = list(dict.fromkeys(note for r in same for note in r.notes))
    return row


def _mean_over_seeds(values: Sequence[Interval]) -> Interval:
    """The mean of intervals over the same patients, whose errors at most add up; the spread over seeds comes on top."""
    n = len(values)
    value, low, high = (sum(getattr(v, end) for v in values) / n for end in ("value", "low", "high"))
    first = values[0]
    return widen_by_seeds(Interval(value, low, high, first.method, first.level, first.note), [v.value for v in values])
