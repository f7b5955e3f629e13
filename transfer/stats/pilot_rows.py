"""Scored pilot patients of two encoders.

Shapes: N rows, C labels, R repeats (draws of the labeled patients and protocol seeds), G patients or profiles.
"""

from dataclasses import dataclass, replace

import numpy as np

from encoders.runtime.arrays import Array, FloatArray, IntArray
from encoders.runtime.random import Purpose, generator
from transfer.stats.factors import Position

PLAN_WORD = 28  # keeps the random numbers of planned studies apart from those of other resampling


@dataclass(frozen=True)
class PilotRows:
    """Pilot test rows. y: (N, C), NaN unknown.  a, b: (R, N, C) scores of both encoders.  patient: (N,) codes from 0.

    positions: draw and seed of each repeat.  sampled_labels: the labeled patients are a sample of the train part."""

    y: Array
    a: FloatArray
    b: FloatArray
    patient: IntArray
    positions: tuple[Position, ...] = (Position(),)
    sampled_labels: bool = False

    def __post_init__(self) -> None:
        assert self.a.shape == self.b.shape == (len(self.positions), *self.y.shape)

    @property
    def patients(self) -> int:
        """The number of patients, or of profiles."""
        return int(self.patient.max()) + 1

    def take(self, rows: Array, patient: Array) -> "PilotRows":
        """The pilot with these rows only, of these patients."""
        return replace(self, y=self.y[rows], a=self.a[:, rows], b=self.b[:, rows], patient=patient)


def limit_images(pilot: PilotRows, most: int, seed: int = 0) -> tuple[PilotRows, FloatArray]:
    """The pilot with at most `most` rows of a patient, and (G,) the weight of each profile that then stands for a patient.

    The rows of a patient with more are divided at random into as many profiles of `most` rows as fit, with equal weights. Each image of the
    patient is left out with the same probability."""
    rng = generator(seed, Purpose.BOOTSTRAP, PLAN_WORD, 0)
    rows: list[int] = []
    profile: list[int] = []
    weight: list[float] = []
    for own in np.split(np.argsort(pilot.patient, kind="stable"), np.cumsum(np.bincount(pilot.patient))[:-1]):
        groups = max(len(own) // most, 1)
        for group in np.array_split(rng.permutation(own)[: groups * most], groups):
            rows += group.tolist()
            profile += [len(weight)] * len(group)
            weight.append(1 / groups)
    return pilot.take(np.array(rows), np.array(profile)), np.array(weight)
