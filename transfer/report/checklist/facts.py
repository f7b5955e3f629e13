"""What is known of a study: its records, and the tasks, stores and cards behind them where they are available in this working folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError
from encoders.zoo.card import Card
from transfer.records.record import Record
from transfer.records.redactor import Redactor
from transfer.report.task_source import TaskSource, find_task_source
from transfer.tables.rows import Section


class Evidence(NamedTuple):
    """What is known about one point of a checklist.

    gaps: what could be known, but is not available here.  related: it does not answer the point, and only helps to answer it."""

    lines: tuple[str, ...]
    gaps: tuple[str, ...] = ()
    related: bool = False


@dataclass(frozen=True)
class StudyFacts:
    """records: successful ones, without acquisition shifts and external tests, which have fields of their own.

    sources: task -> its verified task and store, or the reason why they are unknown.  cards: encoder -> its verified card, or None."""

    records: Sequence[Record]
    shifted: Sequence[Record]
    external: Sequence[Record]
    sections: Sequence[Section]
    sources: Mapping[str, TaskSource | str]
    cards: Mapping[str, Card | None]
    redactor: Redactor

    @property
    def by_task(self) -> dict[str, Record]:
        """Task -> the record that describes its parts: of the largest label fraction."""
        best: dict[str, Record] = {}
        for r in sorted(self.records, key=lambda r: -r.identity.fraction):
            best.setdefault(r.identity.task, r)
        return best

    @property
    def by_encoder(self) -> dict[str, Record]:
        """Encoder -> one of its records."""
        return {r.identity.encoder: r for r in reversed([*self.records, *self.external])}


def gather_facts(records: Sequence[Record], sections: Sequence[Section]) -> StudyFacts:
    """The facts of these records. Looks up the tasks, stores and cards of the working folder; uses no network."""
    good = [r for r in records if r.meta.status == "ok"]
    shifted = [r for r in good if r.identity.shift is not None]
    external = [r for r in good if r.identity.shift is None and r.identity.selected_on is not None]
    own = [r for r in good if r.identity.shift is None and r.identity.selected_on is None]
    first_of_task = {r.identity.task: r for r in reversed(own)}
    first_of_encoder = {r.identity.encoder: r for r in reversed(good)}
    return StudyFacts(
        records=own,
        shifted=shifted,
        external=external,
        sections=sections,
        sources={task: find_task_source(r) for task, r in first_of_task.items()},
        cards={encoder: find_record_card(r) for encoder, r in first_of_encoder.items()},
        redactor=Redactor(good),
    )


def find_record_card(record: Record) -> Card | None:
    """The card of the record's encoder, also of a removed one; None if it is not available here, or was changed since."""
    from encoders.zoo import removal, zoo

    name = record.identity.encoder
    try:
        card = zoo.find_encoder(name).card
    except InputError:
        kept = removal.find_removed(name)
        if kept is None:
            return None
        card = Card.read(kept / "card.yaml")
    return card if json_digest(card) == record.identity.card else None
