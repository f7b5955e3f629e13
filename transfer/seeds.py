"""Rows about a recipe: the mean over encoders that differ in their pretraining seed only, beside the rows of the checkpoints themselves."""

from collections.abc import Sequence

from encoders.names import short
from encoders.runtime.errors import InputError, unknown
from transfer.record import Record
from transfer.stats import Interval
from transfer.stats.seeds import seeds_difference, spread, with_seeds
from transfer.table import Row, auroc_of, paired, reference


def add(rows: list[Row], seeds_of: Sequence[str] = (), baseline: str | None = None) -> list[Row]:
    """The rows of the recipes that have several seeds, in front. seeds_of: encoders that are said to be seeds of one recipe."""
    made = []
    for same in _groups(rows, seeds_of):
        row = _joined(same)
        against = reference(row, [r for r in rows if r not in same], baseline)
        if against is not None:
            aligned = [paired(one, against) for one in same]
            if all(a is not None for a in aligned):
                row.versus = against.encoder
                row.difference = seeds_difference([a[0] for a in aligned if a], aligned[0][1])  # type: ignore[index]
        made.append(row)
    return [*made, *rows]


def checked(seeds_of: Sequence[str], records: Sequence[Record]) -> list[str]:
    """The encoders, if all have records and there are two. Raises InputError otherwise."""
    known = {r.identity.encoder for r in records}
    for name in seeds_of:
        if name not in known:
            raise unknown("encoder among the records", name, known)
    if len(set(seeds_of)) == 1:
        raise InputError(f"--seeds-of names {seeds_of[0]} only; name all encoders that one recipe gave with different seeds, a,b,c")
    return list(dict.fromkeys(seeds_of))


def _groups(rows: Sequence[Row], seeds_of: Sequence[str]) -> list[list[Row]]:
    """Rows of one recipe and one share of the labels, with different weights on the same folds and draws."""
    apart: dict[tuple, list[Row]] = {}
    for row in rows:
        first = row.records[0]
        recipe = "named" if first.identity.encoder in seeds_of else first.meta.recipe
        place = tuple((r.identity.fold, r.identity.draw, r.identity.seed) for r in row.records)
        if recipe and row.role == "encoder":
            apart.setdefault((recipe, row.fraction, place), []).append(row)
    return [same for (recipe, *_), same in apart.items() if _independent(same, named=recipe == "named")]


def _independent(same: Sequence[Row], named: bool) -> bool:
    """Whether these are several trainings: unlike weights, from unlike seeds (the same seed on another machine is no new draw)."""
    weights = {row.records[0].identity.encoder_sha256 for row in same}
    seeds = {row.records[0].meta.pretraining_seed for row in same}
    return len(weights) == len(same) > 1 and (named or len(seeds) == len(same))


def _joined(same: Sequence[Row]) -> Row:
    """Their mean. Every interval holds the spread over seeds too."""
    records = [record for row in same for record in row.records]
    metrics = {name: _mean([row.metrics[name] for row in same]) for name in same[0].metrics}
    each = [row.metrics["auroc"].value for row in same]
    metrics["auroc"] = with_seeds(auroc_of(records), each)
    first = same[0]
    name = f"{short(first.encoder)} and {len(same) - 1} more seed{'s' if len(same) > 2 else ''}"
    row = Row(name, first.role, first.protocol, first.fraction, metrics, records)
    row.seeds, row.seed_spread = [r.encoder for r in same], spread(each)
    row.notes = list(dict.fromkeys(note for r in same for note in r.notes))
    return row


def _mean(values: Sequence[Interval]) -> Interval:
    """The mean of intervals over the same patients, whose errors at most add up; the spread over seeds comes on top."""
    n = len(values)
    value, low, high = (sum(getattr(v, end) for v in values) / n for end in ("value", "low", "high"))
    first = values[0]
    return with_seeds(Interval(value, low, high, first.method, first.level, first.note), [v.value for v in values])
