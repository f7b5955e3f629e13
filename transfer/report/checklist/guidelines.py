"""The items of the reporting guidelines, from YAML files, and the functions that know something about them.

To add a guideline, add a YAML file to `data/`; its items name entries of `EVIDENCE`.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

from pydantic import Field, model_validator

from encoders.runtime.config import Config, read_yaml, validate_config
from transfer.report.checklist import data_evidence, model_evidence, result_evidence
from transfer.report.checklist.facts import Evidence, StudyFacts

GUIDELINE_FOLDER = Path(__file__).parent / "data"

# What a YAML file may name as evidence. A function returns None if nothing is known.
EVIDENCE: dict[str, Callable[[StudyFacts], Evidence | None]] = {
    "data_sources": data_evidence.data_sources,
    "exclusions": data_evidence.exclusions,
    "part_counts": data_evidence.part_counts,
    "event_counts": data_evidence.event_counts,
    "missing_labels": data_evidence.missing_labels,
    "acquisition": data_evidence.acquisition,
    "reference_standard": data_evidence.reference_standard,
    "partition_rule": data_evidence.partition_rule,
    "disjoint_parts": data_evidence.disjoint_parts,
    "leak_warnings": data_evidence.leak_warnings_of_records,
    "sample_size": data_evidence.sample_size,
    "data_subsets": data_evidence.data_subsets,
    "case_characteristics": data_evidence.case_characteristics,
    "sites": data_evidence.sites,
    "preprocessing": model_evidence.preprocessing,
    "architecture": model_evidence.architecture,
    "initialization": model_evidence.initialization,
    "training": model_evidence.training,
    "model_selection": model_evidence.model_selection,
    "ensembling": model_evidence.ensembling,
    "software": model_evidence.software,
    "output_form": model_evidence.output_form,
    "prediction_rule": model_evidence.prediction_rule,
    "class_imbalance": model_evidence.class_imbalance,
    "weights_availability": model_evidence.weights_availability,
    "program_version": model_evidence.program_version,
    "protocol_identity": model_evidence.protocol_identity,
    "metric_names": result_evidence.metric_names,
    "uncertainty": result_evidence.uncertainty,
    "performance": result_evidence.performance,
    "internal_test": result_evidence.internal_test,
    "external_test": result_evidence.external_test,
    "calibration": result_evidence.calibration,
    "robustness": result_evidence.robustness,
    "subgroup_results": result_evidence.subgroup_results,
    "site_results": result_evidence.site_results,
    "wrong_decisions": result_evidence.wrong_decisions,
}


class GuidelineItem(Config):
    """One item, in this program's own words."""

    number: str
    topic: str
    evidence: list[str] = Field([], description="keys of `EVIDENCE`; an item is open if none of them knows anything")
    asks: str = Field("", description="what the authors must add in any case; empty: the evidence may answer the item completely")

    @model_validator(mode="after")
    def _is_answered_by_someone(self) -> "GuidelineItem":
        unknown = [name for name in self.evidence if name not in EVIDENCE]
        if unknown:
            raise ValueError(f"item {self.number}: no evidence called {', '.join(unknown)}")
        if not self.evidence and not self.asks:
            raise ValueError(f"item {self.number} has neither evidence nor a question")
        return self


class Guideline(Config):
    """A reporting guideline."""

    name: str
    citation: str
    address: str
    wording: str = Field(description="how wording and numbers relate to the publication")
    sections: dict[str, list[GuidelineItem]]

    @property
    def items(self) -> list[GuidelineItem]:
        return [item for items in self.sections.values() for item in items]


@cache
def read_guidelines() -> tuple[Guideline, ...]:
    """All guidelines, sorted by file name. Raises InputError for a malformed file."""
    return tuple(validate_config(Guideline, read_yaml(path), path.name) for path in sorted(GUIDELINE_FOLDER.glob("*.yaml")))
