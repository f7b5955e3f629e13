"""The population that planned test sets are drawn from: pilot patients, whose areas differ by a planned amount.

It consists of profiles, the rows that a drawn patient brings along. A profile is a pilot patient, or some of the images of one. Finitely
many rows can give only some differences exactly. A planned difference between two of them is reached in the mean: a positive patient is two
profiles, one for each of two neighbouring shifts, whose probabilities give the difference.

Shapes: N rows, C labels, R repeats, G profiles.
"""

from dataclasses import dataclass, replace

import numpy as np

from encoders.runtime.arrays import BoolArray, FloatArray
from encoders.runtime.errors import InputError
from encoders.runtime.random import Purpose, generator
from transfer.stats.latent_scores import LatentScores, latent_scores
from transfer.stats.pilot_rows import PLAN_WORD, PilotRows, limit_images
from transfer.stats.weighted_placements import sort_rows, weighted_area

LARGEST_SHIFT = 16.0  # on the latent scale: separates the classes completely


@dataclass(frozen=True)
class Population:
    """rows: whose `patient` is the profile of each row.  share: (G,) expected share of each profile among the patients.

    positive: (G,) whether a profile has a positive row.  by_class: one label, so that patients are drawn from each class separately."""

    rows: PilotRows
    share: FloatArray
    positive: BoolArray
    by_class: bool

    @property
    def prevalence(self) -> float:
        """The share of patients with a positive row."""
        return float(self.share[self.positive].sum())

    def areas(self, s: FloatArray) -> FloatArray:
        """(R,) the mean area over labels of the scores (R, N, C) of one encoder, for each repeat."""
        weight, y = self.share[self.rows.patient][:, None], self.rows.y
        return np.array([np.mean([weighted_area(sort_rows(y[:, c], each[:, c]), weight) for c in range(y.shape[1])]) for each in s])

    def differences(self) -> FloatArray:
        """(R,) the area of `a` minus that of `b` for each repeat."""
        return self.areas(self.rows.a) - self.areas(self.rows.b)


def build_population(
    pilot: PilotRows, difference: float | None, prevalence: float | None = None, images: int | None = None, seed: int = 0
) -> Population:
    """The population in which the area of `a` minus that of `b` is `difference`; None: as in the pilot.

    prevalence: share of patients with a positive image, for one label; None: as in the pilot.  images: at most this many of a patient.
    `b` stays as it is; the positive rows of `a` are moved on the latent scale, by the same amount for all labels and repeats.
    Raises InputError when no shift gives the difference, because the area of `a` would have to be above 1 or below 0."""
    rows, weight = (pilot, np.ones(pilot.patients)) if images is None else limit_images(pilot, images, seed)
    start = _weigh_classes(rows, weight, prevalence)
    if difference is None:
        return start
    rng = generator(seed, Purpose.BOOTSTRAP, PLAN_WORD, 1)
    latent = [[latent_scores(s[:, c], rng) for c in range(s.shape[1])] for s in rows.a]
    low, high = _enclose(start, latent, difference)
    below, above = float(np.mean(low.differences())), float(np.mean(high.differences()))
    part = (difference - below) / (above - below) if above - below > 1e-12 else 0.0  # 1e-12: rounding
    return _mix(low, high, part)


def _weigh_classes(rows: PilotRows, weight: FloatArray, prevalence: float | None) -> Population:
    """The population of profiles with these weights, whose classes have the planned shares."""
    positive = np.bincount(rows.patient, weights=(rows.y == 1).any(axis=1), minlength=len(weight)) > 0
    share, by_class = weight / weight.sum(), rows.y.shape[1] == 1
    if prevalence is not None:
        assert by_class
        of_positive = float(share[positive].sum())
        share = np.where(positive, share * prevalence / of_positive, share * (1 - prevalence) / (1 - of_positive))
    return Population(rows, share, positive, by_class)


def _enclose(start: Population, latent: list[list[LatentScores]], difference: float) -> tuple[Population, Population]:
    """The populations of the largest shift below the difference and of the smallest above it."""

    def moved(shift: float) -> Population:
        y = start.rows.y
        a = np.stack([np.stack([z.shifted(shift, y[:, c] == 1) for c, z in enumerate(each)], axis=1) for each in latent])
        return replace(start, rows=replace(start.rows, a=a))

    area = float(np.mean(start.areas(start.rows.b)))

    def reached(shift: float) -> float:
        return float(np.mean(start.areas(moved(shift).rows.a))) - area

    low, high = -LARGEST_SHIFT, LARGEST_SHIFT
    if not reached(low) <= difference <= reached(high):
        raise InputError(
            f"a difference of {difference:+g} is not possible: the reference has AUROC {area:.3f} in the pilot, so that the encoder "
            f"would need {area + difference:.3f}; differences from {-area:.3f} to {1 - area:.3f} are possible"
        )
    while high - low > 1e-9:  # latent units; far below the distance of two rows
        middle = (low + high) / 2
        low, high = (middle, high) if reached(middle) <= difference else (low, middle)
    return moved(low), moved(high)


def _mix(low: Population, high: Population, part: float) -> Population:
    """The population in which each profile with a positive row is that of `high` with probability `part`, and else that of `low`."""
    extra = np.flatnonzero(low.positive)  # profiles that stand twice
    number = np.full(len(low.share), -1)
    number[extra] = len(low.share) + np.arange(len(extra))
    again = np.flatnonzero(low.positive[low.rows.patient])
    rows, copies = low.rows, number[low.rows.patient[again]]
    joined = replace(
        rows,
        y=np.concatenate([rows.y, rows.y[again]]),
        a=np.concatenate([rows.a, high.rows.a[:, again]], axis=1),
        b=np.concatenate([rows.b, rows.b[:, again]], axis=1),
        patient=np.concatenate([rows.patient, copies]),
    )
    kept = np.where(low.positive, low.share * (1 - part), low.share)
    return replace(
        low, rows=joined, share=np.concatenate([kept, low.share[extra] * part]), positive=np.append(low.positive, low.positive[extra])
    )
