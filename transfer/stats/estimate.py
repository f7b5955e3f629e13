"""The interval of a metric over test parts, and of a paired difference: over test patients and over all sampled factors.

Shapes: G patients, E episodes.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from transfer.stats.area_interval import area_interval
from transfer.stats.delong import AreaComponents, area_variance
from transfer.stats.difference_interval import paired_interval
from transfer.stats.factors import (
    Position,
    Spread,
    checkpoint_of,
    factor_spreads,
    has_too_few_draws,
    level_means,
    spread_of_levels,
    widen_by_spreads,
)
from transfer.stats.interval import Ends, Interval
from transfer.stats.mover_interval import mover_interval, p_value_from_interval
from transfer.stats.parts import Parts, TestPart, all_patients, pool_parts
from transfer.stats.patients import MIN_PATIENTS
from transfer.stats.verdict import Difference, build_area_difference, decide_by_p, margin_p_values, undefined_difference

Permutation = Callable[[], float]  # the p-value of a paired difference under swaps of the two encoders, patient by patient


@dataclass(frozen=True)
class Estimate:
    """A metric of one row of a table.

    parts: its test parts by position.  columns: the labels of the mean; None: all.  smaller_class: number of test patients in the smaller
    class of these labels.  sampled_labels: the labeled patients are a sample of the train part.
    episodes: (E,) few-shot: the metric of every episode, in an order that rows with equal `episodes_digest` share."""

    parts: Parts
    smaller_class: int
    columns: Sequence[int] | None = None
    sampled_labels: bool = False
    method: str = "clustered DeLong"
    episodes: FloatArray = field(default_factory=lambda: np.empty(0))
    episodes_digest: str = ""

    @property
    def note(self) -> str:
        """The warning for insufficient patients, or ""."""
        if self.smaller_class >= MIN_PATIENTS:
            return ""
        if self.smaller_class == 0:
            return "no label has patients of both classes"
        return f"insufficient patients: {self.smaller_class} in the smaller class, at least {MIN_PATIENTS} are needed"

    @property
    def values(self) -> dict[Position, float]:
        """The metric at every position where it is defined."""
        values = {position: part.value(self.columns) for position, part in self.parts.items()}
        return {position: value for position, value in values.items() if not np.isnan(value)}


def estimate_interval(e: Estimate, level: float = 0.95) -> Interval:
    """The mean of the metric with its interval. There is no interval for fewer than MIN_PATIENTS patients in a class."""
    whole = pool_parts(e.parts, e.columns)
    if whole is None:
        return Interval(np.nan, np.nan, np.nan, e.method, level, e.note)
    cells = _mean_over_checkpoints(e.values)
    spreads = factor_spreads(cells, _fold_variances(e), e.sampled_labels) + _checkpoint_spreads(e) + _episode_spreads(e.episodes)
    method = describe_method(e, spreads)
    if e.smaller_class < MIN_PATIENTS:
        return Interval(whole.area, np.nan, np.nan, method, level, e.note)
    low, high = widen_by_spreads(area_interval(whole), whole.area, spreads)(level)
    return Interval(whole.area, float(np.maximum(low, 0.0)), float(np.minimum(high, 1.0)), method, level)


def estimate_difference(
    a: Estimate, b: Estimate, level: float = 0.95, margin: float | None = None, permutation: Permutation | None = None
) -> Difference | None:
    """The metric of `a` minus that of `b` on the same test patients; None if `b` lacks a fold, draw or seed of `a`.

    margin: adds the tests against it.  permutation: gives the p-value when there are too few patients for an interval."""
    if not has_positions_of(a, b):
        return None
    paired = pair_estimates(a, b)
    if paired is None:
        return undefined_difference(a.method, level, a.note)
    value, ends, spreads = paired
    method = describe_method(a, spreads, paired=True)
    if a.smaller_class < MIN_PATIENTS:
        return _withhold_draws(_permutation_difference(value, a, level, permutation), a)
    difference = build_area_difference(value, ends(level), p_value_from_interval(ends), method, level, "")
    if margin is not None:
        equivalence, inferiority = margin_p_values(ends, margin)
        difference = replace(difference, margin=margin, equivalence_p=equivalence, inferiority_p=inferiority)
    return _withhold_draws(difference, a)


def pair_estimates(a: Estimate, b: Estimate) -> tuple[float, Ends, list[Spread]] | None:
    """The metric of `a` minus that of `b`, its interval as a function of the level, and the spreads in it; None where it is not defined.

    The interval is also given for fewer than MIN_PATIENTS patients in a class, where a verdict must not use it."""
    cells = _paired_cells(a, b)
    names = all_patients([*a.parts.values(), *b.parts.values()])
    one, other = pool_parts(a.parts, a.columns, names), pool_parts(b.parts, b.columns, names)
    if one is None or other is None or not cells:
        return None
    value = one.area - other.area
    spreads = factor_spreads(cells, _paired_fold_variances(a, b, names), a.sampled_labels) + _checkpoint_spreads(a) + _checkpoint_spreads(b)
    spreads += _paired_episode_spreads(a, b)
    return value, widen_by_spreads(paired_interval(one, other), value, spreads), spreads


def estimate_gap(a: Estimate, b: Estimate, correlation: float, level: float = 0.95) -> Difference:
    """The metric of one encoder on test images `a` minus that on other test images `b`. correlation: of the errors of the two."""
    one, other = pool_parts(a.parts, a.columns), pool_parts(b.parts, b.columns)
    fewest = a if a.smaller_class < b.smaller_class else b
    method = f"{a.method}, of two groups, MOVER"
    if one is None or other is None:
        return undefined_difference(method, level, a.note or b.note)
    value = one.area - other.area
    if fewest.smaller_class < MIN_PATIENTS:
        return replace(undefined_difference(method, level, fewest.note), value=value)
    cells = _paired_cells(a, b) or {}
    spreads = factor_spreads(cells, [], a.sampled_labels) if len({p.fold for p in cells}) < 2 else []
    ends = widen_by_spreads(mover_interval(one, other, correlation), value, spreads)
    return build_area_difference(value, ends(level), p_value_from_interval(ends), method, level, "")


def describe_method(e: Estimate, spreads: Sequence[Spread], paired: bool = False) -> str:
    """The method of an interval, as a table names it: the patients' part, then the sampled factors."""
    folds = len({position.fold for position in e.parts})
    first = f"{e.method}{f' over {folds} folds' if folds > 1 else ''}{', paired' if paired else ''}"
    return "; and ".join([first, *(["variation of " + ", ".join(s.title for s in spreads)] if spreads else [])])


