"""Rows about a recipe: the mean over encoders that differ only in their pretraining seed. The rows of the checkpoints are kept."""

from collections.abc import Sequence
from dataclasses import replace

from encoders.runtime.errors import InputError, unknown_name_error
from encoders.zoo.names import short_name
from transfer.records.record import Record
from transfer.stats import Interval
from transfer.stats.seeds import seed_std, seeds_difference, widen_by_seeds
from transfer.tables.rows import Row, Section, find_reference, pair_test_parts, pooled_auroc

NAMED_BY_USER = "named"  # in place of a recipe's digest, for the encoders of --seeds-of


def add_seed_rows(sections: Sequence[Section], seeds_of: Sequence[str] = (), baseline: str | None = None) -> list[Section]:
    """The sections with a row in front for every recipe that has several pretraining seeds.

    seeds_of: encoders to treat as seeds of one recipe, where their cards do not say so.
    baseline: the reference encoder, as in `build_sections`."""
    return [replace(section, rows=[*_seed_rows(section.rows, seeds_of, baseline), *section.rows]) for section in sections]


def _seed_rows(rows: Sequence[Row], seeds_of: Sequence[str], baseline: str | None) -> list[Row]:
    seed_rows = []
    for same_recipe in _group_by_recipe(rows, seeds_of):
        row = _average_row(same_recipe)
        reference = find_reference(row, [r for r in rows if r not in same_recipe], baseline)
        if reference is not None:
            aligned = [pair for r in same_recipe if (pair := pair_test_parts(r, reference)) is not None]
            if len(aligned) == len(same_recipe):
                row.reference = reference.encoder
                row.difference = seeds_difference([ours for ours, _ in aligned], aligned[0][1])
        seed_rows.append(row)
    return seed_rows


def validate_seed_encoders(seeds_of: Sequence[str], records: Sequence[Record]) -> list[str]:
    """The encoders without duplicates. Raises InputError when one has no record, or when there is only one."""
    known = {r.identity.encoder for r in records}
    for name in seeds_of:
        if name not in known:
            raise unknown_name_error("encoder among the records", name, known)
    if len(set(seeds_of)) == 1:
        raise InputError(f"--seeds-of names only {seeds_of[0]}; name all encoders of the recipe that differ in their seed, e.g. a,b,c")
    return list(dict.fromkeys(seeds_of))


def _group_by_recipe(rows: Sequence[Row], seeds_of: Sequence[str]) -> list[list[Row]]:
    """Groups of rows with one recipe and one label fraction, with different weights, on the same folds, draws and protocol seeds."""
    groups: dict[tuple[str, float, tuple[tuple[int, int, int], ...]], list[Row]] = {}
    for row in rows:
        first = row.records[0]
        recipe = NAMED_BY_USER if first.identity.encoder in seeds_of else first.meta.recipe
        positions = tuple((r.identity.fold, r.identity.draw, r.identity.seed) for r in row.records)
        if recipe and row.role == "encoder":
            groups.setdefault((recipe, row.fraction, positions), []).append(row)
    return [same for (recipe, _, _), same in groups.items() if _are_independent(same, named=recipe == NAMED_BY_USER)]


def _are_independent(same: Sequence[Row], named: bool) -> bool:
    """Whether the rows are of several trainings: different weights from different seeds. A rerun with the same seed does not count."""
    weights = {row.records[0].identity.encoder_sha256 for row in same}
    seeds = {row.records[0].meta.pretraining_seed for row in same}
    return len(weights) == len(same) > 1 and (named or len(seeds) == len(same))


def _average_row(same: Sequence[Row]) -> Row:
    """The mean of the rows. Its intervals include the variation between seeds."""
    records = [record for row in same for record in row.records]
    metrics = {name: _mean_over_seeds([row.metrics[name] for row in same]) for name in same[0].metrics}
    values = [row.metrics["auroc"].value for row in same]
    metrics["auroc"] = widen_by_seeds(pooled_auroc(records), values)
    first = same[0]
    name = f"{short_name(first.encoder)} and {len(same) - 1} more seed{'s' if len(same) > 2 else ''}"
    row = Row(name, first.role, first.protocol, first.fraction, metrics, records)
    row.seeds, row.seed_std = [r.encoder for r in same], seed_std(values)
    row.notes = list(dict.fromkeys(note for r in same for note in r.notes))
    return row


def _mean_over_seeds(values: Sequence[Interval]) -> Interval:
    """The mean of intervals over the same patients, whose errors at most add up, widened by the variation between seeds."""
    value, low, high = (sum(ends) / len(values) for ends in zip(*(v.ends for v in values), strict=True))
    first = values[0]
    return widen_by_seeds(Interval(value, low, high, first.method, first.level, first.note), [v.value for v in values])
