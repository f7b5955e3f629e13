"""Evidence about the evaluation: metrics, intervals, calibration, subgroups, external tests and errors."""

import math

import numpy as np

from transfer.metrics import accuracy, choose_thresholds, ece
from transfer.report.checklist.data_evidence import sites
from transfer.report.checklist.facts import Evidence, StudyFacts
from transfer.report.curves import gather_probabilities
from transfer.tables.format import format_interval
from transfer.tables.rows import TABLE_METRICS, Row
from transfer.tables.subgroups import list_shown_columns

METRIC_NAMES = {"auroc": "AUROC", "ap": "average precision", "balanced_accuracy": "balanced accuracy"}


def list_result_rows(facts: StudyFacts, external: bool = False) -> list[tuple[str, Row]]:
    """Task and row of every successful row on the task's own test part, or of external tests."""
    return [
        (section.task, row)
        for section in facts.sections
        for row in section.rows
        if any((r.identity.selected_on is not None) == external for r in row.records)
    ]


def metric_names(facts: StudyFacts) -> Evidence:
    """The metrics of the tables."""
    names = ", ".join(METRIC_NAMES[name] for name in TABLE_METRICS)
    lines = [f"{names}; for several labels or classes their mean over labels"]
    calibrated = calibration(facts)
    return Evidence((*lines, *(("calibration error (ECE, ten bins of equal size)",) if calibrated is not None else ())))


def uncertainty(facts: StudyFacts) -> Evidence:
    """The methods of all intervals and differences, as the results state them."""
    rows = list_result_rows(facts) + list_result_rows(facts, external=True)
    lines, gaps = [], []
    for name in TABLE_METRICS:
        methods = dict.fromkeys(row.metrics[name].method for _, row in rows if name in row.metrics)
        lines.append(f"{METRIC_NAMES[name]}, 95 % intervals over patients: {'; '.join(methods)}")
    differences = dict.fromkeys(row.difference.method for _, row in rows if row.difference is not None)
    if differences:
        lines.append(f"differences, paired on the same test patients: {'; '.join(differences)}")
    else:
        gaps.append("a test of a difference: nothing was compared")
    without = [f"{row.encoder} on {task}" for task, row in rows if math.isnan(row.metrics["auroc"].low)]
    gaps += [f"interval of {name} (insufficient patients)" for name in dict.fromkeys(without)]
    return Evidence(tuple(lines), tuple(gaps))


def performance(facts: StudyFacts) -> Evidence:
    """AUROC with its interval of every row."""
    rows = list_result_rows(facts)
    gaps = [f"interval of {row.encoder} on {task}" for task, row in rows if math.isnan(row.metrics["auroc"].low)]
    return Evidence(tuple(describe_row(task, row) for task, row in rows), tuple(gaps))


def describe_row(task: str, row: Row) -> str:
    """`pneumonia, linear, mine: AUROC 0.931 [0.902, 0.953], ...`."""
    values = ", ".join(f"{METRIC_NAMES[name]} {format_interval(row.metrics[name])}" for name in TABLE_METRICS if name in row.metrics)
    return f"{task}, {row.protocol}{row.labels_title}, {row.encoder}: {values}"


def external_test(facts: StudyFacts) -> Evidence | None:
    """Results on the test part of another data set; None without any."""
    rows = list_result_rows(facts, external=True)
    return Evidence(tuple(describe_row(task, row) for task, row in rows)) if rows else None


def internal_test(facts: StudyFacts) -> Evidence | None:
    """Results on the test part of the data set that was trained on."""
    return performance(facts) if list_result_rows(facts) else None


def calibration(facts: StudyFacts) -> Evidence | None:
    """Calibration error of every row whose scores are probabilities."""
    lines = []
    for task, row in list_result_rows(facts):
        probabilities = gather_probabilities(row.records)
        if probabilities is not None:
            truth, predicted = probabilities
            value = float(ece(truth[:, None], predicted[:, None], 10, "equal_mass")[0])
            lines.append(f"{task}, {row.protocol}{row.labels_title}, {row.encoder}: ECE {value:.3f}, before temperature scaling")
    return Evidence(tuple(lines)) if lines else None


def robustness(facts: StudyFacts) -> Evidence | None:
    """Acquisition shifts of the test images that were scored."""
    shifts: dict[str, set[int]] = {}
    for r in facts.shifted:
        shifts.setdefault(str(r.identity.shift), set()).add(r.identity.strength)
    lines = [f"{shift}, strengths {', '.join(map(str, sorted(strengths)))}" for shift, strengths in sorted(shifts.items())]
    return Evidence(("test images with simulated acquisition shifts: " + "; ".join(lines),)) if lines else None


def subgroup_results(facts: StudyFacts) -> Evidence | None:
    """The group columns whose subgroups the report evaluates."""
    columns = {task: shown for task, record in facts.by_task.items() if (shown := list_shown_columns(record))}
    lines = [
        f"{task}: AUROC and differences by {', '.join(names)}, in the section Subgroups of test images of the report"
        for task, names in columns.items()
    ]
    return Evidence(tuple(lines)) if lines else None


def site_results(facts: StudyFacts) -> Evidence | None:
    """Subgroup results by site, if the store holds sites."""
    found = sites(facts)
    return (
        None
        if found is None
        else Evidence(tuple(f"{line}; AUROC of each in the section Subgroups of test images of the report" for line in found.lines))
    )


def wrong_decisions(facts: StudyFacts) -> Evidence | None:
    """Share of wrong decisions of every row at the validation thresholds, and where the confusion matrices are."""
    lines = []
    for task, row in list_result_rows(facts):
        values = []
        for r in row.records:
            y, s, _ = r.part("test")
            values.append(1 - np.nanmean(accuracy(y, s, kind=r.meta.kind, threshold=choose_thresholds(*r.part("val")[:2]))))
        lines.append(f"{task}, {row.protocol}{row.labels_title}, {row.encoder}: {np.mean(values):.1%} of the decisions are wrong")
    note = "thresholds: Youden's, chosen on validation patients; confusion matrices: section Decisions of the report"
    return Evidence((*lines, note)) if lines else None
