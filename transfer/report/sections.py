"""The sections of a report, in their order on the page. To add one, write a function and an entry in `REPORT_SECTIONS`.

The page and its table of contents are made from this dict.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

from encoders.runtime.html import Html
from transfer.report.context import Block, ReportContext
from transfer.report.decisions import class_auroc_section, decisions_section
from transfer.report.diagnosis import diagnosis_section
from transfer.report.embedding import embedding_section
from transfer.report.ensembles import ensembles_section
from transfer.report.episode_chart import episodes_section
from transfer.report.explanations import explanations_section
from transfer.report.figures import label_efficiency_section, ranking_and_calibration_section
from transfer.report.groups import subgroup_section
from transfer.report.images import images_section
from transfer.report.label_savings import label_savings_section
from transfer.report.prediction_sets import prediction_sets_section
from transfer.report.provenance import environment_section, leak_section, ledger_section, protocol_section
from transfer.report.published.page_section import published_section
from transfer.report.referral_chart import referral_section
from transfer.report.robustness import robustness_section
from transfer.report.strategies import strategies_section
from transfer.report.study import study_section


class ReportSection(NamedTuple):
    """One section: its heading, and the function that builds what follows it.

    build: returns None if the records have nothing to show; the section is then not on the page.
    scope: "task": built for every task, from the task's block; "page": built once, from all sections of the page, and shown after the
    tasks, or "first": before them."""

    title: str
    build: Callable[[Block, ReportContext], Html | None]
    scope: Literal["first", "task", "page"] = "task"


REPORT_SECTIONS: dict[str, ReportSection] = {
    "study": ReportSection("Study", study_section, "first"),
    "strategies": ReportSection("Strategies of fine-tuning", strategies_section),
    "ensembles": ReportSection("Deep ensembles", ensembles_section),
    "published": ReportSection("Published results, not rerun", published_section),
    "label_efficiency": ReportSection("Label efficiency", label_efficiency_section),
    "label_savings": ReportSection("Labels saved", label_savings_section),
    "episodes": ReportSection("Single few-shot episodes", episodes_section),
    "diagnosis": ReportSection("What the difference to the start is made of", diagnosis_section),
    "ranking_and_calibration": ReportSection("Ranking and calibration", ranking_and_calibration_section),
    "prediction_sets": ReportSection("Prediction sets", prediction_sets_section),
    "referral": ReportSection("Referral of the least certain images", referral_section),
    "robustness": ReportSection("Robustness to acquisition shifts", robustness_section),
    "class_auroc": ReportSection("AUROC of each class", class_auroc_section),
    "decisions": ReportSection("Decisions", decisions_section),
    "subgroups": ReportSection("Subgroups of test images", subgroup_section),
    "images": ReportSection("Misclassified and difficult images", images_section),
    "explanations": ReportSection("What the network used", explanations_section),
    "embedding": ReportSection("Embedding of the test images", embedding_section),
    "leakage": ReportSection("Leakage", leak_section, "page"),
    "ledger": ReportSection("Use of the test splits", ledger_section, "page"),
    "protocols": ReportSection("Protocols", protocol_section, "page"),
    "environment": ReportSection("Environment", environment_section, "page"),
}
