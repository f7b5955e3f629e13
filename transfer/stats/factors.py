"""Sampled factors: draws of the labeled patients, protocol seeds, pretraining seeds, folds and few-shot episodes.

A result is wanted for any draw and any seed, not for those that happened to be used. Their variation is independent of that of the test
patients, so the squares of the half widths add. The half width of a factor is that of the mean over its levels, from Student's t on the
standard deviation of the levels. Without this part, a verdict is about the draws and seeds that were used.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from encoders.runtime.arrays import Array
from transfer.stats.interval import Ends


class Position(NamedTuple):
    """Where a test part stands: fold, draw of the labeled patients, seed of the protocol, and index of the pretraining seed."""

    fold: int = 0
    draw: int = 0
    seed: int = 0
    checkpoint: int = 0


Factor = Callable[[Position], int]  # the level of a position


def fold_of(position: Position) -> int:
    return position.fold


def draw_of(position: Position) -> int:
    return position.draw


def seed_of(position: Position) -> int:
    return position.seed


def checkpoint_of(position: Position) -> int:
    return position.checkpoint


@dataclass(frozen=True)
class Spread:
    """The variation of one factor. variance: of the mean over its levels.  df: degrees of freedom."""

    title: str
    variance: float
    df: int

    def half_width(self, level: float) -> float:
        """Half of the interval of the mean over levels."""
        from scipy.special import stdtrit

        return float(stdtrit(self.df, (1 + level) / 2) * np.sqrt(self.variance))


def level_means(values: Mapping[Position, float], factor: Factor) -> list[float]:
    """The mean at each level of a factor, averaged over all other factors, by increasing level."""
    levels: dict[int, list[float]] = defaultdict(list)
    for position, value in values.items():
        levels[factor(position)].append(value)
    return [float(np.mean(levels[level])) for level in sorted(levels)]


def spread_of_levels(title: str, levels: Sequence[float] | Array) -> Spread | None:
    """The spread of the mean over `levels`; None for a single level."""
    if len(levels) < 2:
        return None
    return Spread(f"{len(levels)} {title}", float(np.var(levels, ddof=1)) / len(levels), len(levels) - 1)


def factor_spreads(values: Mapping[Position, float], fold_variances: Sequence[float], sampled_labels: bool) -> list[Spread]:
    """The spreads of draws, protocol seeds and folds. values: the metric, or the paired difference, at each position.

    fold_variances: the variance over test patients of each fold's value; the variation between folds that exceeds it is that of the
    training sets.  sampled_labels: the labeled patients are a sample of the train part; with one draw per fold, folds are the draws."""
    draws, seeds = level_means(values, draw_of), level_means(values, seed_of)
    if len(draws) > 1 and vary_together(values, draw_of, seed_of):  # one sample of pairs, counted once
        spreads = [spread_of_levels("draws of the labeled patients, each with its own seed", draws)]
    else:
        spreads = [spread_of_levels("draws of the labeled patients", draws), spread_of_levels("seeds of the protocol", seeds)]
    folds = level_means(values, fold_of)
    if len(folds) > 1:
        if sampled_labels and spreads[0] is None:
            spreads.append(spread_of_levels("draws of the labeled patients, one in each fold", folds))
        else:
            known = [v for v in fold_variances if not np.isnan(v)]  # not that of a fold with one patient of a class
            excess = max(float(np.var(folds, ddof=1)) - (float(np.mean(known)) if known else 0.0), 0.0)
            spreads.append(Spread(f"{len(folds)} training sets", excess / len(folds), len(folds) - 1) if excess > 0 else None)
    return [spread for spread in spreads if spread is not None]


def has_too_few_draws(values: Mapping[Position, float], sampled_labels: bool) -> bool:
    """Whether the labeled patients are a sample that was drawn only once, so that nothing is known about other draws."""
    return sampled_labels and len({(position.fold, position.draw) for position in values}) < 2


def widen_ends(ends: Ends, value: float, half_width: Callable[[float], float]) -> Ends:
    """The interval of `value`, each side widened by an independent error with the given half width."""

    def at(level: float) -> tuple[float, float]:
        low, high = ends(level)
        extra = half_width(level)
        return float(value - np.hypot(value - low, extra)), float(value + np.hypot(high - value, extra))

    return at


def widen_by_spreads(ends: Ends, value: float, spreads: Sequence[Spread]) -> Ends:
    """The interval of `value` over test patients, widened by sampled factors."""
    return widen_ends(ends, value, lambda level: float(np.sqrt(sum(s.half_width(level) ** 2 for s in spreads)))) if spreads else ends


def vary_together(values: Mapping[Position, float], one: Factor, other: Factor) -> bool:
    """Whether each level of one factor occurs with one level of the other only, and the reverse: they cannot be told apart."""
    pairs = {(one(position), other(position)) for position in values}
    return len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})


def level_std(values: Mapping[Position, float], factor: Factor) -> float:
    """Standard deviation over the levels of a factor; NaN for a single level."""
    levels = level_means(values, factor)
    return float(np.std(levels, ddof=1)) if len(levels) > 1 else float("nan")
