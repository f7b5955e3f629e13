"""Subgroups of test images (sex, age band, view, site): the AUROC of each, and its difference to all other test images."""

import math
from collections.abc import Mapping, Sequence

from encoders.runtime.html import Html, collapsible_section, html_table, join_html, tag
from transfer.report.context import Block, ReportContext
from transfer.report.tables import protocol_title, shaded_cell, split_columns
from transfer.tables.format import format_difference
from transfer.tables.render_subgroups import format_number
from transfer.tables.rows import Section, rows_with_most_labels
from transfer.tables.subgroups import Subgroup, compute_subgroups, list_group_columns

METRIC_TITLES = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "ece_equal_mass": "ECE",
    "brier": "Brier",
}


def subgroup_section(block: Block, context: ReportContext) -> Html | None:
    """One heat map per protocol, with warnings and gaps; None if the records have no group columns."""
    per_section = [(s, encoders) for s in block if (encoders := _row_subgroups(s))]
    if not per_section:
        return None
    body: list[Html] = []
    for s, encoders in per_section:
        gaps = collapsible_section("Gaps to all other test images, and threshold metrics", _gap_table(encoders, context.display_names))
        heat_map, warnings = _heat_map(encoders, context.display_names), _group_warnings(encoders, context.display_names)
        body.append(join_html([tag("h4", protocol_title(s)), heat_map, *warnings, gaps]))
    note = "AUROC with 95 % intervals over patients. Thresholds are chosen on all validation patients, the same for every subgroup."
    return join_html([*body, tag("p", note, class_="note")])


def _row_subgroups(s: Section) -> list[tuple[str, list[Subgroup]]]:
    rows = [row for row in rows_with_most_labels(s) if list_group_columns(row.records)]
    return [(row.encoder, compute_subgroups(row.records)) for row in rows]


def _heat_map(encoders: Sequence[tuple[str, list[Subgroup]]], display_names: Mapping[str, str]) -> Html:
    groups_of = dict(encoders)
    parts = []
    for names in split_columns(list(groups_of)):
        lines = []
        for i, g in enumerate(encoders[0][1]):
            cells = [shaded_cell(display_names[name], groups_of[name][i].intervals["auroc"]) for name in names]
            lines.append([g.title, f"{g.patients} patients, {g.images} images", *cells])
        parts.append(html_table(["group", "test part", *(display_names[name] for name in names)], lines, "heat"))
    return join_html(parts)


def _group_warnings(encoders: Sequence[tuple[str, list[Subgroup]]], display_names: Mapping[str, str]) -> list[Html]:
    lines = []
    for g in encoders[0][1]:
        lines += [tag("p", f"Warning: {g.title}: {note}.", class_="note") for note in g.notes if g.column]
    for name, groups in encoders:
        gaps = [(g, g.gap) for g in groups if g.gap is not None]
        for g, gap in gaps:
            if g.holm_p < 0.05:
                difference = f"{format_difference(gap)}, Holm correction over {len(gaps)} groups"
                text = f"{display_names[name]}: AUROC on {g.title} is {gap.verdict} than on all other test images ({difference})."
                lines.append(tag("p", text, class_="bad"))
    return lines


def _gap_table(encoders: Sequence[tuple[str, list[Subgroup]]], display_names: Mapping[str, str]) -> Html:
    known = [key for key in METRIC_TITLES if key in encoders[0][1][0].metrics]
    lines = [
        [display_names[name], g.title, format_difference(g.gap), *(format_number(g.metrics.get(key, math.nan)) for key in known)]
        for name, groups in encoders
        for g in groups
    ]
    return html_table(["encoder", "group", "gap [95 %]", *(METRIC_TITLES[key] for key in known)], lines, "small")
