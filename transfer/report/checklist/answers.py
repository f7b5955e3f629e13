"""The answer to every item of a guideline: its status, what is known, and what the authors must add."""

from typing import Literal, NamedTuple

from transfer.report.checklist.facts import StudyFacts
from transfer.report.checklist.guidelines import EVIDENCE, Guideline, GuidelineItem

AnswerStatus = Literal["filled", "partly", "open"]
DEFAULT_QUESTION = "Please describe."


class Answer(NamedTuple):
    """known: lines of evidence, without patients.

    missing: what the files could state but do not, and what the authors must add."""

    section: str
    item: GuidelineItem
    status: AnswerStatus
    known: tuple[str, ...]
    missing: tuple[str, ...]


def answer_guideline(guideline: Guideline, facts: StudyFacts) -> list[Answer]:
    """One answer per item, in order.

    "filled": the evidence answers all of it, and nothing is missing; "partly": it answers some of it; "open": none of it, even if related
    facts are shown."""
    return [answer_item(section, item, facts) for section, items in guideline.sections.items() for item in items]


def answer_item(section: str, item: GuidelineItem, facts: StudyFacts) -> Answer:
    """The answer to one item."""
    known: list[str] = []
    gaps: list[str] = []
    answered = False
    for name in item.evidence:
        evidence = EVIDENCE[name](facts)
        if evidence is None:
            gaps.append(f"Not in the files: {name.replace('_', ' ')}.")
            continue
        known += evidence.lines
        gaps += evidence.gaps
        answered = answered or (bool(evidence.lines) and not evidence.related)
        if evidence.related:
            gaps.append(item.asks or DEFAULT_QUESTION)
    missing = tuple(dict.fromkeys([*gaps, *([item.asks] if item.asks else [])]))
    status: AnswerStatus = "open" if not answered else "partly" if missing else "filled"
    return Answer(
        section, item, status, tuple(facts.redactor.redact_all(known)), missing or ((DEFAULT_QUESTION,) if status == "open" else ())
    )
