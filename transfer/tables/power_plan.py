"""The power of planned comparisons and the number of test patients they need, from a pilot."""

from collections.abc import Callable
from dataclasses import dataclass, field

from encoders.runtime.errors import InputError
from transfer.stats.planned_population import Population, build_population
from transfer.stats.planned_repeats import FactorSizes, estimate_factor_sizes
from transfer.stats.planned_verdict import GOAL_VERDICTS, Goal, VerdictRule
from transfer.stats.power import PowerPoint, simulate_power
from transfer.stats.required_patients import (
    RequiredNumber,
    fewest_draws,
    fewest_judged,
    guess_patients,
    pilot_range,
    power_limit,
    required_number,
    search_sizes,
    wanted_verdicts,
)
from transfer.stats.verdict import Verdict
from transfer.tables.pilot_records import MIN_PILOT_PATIENTS, Pilot

FACTORS_WITHOUT_NUMBER = (1, 5, 20)  # simulated sizes where no number is searched, relative to the smallest that is judged


@dataclass(frozen=True)
class PowerOptions:
    """What is planned. differences: true differences of AUROC; (): that of the pilot, or 0 for a goal with a margin.

    patients: numbers of test patients; (): around the number that is needed.  draws: of the labeled patients; None: as in the pilot."""

    differences: tuple[float, ...] = ()
    power: float = 0.8
    patients: tuple[int, ...] = ()
    prevalence: float | None = None
    images: int | None = None
    rule: VerdictRule = field(default_factory=VerdictRule)
    goal: Goal = "different"
    draws: int | None = None
    repeats: int = 1000
    seed: int = 0


@dataclass(frozen=True)
class PlannedPower:
    """One planned difference. observed: it is that of the pilot.  wanted: the verdicts that count.  required: None if there is no number.

    pilot_range: 95 % interval of the required number from the finite number of pilot patients, for this difference; None: not known.
    limit: the largest power that any number of test patients can reach with the planned draws.  fewest_draws: with which it is enough."""

    difference: float
    observed: bool
    wanted: tuple[Verdict, ...]
    points: tuple[PowerPoint, ...]
    required: RequiredNumber | None
    fewest: int
    population: Population
    pilot_range: tuple[int, int] | None = None
    limit: float = 1.0
    fewest_draws: int | None = None


def check_options(pilot: Pilot, options: PowerOptions) -> None:
    """Raises InputError for options that contradict each other or the pilot."""
    margin, goal = options.rule.margin, options.goal
    if goal != "different" and margin is None:
        raise InputError(f"--goal {goal} needs --margin, the difference of AUROC that does not matter, for example --margin 0.01")
    for difference in options.differences:
        if goal == "equivalent" and margin is not None and abs(difference) >= margin:
            raise InputError(
                f"--difference {difference:g} is not within the margin {margin:g}, so the encoders would not be equivalent; "
                "choose a smaller difference, a larger margin, or --goal different"
            )
        if goal == "not-inferior" and margin is not None and difference <= -margin:
            raise InputError(f"--difference {difference:g} is worse by the margin {margin:g} or more, so the encoder would be inferior")
    if options.prevalence is not None and len(pilot.labels) > 1:
        raise InputError(
            f"--prevalence is for one label, and the pilot has {len(pilot.labels)}; choose one with --label: {', '.join(pilot.labels)}"
        )
    if pilot.rows.sampled_labels and pilot.draws < 2:
        raise InputError(
            "the pilot has one draw of the labeled patients, which says nothing about other draws; run `transfer bench` with --draws 5"
        )
    if options.draws is not None and not pilot.rows.sampled_labels and options.draws != pilot.draws:
        raise InputError(f"--draws {options.draws}: the pilot uses all labeled patients, so none are drawn; leave --draws out")
    if pilot.rows.sampled_labels and options.draws == 1:
        raise InputError("--draws 1: a single draw of the labeled patients gives no verdict (insufficient draws); plan at least 2")


def plan_power(pilot: Pilot, options: PowerOptions, progress: Callable[[int], None] = lambda n: None) -> list[PlannedPower]:
    """The power of each planned difference. progress: called with 1 after each simulated number of patients."""
    check_options(pilot, options)
    sizes = estimate_factor_sizes(pilot.rows)
    default = None if options.goal == "different" else 0.0
    return [_plan_difference(pilot, options, sizes, d, progress) for d in options.differences or (default,)]


def _plan_difference(
    pilot: Pilot, options: PowerOptions, sizes: FactorSizes, difference: float | None, progress: Callable[[int], None]
) -> PlannedPower:
    # Folds are joined by ranks, so that their observed difference is planned like any other one.
    planned = pilot.observed.value if difference is None else difference
    changes = options.images is not None or options.prevalence is not None or _has_folds(pilot)
    exact = planned if difference is not None or changes else None
    population = build_population(pilot.rows, exact, options.prevalence, options.images, options.seed)
    _check_profiles(population, options)
    wanted, fewest = wanted_verdicts(options.goal, planned, GOAL_VERDICTS[options.goal]), fewest_judged(population)
    draws = options.draws or pilot.draws

    def simulate(patients: int) -> PowerPoint:
        point = simulate_power(population, patients, options.rule, sizes, draws, options.repeats, options.seed)
        progress(1)
        return point

    aim = planned, options.goal, options.rule
    limit, enough = power_limit(*aim, sizes, draws), fewest_draws(*aim, sizes, options.power)
    reachable = limit >= options.power and (planned != 0 or options.goal != "different")  # at no difference there is nothing to find
    if options.patients:
        points = [simulate(n) for n in options.patients]
    elif not reachable:
        points = [simulate(fewest * factor) for factor in FACTORS_WITHOUT_NUMBER]
    else:
        guess = guess_patients(population, *aim, options.power, sizes, draws)
        points = search_sizes(simulate, guess, fewest, wanted, options.power)
    required = required_number(points, wanted, options.power, fewest) if reachable else None
    if required is not None and not required.bound and not options.patients and required.patients not in {p.patients for p in points}:
        points = sorted([*points, simulate(required.patients)], key=lambda p: p.patients)
        required = required_number(points, wanted, options.power, fewest)
    spread = None if required is None or required.bound or required.minimum else pilot_range(pilot.rows, required.patients)
    return PlannedPower(planned, difference is None, wanted, tuple(points), required, fewest, population, spread, limit, enough)


def _has_folds(pilot: Pilot) -> bool:
    return len({r.identity.fold for r in pilot.one}) > 1


def _check_profiles(population: Population, options: PowerOptions) -> None:
    """Raises InputError when a limit of images leaves too few patients in a class."""
    known = population.by_class and options.images is not None
    if known and min(int(population.positive.sum()), int((~population.positive).sum())) < MIN_PILOT_PATIENTS:
        raise InputError(f"--images {options.images} leaves fewer than {MIN_PILOT_PATIENTS} pilot patients in a class; allow more images")
