"""The number of test patients with a wanted power, from simulated test sets of several sizes.

For a fixed difference the normal quantile of the power is nearly a straight line in the square root of the number of patients. On these
scales the number is interpolated between the two simulated sizes around it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from encoders.runtime.arrays import FloatArray
from transfer.stats.delong import mean_components
from transfer.stats.patients import MIN_PATIENTS
from transfer.stats.pilot_rows import PilotRows
from transfer.stats.planned_population import Population
from transfer.stats.planned_repeats import FactorSizes, difference_components
from transfer.stats.planned_verdict import Goal, VerdictRule
from transfer.stats.power import PowerPoint, variance_per_patient
from transfer.stats.resampled_parts import class_presence
from transfer.stats.variance_model import paired_degrees_of_freedom
from transfer.stats.verdict import SIGNIFICANT, Verdict

MOST_PATIENTS = 50_000  # where the search for a number ends
GRID = (0.5, 0.75, 1.0, 1.4, 2.0)  # simulated sizes, relative to a first guess
MOST_DRAWS = 100
NO_FACTORS = FactorSizes()
EXTEND = 2.0  # factor of the next size while the power is still too low, or too high

Simulate = Callable[[int], PowerPoint]


@dataclass(frozen=True)
class RequiredNumber:
    """patients: with the wanted power; `bound` says whether it is that number, or an upper or lower bound because no size around it was
    simulated.  low, high: its 95 % Monte Carlo interval.  minimum: the number is that of MIN_PATIENTS patients in each class."""

    patients: int
    bound: str  # "", "at most" or "more than"
    low: int
    high: int
    minimum: bool = False


def fewest_judged(population: Population) -> int:
    """The smallest number of test patients with MIN_PATIENTS in each class; for several labels that of the usual table, 2 MIN_PATIENTS.

    A patient with images of both classes counts in both. The number of these varies from test set to test set, and its mean is used."""
    if not population.by_class:
        return 2 * MIN_PATIENTS
    rows = population.rows
    (presence,) = class_presence(rows.y, rows.patient, len(population.share))
    shares = population.prevalence, float(population.share[presence.negative].sum())
    return int(np.ceil(MIN_PATIENTS / min(shares) - 1e-9))  # 1e-9: rounding


def guess_patients(
    population: Population, difference: float, goal: Goal, rule: VerdictRule, power: float, sizes: FactorSizes = NO_FACTORS, draws: int = 1
) -> float:
    """The number of test patients by the normal approximation; infinity where no number is enough. Seeds are not part of it."""
    from scipy.special import ndtri

    distance, tail = distance_to_find(difference, goal, rule)
    both_sides = goal == "equivalent" and difference == 0
    quantiles = ndtri(1 - tail) + ndtri((1 + power) / 2 if both_sides else power)
    needed = (distance / quantiles) ** 2  # the variance that the difference may have
    room = max(needed - sizes.draws**2 / draws, 0.2 * needed)  # the search corrects a guess that is too low
    return float(variance_per_patient(population) / room) if distance > 0 else float("inf")


def distance_to_find(difference: float, goal: Goal, rule: VerdictRule) -> tuple[float, float]:
    """How far the true difference is from the nearest value that must be rejected, and the level of that one-sided test."""
    if goal == "different":
        return abs(difference), rule.corrected_alpha / 2
    assert rule.margin is not None
    return rule.margin - abs(difference) if goal == "equivalent" else rule.margin + difference, rule.corrected_alpha


def power_limit(difference: float, goal: Goal, rule: VerdictRule, sizes: FactorSizes, draws: int) -> float:
    """The largest power that any number of test patients can reach, because the draws of the labeled patients vary.

    With all patients in the world the verdict is that of a t test on the draws, whose power is that of the non-central t distribution."""
    from scipy.special import nctdtr, stdtrit

    if sizes.draws == 0 or draws < 2:
        return 1.0
    distance, tail = distance_to_find(difference, goal, rule)
    return 1.0 - float(nctdtr(draws - 1, distance * np.sqrt(draws) / sizes.draws, stdtrit(draws - 1, 1 - tail)))


def fewest_draws(difference: float, goal: Goal, rule: VerdictRule, sizes: FactorSizes, power: float) -> int | None:
    """The smallest number of draws with which some number of test patients has this power; None above MOST_DRAWS."""
    return next((n for n in range(2, MOST_DRAWS + 1) if power_limit(difference, goal, rule, sizes, n) >= power), None)


def search_sizes(simulate: Simulate, guess: float, fewest: int, wanted: Sequence[Verdict], power: float) -> list[PowerPoint]:
    """The simulated sizes around the number with this power, by size. guess: a first one.  fewest: no smaller size is judged."""
    sizes = sorted({round_patients(min(max(guess * f, fewest), MOST_PATIENTS), fewest) for f in GRID})
    points = [simulate(n) for n in sizes]
    while points[-1].share(wanted) < power and points[-1].patients < MOST_PATIENTS:
        points.append(simulate(min(round_patients(points[-1].patients * EXTEND, fewest), MOST_PATIENTS)))
    while points[0].share(wanted) > power and points[0].patients > fewest:
        points.insert(0, simulate(round_patients(max(points[0].patients / EXTEND, fewest), fewest)))
    return points


def round_patients(n: float, fewest: int) -> int:
    """Two significant digits, or `fewest` if that is more."""
    digits = int(np.floor(np.log10(max(n, 1)))) - 1
    return max(int(round(n, -digits)) if digits > 0 else int(np.ceil(n)), fewest)


def required_number(points: Sequence[PowerPoint], wanted: Sequence[Verdict], power: float, fewest: int) -> RequiredNumber | None:
    """The number of test patients with this power. points: simulated sizes.  None if each has too few patients in a class."""
    judged = sorted((p for p in points if p.patients >= fewest), key=lambda p: p.patients)
    if not judged:
        return None
    n = np.array([p.patients for p in judged], dtype=float)
    z = _quantiles(judged, wanted)
    target = float(_normal_quantile(power))
    if z[0] >= target:
        first, minimum = judged[0].patients, judged[0].patients == fewest
        return RequiredNumber(first, "" if minimum else "at most", first, first, minimum)
    if z[-1] < target:
        last = judged[-1].patients
        return RequiredNumber(last, "more than", last, last)
    i = int(np.argmax(z >= target))
    root = np.sqrt(n)
    at = root[i - 1] + (root[i] - root[i - 1]) * (target - z[i - 1]) / (z[i] - z[i - 1])
    half = 1.96 * _quantile_error(power, judged[i].repeats) / _slope(root, z, i)
    low, high = (max(float(end), root[0]) ** 2 for end in (at - half, at + half))
    return RequiredNumber(int(np.ceil(at**2)), "", int(low), int(np.ceil(high)))


def pilot_range(pilot: PilotRows, patients: int) -> tuple[int, int]:
    """The 95 % interval of a required number, whose variance was estimated from the pilot's patients.

    The number is proportional to the variance, which is taken as chi-squared with the degrees of freedom of the paired difference."""
    from scipy.special import chdtri

    df = paired_degrees_of_freedom(mean_components(difference_components(pilot)))
    return int(patients * df / chdtri(df, 0.025)), int(np.ceil(patients * df / chdtri(df, 0.975)))


def wanted_verdicts(goal: Goal, difference: float, verdicts: Sequence[Verdict]) -> tuple[Verdict, ...]:
    """Of the verdicts of a goal, those that are right for the planned difference."""
    if goal != "different" or difference == 0:
        return tuple(verdicts)
    return (SIGNIFICANT[0] if difference > 0 else SIGNIFICANT[1],)


def _quantiles(points: Sequence[PowerPoint], wanted: Sequence[Verdict]) -> FloatArray:
    """The normal quantiles of the powers, made monotone: a power below that of a smaller size is pooled with it (Ayer et al. 1955)."""
    blocks: list[list[float]] = []  # mean, number of sizes
    for p in points:
        blocks.append([min(max(p.share(wanted), 0.5 / p.repeats), 1 - 0.5 / p.repeats), 1.0])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (x, k), (y, m) = blocks[-2:]
            blocks[-2:] = [[(x * k + y * m) / (k + m), k + m]]
    return np.asarray(_normal_quantile(np.repeat([b[0] for b in blocks], [int(b[1]) for b in blocks])))


def _slope(root: FloatArray, z: FloatArray, i: int) -> float:
    """The slope of the quantile over all sizes whose power is neither near 0 nor near 1; the two around the number among them."""
    near = np.abs(z) < 2.3  # power between 1 % and 99 %
    near[[i - 1, i]] = True
    return float(np.polyfit(root[near], z[near], 1)[0])


def _normal_quantile(p: float | FloatArray) -> FloatArray:
    from scipy.special import ndtri

    return np.asarray(ndtri(p))


def _quantile_error(power: float, repeats: int) -> float:
    """The Monte Carlo standard error of the normal quantile of a power."""
    z = float(_normal_quantile(power))
    return float(np.sqrt(power * (1 - power) / repeats) / (np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)))
