"""The tables of deep ensembles on a terminal and as CSV: ranking, and calibration."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from encoders.runtime.escape import lines_to_csv
from transfer.stats import Interval
from transfer.tables.ensemble_calibration import COMPARED_WITH, VARIANTS, ensemble_errors
from transfer.tables.ensemble_rows import KIND_TITLES, Ensemble
from transfer.tables.format import format_difference, format_interval, format_verdict
from transfer.tables.render import list_allowed_leaks, shorten_names, unique
from transfer.tables.terminal_table import build_table

if TYPE_CHECKING:
    from rich.console import Console

ENSEMBLE_HEADER = ("ensemble", "protocol", "task", "AUROC [95 %]", "mean single member", "AUROC difference [95 %]", "verdict")
ENSEMBLE_ERRORS_HEADER = ("ensemble", "protocol", "task", "probabilities", "log loss", "Brier", "ECE", "log loss difference [95 %]")
ENSEMBLE_NOTE = (
    "An ensemble is the mean probability of its members, and costs as many networks. Its difference to the mean single member is paired by "
    "test patient and includes the variation between the members; its own interval is about this one ensemble"
)
ENSEMBLE_ERRORS_NOTE = (
    f"Log loss difference: to {VARIANTS[COMPARED_WITH]}, paired by test patient; below 0 is better. Temperatures are fitted on validation "
    "patients. The mean of calibrated members is too modest, so an ensemble needs a temperature of its own (Rahaman and Thiery 2021)"
)


def print_ensembles(console: "Console", ensembles: Sequence[Ensemble]) -> None:
    """Prints both tables, with how to read them and the leaks below."""

    for title, header, lines, note in tabulate_ensembles(ensembles, shorten_names([e.section for e in ensembles])):
        table = build_table(title, header)
        before: tuple[str, ...] = ()
        for line in lines:
            table.add_row(*(("", "", "") if line[:3] == before else line[:3]), *line[3:])
            before = line[:3]
        console.print(table)
        console.print(f"  {note}", style="dim", markup=False)
    for leak in unique(leak for e in ensembles for leak in list_allowed_leaks(e.row)):
        console.print(f"  LEAKAGE ALLOWED: {leak}", style="yellow", markup=False)


class EnsembleTable(NamedTuple):
    """A table as text. lines: the first three cells of a line say which ensemble it is about."""

    title: str
    header: tuple[str, ...]
    lines: list[tuple[str, ...]]
    note: str


def tabulate_ensembles(ensembles: Sequence[Ensemble], display_names: Mapping[str, str]) -> list[EnsembleTable]:
    """Ranking, then calibration."""
    ranking = [(*_place(e), *_ranking_cells(e, display_names[e.members.encoder])) for e in ensembles]
    calibration = [(*_place(e), *cells) for e in ensembles for cells in _calibration_cells(e)]
    return [
        EnsembleTable("Deep ensembles", ENSEMBLE_HEADER, ranking, ENSEMBLE_NOTE),
        EnsembleTable("Calibration of ensembles", ENSEMBLE_ERRORS_HEADER, calibration, ENSEMBLE_ERRORS_NOTE),
    ]


def _place(e: Ensemble) -> tuple[str, str, str]:
    return e.row.encoder + e.row.labels_title, e.section.protocol, e.section.task


def _ranking_cells(e: Ensemble, members: str) -> tuple[str, ...]:
    difference = e.row.difference
    return (
        format_interval(e.row.metrics["auroc"]),
        format_interval(e.members.metrics["auroc"]),
        format_difference(difference),
        format_verdict(difference, f"one of {members}") if difference is not None else "",
    )


def _calibration_cells(e: Ensemble) -> list[tuple[str, ...]]:
    return [
        (x.variant, f"{x.log_loss:.4f}", f"{x.brier:.4f}", f"{x.ece:.4f}", _format_loss(x.log_loss_difference)) for x in ensemble_errors(e)
    ]


def _format_loss(d: Interval) -> str:
    return "" if d.low == d.high == 0 else f"{d.value:+.4f} [{d.low:+.4f}, {d.high:+.4f}]"


def ensembles_to_csv(ensembles: Sequence[Ensemble]) -> str:
    """One line per ensemble and variant of its probabilities, numbers with six decimals."""
    lines: list[dict[str, object]] = []
    for e in ensembles:
        d = e.row.difference
        where: dict[str, object] = {"task": e.section.task, "protocol": e.section.protocol, "protocol_hash": e.section.protocol_hash}
        where |= {"ensemble": e.row.encoder, "encoder": e.members.encoder, "over": KIND_TITLES[e.kind], "members": e.size}
        where |= {"fraction": f"{e.row.fraction:g}", "scored_by": e.row.records[0].meta.scored_by or "image"}
        numbers = _ends("auroc", e.row.metrics["auroc"]) | _ends("member_auroc", e.members.metrics["auroc"])
        if d is not None:
            numbers |= {"difference": d.value, "difference_low": d.low, "difference_high": d.high, "p": d.p, "p_holm": d.corrected_p}
        verdict = "" if d is None else d.reported_verdict
        for x in ensemble_errors(e):
            own = numbers | {"log_loss": x.log_loss, "brier": x.brier, "ece": x.ece} | _ends("log_loss_difference", x.log_loss_difference)
            line = {**where, "verdict": verdict, "probabilities": x.variant, **{name: f"{value:.6f}" for name, value in own.items()}}
            lines.append({**line, "leakage": "; ".join(list_allowed_leaks(e.row))})
    return lines_to_csv(lines)


def _ends(name: str, interval: Interval) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), interval.ends, strict=True))
