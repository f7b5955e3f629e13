"""Rows about a recipe: the mean over encoders that differ only in their pretraining seed. The rows of the checkpoints are kept."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.sweep_folder import expand_sweeps
from encoders.zoo.names import short_name
from transfer.records.record import Record
from transfer.tables.comparisons import compare_options, compare_section, judge_sections
from transfer.tables.row_estimates import row_interval
from transfer.tables.rows import Row, Section

NAMED_BY_USER = "named"  # in place of a recipe's digest, for the encoders of --seeds-of


def add_seed_rows(
    sections: Sequence[Section], seeds_of: Sequence[str] = (), baseline: str | Sequence[str] | None = None, margin: float | None = None
) -> list[Section]:
    """The sections with a row in front for every recipe that has several pretraining seeds; all verdicts are corrected again.

    seeds_of: encoders to treat as seeds of one recipe, where their cards do not say so.
    baseline, margin: as in `build_sections`."""
    added = [
        replace(section, rows=sorted([*_seed_rows(section, seeds_of), *section.rows], key=lambda row: row.labels_order))
        for section in sections
    ]
    for section in added:
        if any(row.seeds for row in section.rows):  # a recipe stands for its seeds, so their pairs change too
            compare_section(section, compare_options(baseline, margin))
    judge_sections(added)
    return added


def _seed_rows(section: Section, seeds_of: Sequence[str]) -> list[Row]:
    return [_average_row(same, section) for same in _group_by_recipe(section.rows, seeds_of)]


def validate_seed_encoders(seeds_of: Sequence[str], records: Sequence[Record]) -> list[str]:
    """The encoders without duplicates; a sweep stands for its runs. Raises InputError when one has no record, or when there is only one."""
    known = {r.identity.encoder for r in records}
    names = expand_sweeps(seeds_of, missing=[])
    for name in names:
        if name not in known:
            raise unknown_name_error("encoder among the records", name, known)
    if len(set(names)) == 1:
        raise InputError(f"--seeds-of names only {names[0]}; name all encoders of the recipe that differ in their seed, e.g. a,b,c")
    return list(dict.fromkeys(names))


def _group_by_recipe(rows: Sequence[Row], seeds_of: Sequence[str]) -> list[list[Row]]:
    """Groups of rows with one recipe and one label fraction, with different weights, on the same folds, draws and protocol seeds."""
    groups: dict[tuple[str, float, int | None, tuple[tuple[int, int, int], ...]], list[Row]] = {}
    for row in rows:
        first = row.records[0]
        recipe = NAMED_BY_USER if first.identity.encoder in seeds_of else first.meta.recipe
        positions = tuple((r.identity.fold, r.identity.draw, r.identity.seed) for r in row.records)
        if recipe and row.role == "encoder":
            groups.setdefault((recipe, row.fraction, row.shots, positions), []).append(row)
    return [same for (recipe, *_), same in groups.items() if _are_independent(same, named=recipe == NAMED_BY_USER)]


def _are_independent(same: Sequence[Row], named: bool) -> bool:
    """Whether the rows are of several trainings: different weights from different seeds. A rerun with the same seed does not count."""
    weights = {row.records[0].identity.encoder_sha256 for row in same}
    seeds = {row.records[0].meta.pretraining_seed for row in same}
    return len(weights) == len(same) > 1 and (named or len(seeds) == len(same))


def _average_row(same: Sequence[Row], section: Section) -> Row:
    """The mean of the rows. Its intervals include the variation between seeds."""
    records, first = [record for row in same for record in row.records], same[0]
    metrics = dict(first.metrics) | {"auroc": row_interval(records, first.auroc_name, section.judged)}
    if first.shots is None:
        metrics |= {name: row_interval(records, name, section.judged) for name in first.metrics}
    name = f"{short_name(first.encoder)} and {len(same) - 1} more seed{'s' if len(same) > 2 else ''}"
    row = Row(name, first.role, first.protocol, first.fraction, metrics, records, first.shots)
    row.seeds, row.seed_std = [r.encoder for r in same], float(np.std([r.metrics["auroc"].value for r in same], ddof=1))
    row.all_labels = {metric: float(np.mean([r.all_labels[metric] for r in same])) for metric in first.all_labels}
    row.notes = list(dict.fromkeys(note for r in same for note in r.notes))
    return row
