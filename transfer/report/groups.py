"""Who is served how well: the AUROC of every group of test images (sex, age band, view, site), darker for higher, with its gap."""

import math
from collections.abc import Mapping, Sequence

from encoders.runtime.html import Html, collapsible_section, html_table, join_html, tag
from transfer.report.plots import MAX_CURVES
from transfer.report.tables import protocol_title, shaded_cell
from transfer.report.verdict import rows_with_most_labels
from transfer.tables import render
from transfer.tables.rows import Section
from transfer.tables.subgroups import Subgroup, compute_subgroups, list_group_columns

SUBGROUP_RESAMPLES = 200  # of the metrics beside the AUROC, whose interval is a closed form
METRIC_TITLES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "ece_equal_mass": "ECE",
    "brier": "Brier",
}


def subgroup_section(block: Sequence[Section], shown: Mapping[str, str]) -> Html | None:
    """The groups of a task, a heat map a protocol; None where the records know none."""
    found = [(s, many) for s in block if (many := _row_subgroups(s))]
    if not found:
        return None
    body: list[Html] = []
    for s, many in found:
        gaps = collapsible_section("Gaps to all other test images, and what thresholds do", _gap_table(many, shown))
        body.append(join_html([tag("h4", protocol_title(s)), _heat_map(many, shown), *_group_warnings(many, shown), gaps]))
    about = "AUROC with its 95 % interval over patients. Thresholds are those of all validation patients: one rule for everybody."
    return join_html([tag("h3", "By group of test images"), *body, tag("p", about, class_="note")])


def _row_subgroups(s: Section) -> list[tuple[str, list[Subgroup]]]:
    rows = [row for row in rows_with_most_labels(s)[:MAX_CURVES] if list_group_columns(row.records)]
    return [(row.encoder, compute_subgroups(row.records, resamples=SUBGROUP_RESAMPLES)) for row in rows]


def _heat_map(many: Sequence[tuple[str, list[Subgroup]]], shown: Mapping[str, str]) -> Html:
    lines = []
    for i, g in enumerate(many[0][1]):
        cells = [shaded_cell(shown[name], groups[i].intervals["auroc"]) for name, groups in many]
        lines.append([_group_title(g), f"{g.patients} patients, {g.images} images", *cells])
    return html_table(["group", "test part", *(shown[name] for name, _ in many)], lines, "heat")


def _group_title(g: Subgroup) -> str:
    return f"{g.axis}: {g.name}" if g.axis else g.name


def _group_warnings(many: Sequence[tuple[str, list[Subgroup]]], shown: Mapping[str, str]) -> list[Html]:
    said = []
    for g in many[0][1]:
        said += [tag("p", f"Warning: {_group_title(g)}: {note}.", class_="note") for note in g.notes if g.axis]
    for name, groups in many:
        gaps = [g for g in groups if g.gap is not None]
        for g in (g for g in gaps if g.adjusted < 0.05 and g.gap is not None):
            told = f"{shown[name]} serves {_group_title(g)} {g.gap.verdict} than all others ({render.format_difference(g.gap)}, Holm over {len(gaps)} groups)."  # type: ignore[union-attr]
            said.append(tag("p", told, class_="bad"))
    return said


def _gap_table(many: Sequence[tuple[str, list[Subgroup]]], shown: Mapping[str, str]) -> Html:
    known = [key for key in METRIC_TITLES if key in many[0][1][0].metrics]
    lines = [
        [shown[name], _group_title(g), render.format_difference(g.gap), *(_format_value(g.metrics.get(key, math.nan)) for key in known)]
        for name, groups in many
        for g in groups
    ]
    return html_table(["encoder", "group", "gap [95 %]", *(METRIC_TITLES[key] for key in known)], lines, "small")


def _format_value(v: float) -> str:
    return "" if math.isnan(v) else f"{v:.3f}"
