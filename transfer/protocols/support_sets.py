"""Support sets of few-shot episodes: the train rows of each class that an episode is given.

The sampled unit is the patient: an episode draws `shots` patients of every class and one row of each, so that 8 shots are 8 independent
patients, as in the intervals of the benchmark. A patient with rows of several classes may be drawn for each of them. With the unit "image"
rows are drawn whatever their patient, as in the literature, where several shots may show one patient.

The draw depends on the seed and on the keys, patients and labels of the train rows. It depends neither on their features nor on their
order, so every encoder gets the same support sets.

Shapes: N train rows, K classes, E episodes, S shots.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from encoders.runtime.arrays import Array, IntArray
from encoders.runtime.random import Purpose, generator
from transfer.protocols.common import Features

Unit = Literal["patient", "image"]


@dataclass(frozen=True)
class ClassRows:
    """The train rows of one class by unit. rows: (n,) indices; unit i is rows[start[i] : start[i] + size[i]]."""

    rows: IntArray
    start: IntArray
    size: IntArray

    def __len__(self) -> int:
        """The number of units."""
        return len(self.start)

    def draw(self, shots: int, random: np.random.Generator) -> IntArray:
        """(S,) one row of each of `shots` different units."""
        units = random.choice(len(self), shots, replace=False)
        drawn: IntArray = self.rows[self.start[units] + random.integers(0, self.size[units])]
        return drawn


def group_rows_by_class(train: Features, unit: Unit) -> list[list[ClassRows]]:
    """For every classification problem (one for a multi-class task, otherwise one per label): the rows of each class."""
    key, patient = (np.asarray(column).astype(str) for column in (train.key, train.patient))
    order = np.lexsort((key, patient))
    y, patient = train.y[order], patient[order]

    def group(member: Array) -> ClassRows:
        rows, names = order[member], patient[member]
        first = np.ones(len(rows), dtype=bool)
        if unit == "patient":
            first[1:] = names[1:] != names[:-1]
        start = np.flatnonzero(first)
        return ClassRows(rows, start, np.diff(start, append=len(rows)))

    if train.kind == "multiclass":
        return [[group(y[:, c] > 0.5) for c in range(y.shape[1])]]
    return [[group(y[:, c] == value) for value in (0, 1)] for c in range(y.shape[1])]


def draw_supports(problems: Sequence[Sequence[ClassRows]], shots: int, episodes: int, seed: int) -> list[IntArray]:
    """For every classification problem: (E, K, S) train rows. Raises ValueError if a class has fewer units than `shots`."""
    supports = []
    for number, classes in enumerate(problems):
        random = generator(seed, Purpose.PROBE, shots, number)
        supports.append(np.array([[rows.draw(shots, random) for rows in classes] for _ in range(episodes)]))
    return supports


def hash_supports(supports: Sequence[IntArray], key: Array) -> str:
    """16 hex digits of the keys of all support rows. key: (N,) of the train rows."""
    digests = np.array([hashlib.sha256(str(k).encode()).digest()[:16] for k in key], dtype="V16")
    total = hashlib.sha256()
    for rows in supports:
        total.update(f"{rows.shape} ".encode())
        total.update(digests[rows].tobytes())
    return total.hexdigest()[:16]