def _permutation_difference(value: float, a: Estimate, level: float, permutation: Permutation | None) -> Difference:
    """A difference without an interval, decided by a permutation test."""
    if permutation is None or a.smaller_class == 0:
        return replace(undefined_difference(a.method, level, a.note), value=value)
    p = permutation()
    method = "permutation test over patients, without an interval"
    note = f"{a.smaller_class} patients in the smaller class: p-value from a permutation test over patients, no interval"
    return Difference(value, np.nan, np.nan, p, decide_by_p(value, p, level), method, level, note)


def _withhold_draws(difference: Difference, a: Estimate) -> Difference:
    """The difference without a verdict, if the labeled patients were drawn only once."""
    if not has_too_few_draws(a.values, a.sampled_labels):
        return difference
    note = "one draw of the labeled patients: the interval is about these patients only; give several with --draws"
    return replace(difference, withheld="insufficient draws", note=note)


def _mean_over_checkpoints(values: Mapping[Position, float]) -> dict[Position, float]:
    """The values by fold, draw and protocol seed, averaged over pretraining seeds."""
    cells: dict[Position, list[float]] = defaultdict(list)
    for position, value in values.items():
        cells[position._replace(checkpoint=0)].append(value)
    return {position: float(np.mean(each)) for position, each in cells.items()}


def has_positions_of(a: Estimate, b: Estimate) -> bool:
    """Whether `b` has every fold, draw and protocol seed of `a`."""
    theirs = {position._replace(checkpoint=0) for position in b.parts}
    return all(position._replace(checkpoint=0) in theirs for position in a.parts)


def _paired_cells(a: Estimate, b: Estimate) -> dict[Position, float] | None:
    """The differences by fold, draw and protocol seed; None if `b` lacks one of `a`."""
    if not has_positions_of(a, b):
        return None
    one, other = _mean_over_checkpoints(a.values), _mean_over_checkpoints(b.values)
    return {position: value - other[position] for position, value in one.items() if position in other}


def _pool_folds(e: Estimate, patients: Array | None = None) -> dict[int, AreaComponents]:
    """The components of each fold alone."""
    folds: dict[int, dict[Position, TestPart]] = {}
    for position, part in e.parts.items():
        folds.setdefault(position.fold, {})[position] = part
    pooled = {fold: pool_parts(own, e.columns, patients) for fold, own in folds.items()}
    return {fold: p for fold, p in pooled.items() if p is not None}


def _fold_variances(e: Estimate) -> list[float]:
    """The variance over test patients of each fold's value; empty for a single fold."""
    if len({position.fold for position in e.parts}) < 2:
        return []
    return [area_variance(p)[0] for p in _pool_folds(e).values()]


def _paired_fold_variances(a: Estimate, b: Estimate, names: Array) -> list[float]:
    """The variance over test patients of each fold's paired difference; empty for a single fold."""
    if len({position.fold for position in a.parts}) < 2:
        return []
    one, other = _pool_folds(a, names), _pool_folds(b, names)
    return [area_variance(p - other[fold])[0] for fold, p in one.items() if fold in other]


def _checkpoint_spreads(e: Estimate) -> list[Spread]:
    """The spread of the pretraining seeds of one row."""
    spread = spread_of_levels("pretraining seeds", level_means(e.values, checkpoint_of))
    return [] if spread is None else [spread]


def _episode_spreads(values: FloatArray) -> list[Spread]:
    """The spread of few-shot episodes."""
    spread = spread_of_levels("episodes", values)
    return [] if spread is None else [spread]


def _paired_episode_spreads(a: Estimate, b: Estimate) -> list[Spread]:
    """The spread of the episodes' differences; those of different support sets are not paired, so that their variances add."""
    if a.episodes_digest == b.episodes_digest and len(a.episodes) == len(b.episodes):
        return _episode_spreads(a.episodes - b.episodes)
    return _episode_spreads(a.episodes) + _episode_spreads(b.episodes)
