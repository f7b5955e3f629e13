"""One metric of scored test parts as contributions of patients, and its mean over labels, draws and folds.

A metric is represented by its value and by what the rows of each patient contribute to its error (`AreaComponents`). Test parts are joined
by the names of their patients: draws of one fold share their patients, so errors are averaged per patient; folds have different patients,
so their errors add.

Shapes: N rows, C labels, G patients.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from encoders.runtime.arrays import Array, IntArray
from transfer.stats.delong import AreaComponents, area_components, mean_components
from transfer.stats.factors import Position
from transfer.stats.patients import name_patients, to_columns
from transfer.stats.placement_components import fill_lone_patients

# Labels (N, C), scores (N, C), patients as integers (N,) below n, n -> the components of every label, None for a single class.
Measure = Callable[[Array, Array, Array, int], Sequence[AreaComponents | None]]


@dataclass(frozen=True)
class TestPart:
    """A metric on one scored test part. patients: (G,) sorted names, which the components of the C labels refer to."""

    __test__ = False  # not a class of tests

    patients: Array
    labels: tuple[AreaComponents | None, ...]

    def value(self, columns: Sequence[int] | None = None) -> float:
        """The mean over the labels with both classes; columns: among these labels. NaN if there is none."""
        defined = [p.area for p in self.chosen(columns)]
        return float(np.mean(defined)) if defined else float("nan")

    def chosen(self, columns: Sequence[int] | None = None) -> list[AreaComponents]:
        """The components of the labels with both classes; columns: among these labels."""
        labels = self.labels if columns is None else [self.labels[c] for c in columns]
        return [p for p in labels if p is not None]


Parts = Mapping[Position, TestPart]


def measure_areas(y: Array, s: Array, code: Array, n: int) -> list[AreaComponents | None]:
    """The AUROC of every label."""
    return [area_components(y[:, c], s[:, c], code, n) for c in range(y.shape[1])]


def measure_part(y: Array, s: Array, patient: Array, measure: Measure = measure_areas) -> TestPart:
    """A metric on one test part. y, s: (N,) or (N, C).  patient: (N,)."""
    names, code = name_patients(patient)
    return TestPart(names, tuple(measure(to_columns(y), to_columns(s), code, len(names))))


def all_patients(parts: Iterable[TestPart]) -> Array:
    """The sorted names of the patients of all parts."""
    names: list[Array] = []
    for part in parts:
        if not any(part.patients is seen or np.array_equal(part.patients, seen) for seen in names):
            names.append(part.patients)
    return names[0] if len(names) == 1 else np.unique(np.concatenate(names))


def pool_parts(parts: Parts, columns: Sequence[int] | None = None, patients: Array | None = None) -> AreaComponents | None:
    """The components of the mean over labels, then over the parts of each fold, then over folds. Parts with a single class are ignored.

    columns: the labels of the mean; None: all.  patients: the names that the components refer to; None: those of these parts.
    Returns None when every part has a single class."""
    names = all_patients(parts.values()) if patients is None else patients
    folds: dict[int, list[AreaComponents]] = {}
    for position, part in parts.items():
        defined = part.chosen(columns)
        if defined:
            folds.setdefault(position.fold, []).append(align_components(mean_components(defined), part.patients, names))
    if not folds:
        return None
    means = [mean_components(draws) for draws in folds.values()]
    area = float(np.mean([p.area for p in means]))
    means = [fill_lone_patients(p, area, len(means)) for p in means]
    a, b, c = np.sum([(p.n_positive, p.n_negative, p.n) for p in means], axis=0)
    return replace(mean_components(means), n_positive=int(a), n_negative=int(b), n=int(c))


def align_components(p: AreaComponents, own: Array, names: Array) -> AreaComponents:
    """The components with one entry for each of `names`, 0 for patients without rows. own: (G,) the patients of `p`, sorted."""
    if own is names or np.array_equal(own, names):
        return p
    at: IntArray = np.searchsorted(names, own)
    positive, negative = np.zeros(len(names)), np.zeros(len(names))
    positive[at], negative[at] = p.positive, p.negative
    return replace(p, positive=positive, negative=negative)
