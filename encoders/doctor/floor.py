"""How well the statistics of `pixels` predict a label, by cross-validation over patients.

An AUROC above `report.HIGH_FLOOR` says that images of the classes differ in brightness, contrast, framing or stain. That may be the
disease, and is more often the acquisition: another device, site or protocol (DeGrave et al. 2021, doi:10.1038/s42256-021-00338-7).

The probe is an L2 logistic regression on standardised features at one fixed penalty, so that nothing is selected. Patients are dealt to
FOLDS folds, each class on its own; the AUROC is over the scores of all folds, standardised within a fold.

Shapes: N images, D features, F folds.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.doctor.report import FloorSummary
from encoders.runtime.arrays import Array, BoolArray, FloatArray, IntArray
from encoders.runtime.random import Purpose, permutation
from encoders.store.store import Store
from encoders.zoo.pixels import pixel_features
from encoders.zoo.preprocess import to_channels_first

FEWEST_PATIENTS = 20  # of each class: with fewer, chance alone often gives a high AUROC
FOLDS = 5
SAMPLE = 2000  # images: the standard error of the AUROC is then about .012
PENALTY = 100.0  # 1 / C of scikit-learn: strong, as there may be more features than patients
NEWTON_STEPS = 12
READ_AT_ONCE = 64


def measure_floors(store: Store, labels: Sequence[str] | None = None, sample: int = SAMPLE) -> list[FloorSummary]:
    """The floor of every label of the store that has two or more values with FEWEST_PATIENTS patients each; of `labels` only, if given.

    A label with several values gives one floor: the mean over its values, each against the others. Numbers that are not 0 or 1 are left
    out unless the store names them. sample: at most this many images, evenly spread over those whose label is known."""
    people, floors = store.people(), []
    known_features: dict[int, FloatArray] = {}
    for name in store.label_names() if labels is None else labels:
        values = store.labels(name)
        distinct = np.unique(values[~np.isnan(values)])
        if store.classes(name) is None and not set(distinct.tolist()) <= {0.0, 1.0}:
            continue
        rows = spread_rows(np.flatnonzero(~np.isnan(values)), sample)
        new = np.array([row for row in rows.tolist() if row not in known_features], dtype=np.int64)
        if can_measure_floor(values[rows], people[rows]):
            known_features |= dict(zip(new.tolist(), read_pixel_features(store, new), strict=True))
            x = np.stack([known_features[row] for row in rows.tolist()])
            floors.append(measure_floor(name, x, values[rows], people[rows]))
    return floors


def measure_floor(label: str, x: FloatArray, values: Array, people: Array) -> FloorSummary:
    """The floor of one label that `can_measure_floor`. x: (N, D).  values: (N,).  people: (N,) patients."""
    judged = _judged_values(values, people)
    positives = judged[1:] if set(judged) == {0.0, 1.0} else judged
    areas = [area_under_curve(values == v, cross_validated_scores(x, values == v, people)) for v in positives]
    return {"label": label, "auroc": round(float(np.mean(areas)), 4), "images": len(x), "patients": len(set(people.tolist()))}


def can_measure_floor(values: Array, people: Array) -> bool:
    """Whether some value of a label has FEWEST_PATIENTS patients with it and as many without it.  values, people: (N,)."""
    return bool(_judged_values(values, people))


def _judged_values(values: Array, people: Array) -> list[float]:
    """The values of a label with FEWEST_PATIENTS patients each who have it, and as many who do not; ascending."""
    kept = []
    for value in np.unique(values).tolist():
        inside, outside = (len(set(people[mask].tolist())) for mask in (values == value, values != value))
        kept += [value] if min(inside, outside) >= FEWEST_PATIENTS else []
    return kept


def spread_rows(rows: IntArray, most: int) -> IntArray:
    """At most `most` of the rows, evenly spread."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def read_pixel_features(store: Store, rows: IntArray) -> FloatArray:
    """(N, D) features of `pixels` of the given rows."""
    chunks = [rows[i : i + READ_AT_ONCE] for i in range(0, len(rows), READ_AT_ONCE)]
    groups = [group for chunk in chunks for group in ([chunk] if store.shape else [chunk[i : i + 1] for i in range(len(chunk))])]
    parts = [pixel_features(to_channels_first(store.unit_images(group))) for group in groups]
    return torch.cat(parts).double().numpy() if parts else np.empty((0, 0))


def cross_validated_scores(x: FloatArray, y: BoolArray, people: Array) -> FloatArray:
    """(N,) scores of a probe that was fitted on the other folds' patients, standardised within each fold."""
    fold = deal_patients(y, people)
    scores = np.zeros(len(x))
    for f in range(FOLDS):
        test = fold == f
        z = fit_logistic(x[~test], y[~test])(x[test])
        scores[test] = (z - z.mean()) / max(float(z.std()), 1e-12)
    return scores


def deal_patients(y: BoolArray, people: Array) -> IntArray:
    """(N,) fold of every image: patients with a positive image, and those without, are dealt to the folds in a fixed random order."""
    names, of = np.unique(people.astype(str), return_inverse=True)
    positive = np.bincount(of, weights=y) > 0
    fold = np.zeros(len(names), dtype=np.int64)
    for start, group in ((0, np.flatnonzero(positive)), (FOLDS // 2, np.flatnonzero(~positive))):
        fold[group[permutation(0, Purpose.SPLIT, start, len(group))]] = (np.arange(len(group)) + start) % FOLDS
    return np.asarray(fold[of], dtype=np.int64)


class LogisticMap:
    """A linear score of standardised features."""

    def __init__(self, mean: FloatArray, scale: FloatArray, w: FloatArray):
        self.mean, self.scale, self.w = mean, scale, w

    def __call__(self, x: FloatArray) -> FloatArray:
        """(M,) logits of x (M, D)."""
        z: FloatArray = (x - self.mean) * self.scale @ self.w[:-1] + self.w[-1]
        return z


def fit_logistic(x: FloatArray, y: BoolArray) -> LogisticMap:
    """L2 logistic regression on standardised features by Newton's method; the intercept has no penalty. x: (N, D).  y: (N,)."""
    mean, std = x.mean(axis=0), x.std(axis=0)
    scale = np.where(std > 1e-9, 1 / np.maximum(std, 1e-9), 0.0)  # a constant feature has no weight
    design = np.concatenate([(x - mean) * scale, np.ones((len(x), 1))], axis=1)  # (N, D + 1)
    penalty = np.full(design.shape[1], PENALTY)
    penalty[-1] = 1e-6  # keeps the system solvable if one class is missing
    w = np.zeros(design.shape[1])
    for _ in range(NEWTON_STEPS):
        p = 1 / (1 + np.exp(-np.clip(design @ w, -30, 30)))
        gradient = design.T @ (p - y) + penalty * w
        hessian = (design * (p * (1 - p))[:, None]).T @ design + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        w = w - step
        if np.abs(step).max() < 1e-8:
            break
    return LogisticMap(mean, scale, w)


def area_under_curve(y: NDArray[np.bool_], scores: FloatArray) -> float:
    """The AUROC: the share of (positive, negative) pairs in order, ties count half."""
    from scipy.stats import rankdata

    positive = int(y.sum())
    ranks = rankdata(scores)
    return float((ranks[y].sum() - positive * (positive + 1) / 2) / (positive * (len(y) - positive)))
