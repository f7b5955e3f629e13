"""Who is served how well: the AUROC of every group of test images (sex, age band, view, site), darker for higher, with its gap."""

import math
from collections.abc import Mapping, Sequence

from encoders.runtime.html import Html, folded, join, table, tag
from transfer import show
from transfer.report.plots import MOST
from transfer.report.tables import protocol, shaded
from transfer.report.verdict import full
from transfer.subgroups import Subgroup, axes, subgroups
from transfer.table import Section

RESAMPLES = 200  # of the metrics beside the AUROC, whose interval is a closed form
NUMBERS = {
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "ppv": "PPV",
    "npv": "NPV",
    "ece_equal_mass": "ECE",
    "brier": "Brier",
}


def section(block: Sequence[Section], shown: Mapping[str, str]) -> Html | None:
    """The groups of a task, a heat map a protocol; None where the records know none."""
    found = [(s, many) for s in block if (many := _measured(s))]
    if not found:
        return None
    body: list[Html] = []
    for s, many in found:
        gaps = folded("Gaps to all other test images, and what thresholds do", _numbers(many, shown))
        body.append(join([tag("h4", protocol(s)), _heat(many, shown), *_cautions(many, shown), gaps]))
    about = "AUROC with its 95 % interval over patients. Thresholds are those of all validation patients: one rule for everybody."
    return join([tag("h3", "By group of test images"), *body, tag("p", about, class_="note")])


def _measured(s: Section) -> list[tuple[str, list[Subgroup]]]:
    rows = [row for row in full(s)[:MOST] if axes(row.records)]
    return [(row.encoder, subgroups(row.records, resamples=RESAMPLES)) for row in rows]


def _heat(many: Sequence[tuple[str, list[Subgroup]]], shown: Mapping[str, str]) -> Html:
    lines = []
    for i, g in enumerate(many[0][1]):
        cells = [shaded(shown[name], groups[i].intervals["auroc"]) for name, groups in many]
        lines.append([_name(g), f"{g.patients} patients, {g.images} images", *cells])
    return table(["group", "test part", *(shown[name] for name, _ in many)], lines, "heat")


def _name(g: Subgroup) -> str:
    return f"{g.axis}: {g.name}" if g.axis else g.name


def _cautions(many: Sequence[tuple[str, list[Subgroup]]], shown: Mapping[str, str]) -> list[Html]:
    said = []
    for g in many[0][1]:
        said += [tag("p", f"Warning: {_name(g)}: {note}.", class_="note") for note in g.notes if g.axis]
    for name, groups in many:
        gaps = [g for g in groups if g.gap is not None]
        for g in (g for g in gaps if g.adjusted < 0.05 and g.gap is not None):
            told = f"{shown[name]} serves {_name(g)} {g.gap.verdict} than all others ({show.gap(g.gap)}, Holm over {len(gaps)} groups)."  # type: ignore[union-attr]
            said.append(tag("p", told, class_="bad"))
    return said


def _numbers(many: Sequence[tuple[str, list[Subgroup]]], shown: Mapping[str, str]) -> Html:
    known = [key for key in NUMBERS if key in many[0][1][0].metrics]
    lines = [
        [shown[name], _name(g), show.gap(g.gap), *(_value(g.metrics.get(key, math.nan)) for key in known)]
        for name, groups in many
        for g in groups
    ]
    return table(["encoder", "group", "gap [95 %]", *(NUMBERS[key] for key in known)], lines, "small")


def _value(v: float) -> str:
    return "" if math.isnan(v) else f"{v:.3f}"
