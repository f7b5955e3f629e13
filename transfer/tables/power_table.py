"""The power of planned comparisons: as a table on the terminal with its assumptions, and as CSV."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from transfer.stats.patients import MIN_PATIENTS, patients_per_class
from transfer.stats.planned_repeats import estimate_factor_sizes
from transfer.stats.power import PowerPoint
from transfer.tables.format import format_difference, format_signed
from transfer.tables.pilot_records import Pilot
from transfer.tables.power_plan import PlannedPower, PowerOptions

if TYPE_CHECKING:
    from rich.console import Console

FEW_PILOT_PATIENTS = 30  # per class; with fewer, the pilot's own error is stated first


def print_power(console: "Console", pilot: Pilot, options: PowerOptions, results: Sequence[PlannedPower]) -> None:
    """Prints the pilot, a table of all simulated sizes, the required numbers, and what they assume."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    i = pilot.one[0].identity
    title = f"{pilot.encoder} compared with {pilot.versus}: AUROC, {i.task}, {i.protocol}"
    for line in (title, *describe_pilot(pilot)):
        console.print(line, markup=False, style="bold" if line == title else None)
    table = Table(pad_edge=False, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in _header(options):
        table.add_column(name, overflow="fold", justify="right")
    for result in results:
        for point in result.points:
            table.add_row(*_cells(result, point, options))
    console.print(table)
    for result in results:
        console.print(describe_required(result, options), markup=False, style="bold")
    console.print("Assumptions", style="dim")
    for line in describe_assumptions(pilot, options, results):
        console.print(f"  - {line}", markup=False, style="yellow" if line.startswith("LEAKAGE") else "dim")


def describe_pilot(pilot: Pilot) -> list[str]:
    """The size of the pilot and what it observed, as lines."""
    rows = pilot.rows
    size = f"{rows.patients} test patients, {len(rows.y)} images"
    if len(pilot.labels) == 1:
        negative, positive = patients_per_class(rows.y, rows.patient)[0]
        size += f"; {positive} patients with a positive image, {negative} with a negative one"
    else:
        size += f"; mean over {len(pilot.labels)} labels"
    return [f"Pilot: {size}; observed difference {format_difference(pilot.observed)}"]


def describe_required(result: PlannedPower, options: PowerOptions) -> str:
    """The required number of test patients as a sentence."""
    start = f"True difference {format_signed(result.difference)}: "
    number = result.required
    if number is None:
        if result.limit < options.power:
            more = "" if result.fewest_draws is None else f"; plan at least {result.fewest_draws} draws"
            return (
                f"{start}no number of test patients has a power of {options.power:.0%}: the variation between draws of the labeled "
                f"patients limits it to {result.limit:.0%}{more}"
            )
        if result.points and all(p.patients < result.fewest for p in result.points):
            return f"{start}no verdict below {result.fewest} test patients, which have {MIN_PATIENTS} in each class"
        return f"{start}there is nothing to find; the table shows how often a verdict is false"
    goal = f"for a power of {options.power:.0%}"
    if number.bound == "more than":
        best = max(p.share(result.wanted) for p in result.points)
        return f"{start}more than {number.patients:,} test patients are needed {goal}; at most {best:.0%} was reached"
    if number.bound:
        return f"{start}at most {number.patients:,} test patients are needed {goal}; --patients has no smaller number"
    if number.minimum:
        return f"{start}{number.patients:,} test patients {goal}, the fewest with {MIN_PATIENTS} in each class"
    ranges = f"Monte Carlo {number.low:,} to {number.high:,}"
    if result.pilot_range is not None:
        ranges += f"; given the size of the pilot, {result.pilot_range[0]:,} to {result.pilot_range[1]:,}"
    return f"{start}{number.patients:,} test patients {goal} (95 %: {ranges})"


def describe_assumptions(pilot: Pilot, options: PowerOptions, results: Sequence[PlannedPower]) -> Iterator[str]:
    """What the numbers assume, and where they are uncertain, as lines."""
    rows, rule = pilot.rows, options.rule
    smallest = int(patients_per_class(rows.y, rows.patient).min())
    if smallest < FEW_PILOT_PATIENTS:
        yield f"the pilot has {smallest} patients in the smaller class: its own uncertainty is larger than the Monte Carlo error"
    if any(r.observed for r in results):
        yield (
            "the planned difference is the observed one, which is uncertain, and too large on average if it was chosen because it was "
            "large (winner's curse); plan with the smallest difference that matters, for example --difference 0.02"
        )
    per_patient = len(rows.y) / rows.patients
    limit = f", at most {options.images} of them" if options.images is not None else ""
    yield f"test patients are like those of the pilot and bring their images along{limit}; the pilot has {per_patient:.1f} images a patient"
    population = results[0].population
    if population.by_class:
        source = "as in the pilot" if options.prevalence is None else "--prevalence"
        yield f"{population.prevalence:.1%} of the test patients have a positive image ({source})"
    yield (
        f"{pilot.versus} keeps its scores; a difference other than the observed one moves the positive images of {pilot.encoder} on a "
        "normal scale of ranks, which keeps the correlation of the encoders and of the images of a patient"
    )
    level = (
        "5 %" if rule.comparisons == 1 else f"5 % / {rule.comparisons} comparisons (Bonferroni; Holm's correction finds at least as much)"
    )
    yield (
        f"verdicts are those of `transfer compare` at a level of {level}; a test set with fewer than {MIN_PATIENTS} patients in a class "
        f"finds nothing; {options.repeats:,} simulated test sets of each size"
    )
    if rows.sampled_labels:
        sd = estimate_factor_sizes(rows).draws
        planned = options.draws or pilot.draws
        yield f"{planned} draws of the labeled patients; the difference varies between draws by {sd:.4f} (sd of {pilot.draws} draws)"
    if len({r.identity.fold for r in pilot.one}) > 1:
        yield "the folds of the pilot are joined by the ranks of their scores; the planned study has one test set and one model"
    yield "patients are test patients: a split that tests 20 % of the patients needs five times as many in all"
    yield "verdicts are about these checkpoints, not about other pretraining seeds"
    yield from pilot.notes


def power_to_csv_lines(pilot: Pilot, options: PowerOptions, results: Sequence[PlannedPower]) -> list[dict[str, object]]:
    """One line for each planned difference and simulated size."""
    i = pilot.one[0].identity
    return [
        {
            "task": i.task,
            "protocol": i.protocol,
            "encoder": pilot.encoder,
            "versus": pilot.versus,
            "labels": "+".join(pilot.labels),
            "pilot_patients": pilot.rows.patients,
            "pilot_difference": f"{pilot.observed.value:.6f}",
            "difference": f"{r.difference:.6f}",
            "observed": r.observed,
            "goal": options.goal,
            "margin": "" if options.rule.margin is None else options.rule.margin,
            "comparisons": options.rule.comparisons,
            "draws": options.draws or pilot.draws,
            "prevalence": f"{r.population.prevalence:.6f}" if r.population.by_class else "",
            "images_at_most": "" if options.images is None else options.images,
            "patients": p.patients,
            "positive_patients": "" if p.positive is None else p.positive,
            "power": f"{p.share(r.wanted):.6f}",
            "monte_carlo_error": f"{p.error(r.wanted):.6f}",
            **{
                v.replace(" ", "_"): f"{p.share((v,)):.6f}"
                for v in ("better", "worse", "equivalent", "not inferior", "insufficient patients")
            },
            "repeats": p.repeats,
            "seed": options.seed,
            "wanted_power": options.power,
            "required_patients": "" if r.required is None else r.required.patients,
            "required_is": "" if r.required is None else r.required.bound or "exact",
            "required_low": "" if r.required is None else r.required.low,
            "required_high": "" if r.required is None else r.required.high,
            "required_low_by_pilot": "" if r.pilot_range is None else r.pilot_range[0],
            "required_high_by_pilot": "" if r.pilot_range is None else r.pilot_range[1],
            "split": i.partition,
            "protocol_hash": i.protocol_hash,
        }
        for r in results
        for p in r.points
    ]


def _header(options: PowerOptions) -> tuple[str, ...]:
    more = ("better or worse", "equivalent", "not inferior or better") if options.rule.margin is not None else ()
    return "true difference", "test patients", "positive", "power", "95 % +-", *more, ""


def _cells(result: PlannedPower, p: PowerPoint, options: PowerOptions) -> tuple[str, ...]:
    groups = (("better", "worse"), ("equivalent",), ("better", "equivalent", "not inferior"))
    more = tuple(f"{p.share(group):.1%}" for group in groups) if options.rule.margin is not None else ()  # type: ignore[arg-type]
    few = p.share(("insufficient patients",))
    note = "insufficient patients" if few == 1 else f"insufficient patients in {few:.0%}" if few > 0 else ""
    if result.difference == 0 and options.goal == "different":
        note = note or "false verdicts"
    positive = "" if p.positive is None else f"{p.positive:,}"
    error = 1.96 * p.error(result.wanted)
    return format_signed(result.difference), f"{p.patients:,}", positive, f"{p.share(result.wanted):.1%}", f"{error:.1%}", *more, note
