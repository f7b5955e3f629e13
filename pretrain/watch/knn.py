"""Online k-NN probe: how often the nearest neighbours of a labeled image have its class. For monitoring a run, not for reporting.

A third of the patients are queries, the others are neighbours; a hash of the patient's id decides. Use images that no later test uses:
selecting a run or a step by this number selects on them.
"""

from hashlib import sha256

import numpy as np
import torch

from encoders.features.nearest import find_neighbours, vote_shares
from encoders.runtime.arrays import Array, BoolArray, IntArray
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.zoo.backbone import pooled_features
from encoders.zoo.card import Preprocess
from pretrain.methods import Method
from pretrain.watch.probe import eval_mode, map_in_batches, prepare_probe_images
from pretrain.watch.start import paired_gain

MAX_LABELED_IMAGES = 1000  # labeled images used: a measurement should take about as long as a training step
VOTE_TEMPERATURE = 0.07  # of the votes; Wu et al. 2018 (arXiv:1805.01978)


class OnlineKnn:
    """Measures the balanced accuracy of a k-NN vote on labeled images, and its difference to that of the start."""

    def __init__(self, path: str, label: str, k: int, preprocess: Preprocess, device: torch.device):
        """Raises InputError for a store without that label, or with fewer than two classes among queries or neighbours."""
        store = Store.open(path)
        y = store.labels(label)
        rows = np.flatnonzero(~np.isnan(y))
        rows = rows[np.linspace(0, len(rows) - 1, min(MAX_LABELED_IMAGES, len(rows))).round().astype(int)] if len(rows) else rows
        self.rows, patients = rows, store.column("patient")[rows].astype(str)
        self.is_query = np.array([is_query_patient(p) for p in patients], dtype=bool)
        self.classes, self.y = np.unique(y[rows], return_inverse=True)
        for side in (self.is_query, ~self.is_query):
            if len(self.classes) < 2 or set(self.y[side]) != set(range(len(self.classes))):
                raise InputError(
                    f"watch.labeled={path}: label {label!r} has insufficient labeled patients for the k-NN probe ({len(rows)} images, "
                    f"{len(self.classes)} classes); two classes and several patients of each are needed"
                )
        self.k, self.device = min(k, int((~self.is_query).sum())), device
        self.query_patients, self.query_y = patients[self.is_query], self.y[self.is_query]
        self.images = prepare_probe_images(store, rows, preprocess)
        self.correct: BoolArray | None = None  # (queries,) at the newest measurement; None if a feature was NaN or inf
        self.start: BoolArray | None = None  # (queries,) at the start; None if unknown

    def measure(self, method: Method) -> dict[str, float]:
        """`watch/knn`, the balanced accuracy; `watch/knn_gain`, that minus the start's, with its standard error over patients.

        NaN if a feature is NaN or inf."""
        with eval_mode(method):
            features = map_in_batches(lambda part: pooled_features(method.encoder(), part), self.device, self.images)
        assert features is not None
        x, query = features.numpy(), self.is_query
        if not np.isfinite(x).all():
            self.correct = None
            return {"watch/knn": float("nan")}
        self.correct = knn_predictions(x[~query], self.y[~query], x[query], self.k) == self.query_y
        metrics = {"watch/knn": balanced_accuracy(self.correct, self.query_y)}
        if self.start is not None:
            gain = paired_gain(self.correct, self.start, self.query_y, self.query_patients)
            metrics["watch/knn_gain"], metrics["watch/knn_gain_se"] = gain
        return metrics


def is_query_patient(patient: str) -> bool:
    """Whether images of this patient are queries: a third of all patients."""
    return sha256(patient.encode()).digest()[0] % 3 == 0


def knn_predictions(train: Array, train_y: IntArray, test: Array, k: int) -> IntArray:
    """(M,) predicted classes.  train: (N, D).  train_y: (N,) 0, 1, ...  test: (M, D)."""
    similarity, index = find_neighbours(train, test, k)
    shares = vote_shares(np.exp((similarity - 1) / VOTE_TEMPERATURE), np.eye(int(train_y.max()) + 1)[train_y], index)
    predicted: IntArray = shares.argmax(axis=1)
    return predicted


def balanced_accuracy(correct: BoolArray, y: IntArray) -> float:
    """Mean over classes of the share of correct predictions: 1 / classes by chance.  correct, y: (M,)."""
    return float(np.mean([correct[y == c].mean() for c in np.unique(y)]))


def knn_balanced_accuracy(train: Array, train_y: IntArray, test: Array, test_y: IntArray, k: int) -> float:
    """The balanced accuracy of a k-NN vote.  train, test: (N, D).  *_y: (N,) 0, 1, ..."""
    return balanced_accuracy(knn_predictions(train, train_y, test, k) == test_y, test_y)
