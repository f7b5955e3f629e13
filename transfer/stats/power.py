"""Power of a planned comparison: the share of simulated test sets that get the wanted verdict.

A test set is drawn with replacement from the population of a pilot, and judged as a table judges it.

Shapes: G profiles, B drawn sets, C labels.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from encoders.runtime.arrays import IntArray
from encoders.runtime.random import Purpose, generator
from transfer.stats.estimate import Estimate
from transfer.stats.factors import Position
from transfer.stats.parts import TestPart
from transfer.stats.patients import MIN_PATIENTS
from transfer.stats.pilot_rows import PLAN_WORD
from transfer.stats.planned_population import Population
from transfer.stats.planned_repeats import FactorSizes, plan_positions
from transfer.stats.planned_verdict import VerdictRule, planned_verdict
from transfer.stats.resampled_parts import class_presence, resampled_parts
from transfer.stats.verdict import Verdict
from transfer.stats.weighted_placements import sort_rows, weighted_errors

CHUNK_VALUES = 4_000_000  # rows x drawn sets at a time: 32 MB an array


@dataclass(frozen=True)
class PowerPoint:
    """The verdicts of the simulated test sets of one size. positive: patients with a positive image; None for several labels."""

    patients: int
    positive: int | None
    verdicts: Mapping[Verdict, int]

    @property
    def repeats(self) -> int:
        return sum(self.verdicts.values())

    def share(self, verdicts: Sequence[Verdict]) -> float:
        """The share of the test sets with one of these verdicts."""
        return sum(self.verdicts.get(v, 0) for v in verdicts) / self.repeats

    def error(self, verdicts: Sequence[Verdict]) -> float:
        """The Monte Carlo standard error of that share."""
        p = self.share(verdicts)
        return float(np.sqrt(p * (1 - p) / self.repeats))


def simulate_power(
    population: Population, patients: int, rule: VerdictRule, sizes: FactorSizes, draws: int = 1, repeats: int = 1000, seed: int = 0
) -> PowerPoint:
    """The verdicts on test sets of `patients` patients. draws: of the labeled patients in the planned study.

    Test sets of one size have the same patients for every planned difference of one seed."""
    rng = generator(seed, Purpose.BOOTSTRAP, PLAN_WORD, 2, patients)
    step = max(1, CHUNK_VALUES // len(population.rows.y))
    verdicts: Counter[Verdict] = Counter()
    for start in range(0, repeats, step):
        copies = draw_copies(population, patients, min(step, repeats - start), rng)
        for a, b in simulate_estimates(population, copies, sizes, draws, rng):
            verdicts[planned_verdict(a, b, rule)] += 1
    return PowerPoint(patients, split_patients(population, patients)[0] if population.by_class else None, verdicts)


def split_patients(population: Population, patients: int) -> tuple[int, int]:
    """The numbers of patients with a positive image and without one."""
    positive = round(patients * population.prevalence)
    return positive, patients - positive


def draw_copies(population: Population, patients: int, sets: int, rng: np.random.Generator) -> IntArray:
    """(B, G) how often each profile is drawn. With one label, each class has its planned number of patients."""
    if not population.by_class:
        return rng.multinomial(patients, population.share / population.share.sum(), size=sets)
    copies = np.zeros((sets, len(population.share)), dtype=np.int64)
    for n, members in zip(split_patients(population, patients), (population.positive, ~population.positive), strict=True):
        share = population.share[members]
        copies[:, members] = rng.multinomial(n, share / share.sum(), size=sets)
    return copies


def simulate_estimates(
    population: Population, copies: IntArray, sizes: FactorSizes, draws: int, rng: np.random.Generator
) -> Iterator[tuple[Estimate, Estimate]]:
    """Yields the estimates of both encoders on each drawn set (B, G)."""
    rows = population.rows
    known = population.differences()
    names = np.arange(copies[0].sum())
    sides = [[resampled_parts(rows.y, s, rows.patient, copies, names) for s in each] for each in (rows.a, rows.b)]
    presence = class_presence(rows.y, rows.patient, copies.shape[1])
    counts = np.stack([np.stack(p.count(copies)[:2], axis=1) for p in presence])  # (C, B, 2)
    for i in range(len(copies)):
        one, other = ([next(part) for part in parts] for parts in sides)
        columns, fewest = _judged(counts[:, i])
        parts_a: dict[Position, TestPart] = {}
        parts_b: dict[Position, TestPart] = {}
        for position, source, error in plan_positions(rows.positions, sizes, draws, rng):
            parts_a[position] = _move(one[source], float(known.mean() - known[source]) + error)
            parts_b[position] = other[source]
        yield tuple(Estimate(parts, fewest, columns, rows.sampled_labels) for parts in (parts_a, parts_b))  # type: ignore[misc]


def _judged(counts: IntArray) -> tuple[tuple[int, ...] | None, int]:
    """The labels of the mean and the patients in their smaller class, by the rule of a table. counts: (C, 2)."""
    enough = np.flatnonzero((counts >= MIN_PATIENTS).all(axis=1))
    columns = None if len(enough) in (0, len(counts)) else tuple(enough.tolist())
    chosen = counts if columns is None else counts[list(columns)]
    defined = chosen[(chosen > 0).all(axis=1)]
    return columns, int(defined.min()) if len(defined) else 0


def _move(part: TestPart, by: float) -> TestPart:
    """The part with all areas moved by an error that its patients do not explain."""
    if by == 0.0:
        return part
    return TestPart(part.patients, tuple(None if p is None else replace(p, area=min(max(p.area + by, 0.0), 1.0)) for p in part.labels))


def variance_per_patient(population: Population) -> float:
    """The variance of the difference, times the number of test patients, when there are many; over the draws and seeds of the pilot."""
    rows, share = population.rows, population.share
    weight, parts = share[rows.patient], rows.a.shape[0] * rows.a.shape[2]
    error = np.zeros(len(share))
    for scores, sign in ((rows.a, 1), (rows.b, -1)):
        for repeat in scores:
            for y, s in zip(rows.y.T, repeat.T, strict=True):
                error += sign * np.bincount(rows.patient, weights=weighted_errors(sort_rows(y, s), weight), minlength=len(share)) / parts
    return float((share * error**2).sum())
