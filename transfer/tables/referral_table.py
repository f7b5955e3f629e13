"""The tables of referrals on a terminal and as CSV."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from encoders.runtime.escape import lines_to_csv
from transfer.stats import Interval
from transfer.tables.format import format_interval
from transfer.tables.referral import NUMBERS, Referral, ReferralRule, error_difference
from transfer.tables.render import list_allowed_leaks, shorten_names, unique
from transfer.tables.rows import Row, Section
from transfer.tables.terminal_table import build_table

if TYPE_CHECKING:
    from rich.console import Console

PLACE = ("encoder", "protocol", "task", "label")
ReferredRow = tuple[Section, Row, list[Referral]]
REFERRAL_HEADER = (
    "referred",
    "error of the rest [95 %]",
    "errors caught [95 %]",
    "error, less that of the baseline [95 %]",
    "sensitivity [95 %]",
    "specificity [95 %]",
    "AUROC of the rest [95 %]",
    "referred by cut-off",
)
PANELS = (("Referral of the least certain", (0, 1, 2, 3)), ("Decisions on the rest", (0, 4, 5, 6, 7)))  # columns of REFERRAL_HEADER
REFERRAL_NOTE = (
    "The least certain test images are referred to a person; the other numbers are of the rest. Referring images at random catches the "
    "share of the errors that is referred. Referred by cut-off: share of the test images below the certainty that refers this share of the "
    "validation images. Sensitivity of several classes: mean recall"
)


def print_referrals(console: "Console", found: Sequence[ReferredRow], rule: ReferralRule) -> None:
    """Prints all referrals in two tables, with how to read them and the leaks below."""

    names = shorten_names([s for s, _, _ in found])
    lines = [line for s, row, referrals in found for line in _list_lines(s, row, referrals, rule, names)]
    place = [column for column in range(4) if column == 0 or len({where[column] for where, _ in lines if where[column]}) > 1]
    for title, columns in PANELS:
        shown = [column for column in columns if any(cells[column] for _, cells in lines)]
        table = build_table(title, (*(PLACE[column] for column in place), *(REFERRAL_HEADER[column] for column in shown)))
        before: list[str] = []
        for where, cells in lines:
            here = [where[column] for column in place]
            table.add_row(*(["" for _ in here] if here == before else here), *(cells[column] for column in shown))
            before = here
        console.print(table)
    console.print(f"  {REFERRAL_NOTE}", style="dim", markup=False)
    for leak in unique(leak for _, row, _ in found for leak in list_allowed_leaks(row)):
        console.print(f"  LEAKAGE ALLOWED: {leak}", style="yellow", markup=False)


def _list_lines(
    s: Section, row: Row, referrals: Sequence[Referral], rule: ReferralRule, names: Mapping[str, str]
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The columns PLACE and REFERRAL_HEADER of each referral."""
    cells = iterate_cells(s, row, referrals, rule, names)
    return [((names[row.encoder] + row.labels_title, s.protocol, s.task, r.label), own) for r, own in zip(referrals, cells, strict=True)]


def iterate_cells(
    section: Section, row: Row, referrals: Sequence[Referral], rule: ReferralRule, names: Mapping[str, str]
) -> Iterator[tuple[str, ...]]:
    """Yields the text of the columns REFERRAL_HEADER for each referral."""
    reference, differences = find_differences(section, row, rule)
    for i, r in enumerate(referrals):
        paired = "" if differences is None else f"{_signed(differences[i])} {names[reference]}"
        area = f"{r.auroc.value:.3f}" if not rule.ranking or r.auroc.low != r.auroc.low else format_interval(r.auroc)
        specificity = "" if r.label == "" else format_interval(r.specificity)
        caught = "" if r.share == 0 else format_interval(r.caught)
        moved = "" if r.share == 0 else f"{100 * r.by_cutoff:.1f} %"
        referred, error = f"{100 * r.share:.3g} %", format_interval(r.error)
        yield referred, error, caught, paired, format_interval(r.sensitivity), specificity, area, moved


def find_differences(section: Section, row: Row, rule: ReferralRule) -> tuple[str, list[Interval] | None]:
    """The row's strongest baseline, and the paired differences of the error to it; None without one on the same folds and draws."""
    reference = next((o for o in section.rows if o.encoder == row.reference and o.labels_order == row.labels_order), None)
    return row.reference, None if reference is None else error_difference(row, reference, rule)


def _signed(difference: Interval) -> str:
    return f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def referrals_to_csv(found: Sequence[ReferredRow], rule: ReferralRule) -> str:
    """One line per label and share, numbers with six decimals."""
    lines: list[dict[str, object]] = []
    for s, row, referrals in found:
        reference, differences = find_differences(s, row, rule)
        where = {
            "task": s.task,
            "protocol": s.protocol,
            "protocol_hash": s.protocol_hash,
            "encoder": row.encoder,
            "fraction": f"{row.fraction:g}",
            "scored_by": row.records[0].meta.scored_by or "image",
        }
        for i, r in enumerate(referrals):
            numbers: dict[str, float] = {"referred_by_cutoff": r.by_cutoff}
            intervals = {name: getattr(r, name) for name in NUMBERS} | ({} if differences is None else {"error_difference": differences[i]})
            for name, interval in intervals.items():
                numbers |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
            line: dict[str, object] = {**where, "label": r.label, "referred": f"{r.share:g}"}
            line |= {name: f"{value:.6f}" for name, value in numbers.items()}
            lines.append(line | {"versus": "" if differences is None else reference, "leakage": "; ".join(list_allowed_leaks(row))})
    return lines_to_csv(lines)
