"""What the sections of a report read: the records, their tables, and how names and colours appear on the page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from encoders.runtime.html import Html, tag
from encoders.runtime.svg import LineStyle
from transfer.explain.saved import SavedFolder
from transfer.records.record import Record
from transfer.records.redactor import Redactor
from transfer.records.test_usage import SplitUsage
from transfer.tables.ensemble_rows import Ensemble
from transfer.tables.operating_points import OperatingRule
from transfer.tables.render import list_allowed_leaks
from transfer.tables.rows import Section
from transfer.tables.strategy_rows import StrategyLine

if TYPE_CHECKING:
    from encoders.store.store import Store

Block: TypeAlias = Sequence[Section]  # sections with the same task, targets and split
Pens: TypeAlias = Mapping[str, LineStyle]  # encoder -> its line in every chart


@dataclass(frozen=True)
class ReportContext:
    """The input of a report.

    usage: split hash -> how often its test images were scored.  display_names: encoder -> its short name on the page.
    store: source of images; None for a page without images.  rule: how thresholds of the decisions are chosen.
    study: the strategies of a study, which are corrected together; None for a page of other records.
    explanations: folders of heat maps; () for a page without.  ensembles: those whose rows are in the sections."""

    records: Sequence[Record]
    sections: Sequence[Section]
    usage: Mapping[str, SplitUsage]
    display_names: Mapping[str, str]
    pens: Pens
    redactor: Redactor
    store: "Store | None" = None
    rule: OperatingRule = field(default_factory=OperatingRule)
    study: Sequence[Sequence[StrategyLine]] | None = None
    explanations: Sequence[SavedFolder] = ()
    ensembles: Sequence[Ensemble] = ()

    @property
    def shows_patients(self) -> bool:
        """Whether the page has images of patients."""
        return self.store is not None or bool(self.explanations)


def leak_warnings(block: Block, context: ReportContext) -> list[Html]:
    """A red line for every leak that was allowed in the records of a block, to place above its charts."""
    leaks = (f"LEAKAGE ALLOWED: {leak}" for s in block for row in s.rows for leak in list_allowed_leaks(row))
    return [tag("p", line, class_="bad") for line in context.redactor.redact_all(leaks)]
