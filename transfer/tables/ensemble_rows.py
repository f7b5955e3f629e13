"""Rows of deep ensembles: the mean probability of trainings that differ only in a seed, compared with the mean single member.

`seeds` averages over the seeds of the protocol (head, order, augmentation), `pretraining` over the pretraining seeds of one recipe. The
difference is the ensemble's AUROC less the mean AUROC of its members, on the same test patients, with the variation between the members in
its interval. That of the ensemble itself does not include the variation of other ensembles, as there is one. An ensemble is no baseline,
and it is compared with nothing else: another encoder without an ensemble would have fewer trainings.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from encoders.runtime.errors import InputError
from encoders.zoo.names import short_name
from transfer.records.average_records import ENSEMBLE_ROLE, average_records, has_probability_scores, place_record
from transfer.records.record import Record
from transfer.stats import Difference
from transfer.tables.comparisons import compare_rows, judge_sections
from transfer.tables.row_estimates import row_interval
from transfer.tables.rows import TABLE_METRICS, Comparison, Row, Section

EnsembleKind: TypeAlias = Literal["seeds", "pretraining"]
KIND_TITLES: dict[EnsembleKind, str] = {"seeds": "seeds", "pretraining": "pretraining seeds"}


@dataclass(frozen=True)
class Ensemble:
    """A row of a deep ensemble.  groups: the members of each of its records, in their order.  members: the row of their mean."""

    section: Section
    row: Row
    members: Row
    groups: list[list[Record]]
    kind: EnsembleKind

    @property
    def size(self) -> int:
        """The number of members."""
        return len(self.groups[0])


def parse_ensembles(text: str) -> list[EnsembleKind]:
    """`seeds`, `pretraining`, or both. Raises InputError."""
    kinds: list[EnsembleKind] = [kind for kind in get_args(EnsembleKind) if kind in [word.strip() for word in text.split(",")]]
    if not kinds or len(kinds) != len([word for word in text.split(",") if word.strip()]):
        raise InputError(f"--ensemble is {text!r}; expected seeds (of the protocol), pretraining (seeds of a recipe), or both with a comma")
    return kinds


def add_ensembles(sections: Sequence[Section], kinds: Sequence[EnsembleKind]) -> tuple[list[Section], list[Ensemble]]:
    """The sections with a row behind every row that has several members, and these ensembles; all verdicts are corrected again.

    sections: with the rows about recipes.  Raises InputError if no row has several members with probabilities."""
    added, ensembles = [], []
    for section in sections:
        found = [e for row in section.rows for kind in kinds if (e := build_ensemble(row, section, kind)) is not None]
        _number_equal_names([e.row for e in found])
        behind = {id(e.members): [other.row for other in found if other.members is e.members] for e in found}
        new = replace(section, rows=[each for row in section.rows for each in (row, *behind.get(id(row), []))])
        added.append(new)
        ensembles += [replace(e, section=new) for e in found]
    if not ensembles:
        raise InputError(
            f"--ensemble {','.join(kinds)} found no row with several members whose scores are probabilities: run `transfer bench` again "
            "with --seed 1, --seed 2, ... (seeds), or with encoders of one recipe that differ in their seed (pretraining)"
        )
    judge_sections(added)
    return added, ensembles


def build_ensemble(row: Row, section: Section, kind: EnsembleKind) -> Ensemble | None:
    """The ensemble of a row's members; None if it has only one, folds or draws lack a member, or scores are no probabilities."""
    if row.shots is not None or (kind == "pretraining") != bool(row.seeds) or row.role == ENSEMBLE_ROLE:
        return None
    groups = group_members(row.records, kind)
    if len(groups[0]) < 2 or len({_describe_members(group, kind) for group in groups}) > 1:
        return None
    if not all(has_probability_scores(record) for record in row.records):
        return None
    name = f"{short_name(row.records[0].identity.encoder)} ensemble of {len(groups[0])} {KIND_TITLES[kind]}"
    records = [average_records(group, name) for group in groups]
    new = Row(name, ENSEMBLE_ROLE, row.protocol, row.fraction, {}, records)
    new.metrics = {metric: row_interval(records, metric, section.judged) for metric in TABLE_METRICS}
    new.notes = [note for note in dict.fromkeys(v.note for v in new.metrics.values()) if note]
    new.comparisons = _compare_with_members(row, groups, records, section)
    return Ensemble(section, new, row, groups, kind)


def group_members(records: Sequence[Record], kind: EnsembleKind) -> list[list[Record]]:
    """The records that are averaged together: those of one fold and draw, and of one protocol seed if pretraining differs."""
    groups: dict[tuple[int, ...], list[Record]] = {}
    for r in records:
        i = r.identity
        groups.setdefault((i.fold, i.draw, *([i.seed] if kind == "pretraining" else [])), []).append(r)
    return list(groups.values())


def _describe_members(group: Sequence[Record], kind: EnsembleKind) -> tuple[object, ...]:
    return tuple(r.identity.seed if kind == "seeds" else r.identity.encoder_sha256 for r in group)


def _compare_with_members(row: Row, groups: Sequence[list[Record]], records: Sequence[Record], section: Section) -> list[Comparison]:
    """The ensemble less the mean of its members: in the place of each of them, it is paired with it."""
    of_member = {id(member): ensemble for group, ensemble in zip(groups, records, strict=True) for member in group}
    placed = replace(row, records=[place_record(of_member[id(member)], member) for member in row.records])
    found: dict[str, Difference] = {}
    for metric in TABLE_METRICS:
        difference = compare_rows(placed, row, section.judged, metric=metric)
        if difference is None:
            return []
        found[metric] = difference
    return [Comparison(row.encoder, "same architecture", found.pop("auroc"), found, primary=True)]


def _number_equal_names(rows: Sequence[Row]) -> None:
    """Numbers ensembles of one name at one label fraction, of encoders that differ in their options."""
    seen: dict[tuple[object, ...], int] = {}
    for row in rows:
        key = row.encoder, row.labels_order
        seen[key] = seen.get(key, 0) + 1
        row.encoder += f" ({seen[key]})" if seen[key] > 1 else ""
