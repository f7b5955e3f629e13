"""Draws of the labeled patients and protocol seeds of a planned study, whose variation is taken from the pilot.

The difference of a draw or seed has an error of its own, besides that of the test patients. A normal number with the standard deviation
between the pilot's draws or seeds stands for it; what the pilot's test patients explain of that deviation is subtracted, because every
simulated test set brings its own.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from transfer.stats.delong import area_variance, mean_components
from transfer.stats.factors import Factor, Position, draw_of, seed_of
from transfer.stats.parts import measure_part
from transfer.stats.pilot_rows import PilotRows
from transfer.stats.placement_components import AreaComponents


@dataclass(frozen=True)
class FactorSizes:
    """Standard deviations of a paired difference between draws of the labeled patients, and between protocol seeds."""

    draws: float = 0.0
    seeds: float = 0.0


def difference_components(pilot: PilotRows) -> list[AreaComponents]:
    """The components of the difference, mean over labels, of each repeat of the pilot itself."""
    both = [[measure_part(pilot.y, s, pilot.patient).chosen() for s in each] for each in (pilot.a, pilot.b)]
    return [mean_components(a) - mean_components(b) for a, b in zip(*both, strict=True)]


def estimate_factor_sizes(pilot: PilotRows) -> FactorSizes:
    """How much the difference varies between the pilot's draws and seeds, beyond what its finitely many test patients explain."""
    each = difference_components(pilot)
    return FactorSizes(*(_factor_size(pilot.positions, each, factor) for factor in (draw_of, seed_of)))


def _factor_size(positions: Sequence[Position], each: Sequence[AreaComponents], factor: Factor) -> float:
    levels: dict[int, list[AreaComponents]] = defaultdict(list)
    for position, p in zip(positions, each, strict=True):
        levels[factor(position)].append(p)
    if len(levels) < 2:
        return 0.0
    means = [mean_components(same) for same in levels.values()]
    whole = mean_components(means)
    observed = float(np.var([p.area for p in means], ddof=1))
    of_patients = sum(area_variance(p - whole)[0] for p in means) / (len(means) - 1)
    return float(np.sqrt(max(observed - of_patients, 0.0)))


def plan_positions(
    pilot: Sequence[Position], sizes: FactorSizes, draws: int, rng: np.random.Generator
) -> list[tuple[Position, int, float]]:
    """For each planned draw and seed: its position, the repeat of the pilot that its scores come from, and the error of its difference."""
    known, seeds = sorted({p.draw for p in pilot}), sorted({p.seed for p in pilot})
    if len(pilot) == draws == 1:
        return [(pilot[0], 0, 0.0)]
    sources = np.resize(rng.permutation(known), draws)
    of_draw, of_seed = rng.normal(0, sizes.draws, draws), rng.normal(0, sizes.seeds, len(seeds))
    where = {(p.draw, p.seed): i for i, p in enumerate(pilot)}
    return [
        (Position(draw=k, seed=seed), where[int(source), seed], float(of_draw[k] + of_seed[j]))
        for k, source in enumerate(sources)
        for j, seed in enumerate(seeds)
    ]
