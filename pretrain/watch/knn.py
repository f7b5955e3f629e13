"""An online probe on labels: how often the neighbours of an image are of its class. To watch a run by, not to report.

A third of the patients ask, the others answer; which, is a function of the patient's name. Give images that no later test will use:
whoever picks a run or a step by this number has selected on them.
"""

from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from encoders.features.nearest import find_neighbours, vote_shares
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.zoo.backbone import pooled_features
from encoders.zoo.card import Preprocess
from pretrain.watch.probe import eval_mode, map_in_batches, prepare_probe_images

MAX_LABELED_IMAGES = 1000  # labeled images used: a look should cost about a training step
VOTE_TEMPERATURE = 0.07  # of the votes; Wu et al. 2018 (arXiv:1805.01978)


class OnlineKnn:
    """`look(method)`: mean over classes of the share of asking images that their neighbours name rightly."""

    def __init__(self, path: str, label: str, k: int, preprocess: Preprocess, device: torch.device):
        """Raises InputError for a store without that label, or with fewer than two classes on either side."""
        store = Store.open(path)
        y = store.labels(label)
        rows = np.flatnonzero(~np.isnan(y))
        rows = rows[np.linspace(0, len(rows) - 1, min(MAX_LABELED_IMAGES, len(rows))).round().astype(int)] if len(rows) else rows
        self.asks = np.array([is_query_patient(str(p)) for p in store.column("patient")[rows]], dtype=bool)
        self.classes, self.y = np.unique(y[rows], return_inverse=True)
        for side in (self.asks, ~self.asks):
            if len(self.classes) < 2 or set(self.y[side]) != set(range(len(self.classes))):
                raise InputError(
                    f"watch.labeled={path}: label {label!r} has too few labeled patients to watch by ({len(rows)} images, "
                    f"{len(self.classes)} classes); two classes and several patients of each are needed"
                )
        self.k, self.device = min(k, int((~self.asks).sum())), device
        self.images = prepare_probe_images(store, rows, preprocess)

    def look(self, method: Any) -> dict[str, float]:
        with eval_mode(method):
            found = map_in_batches(lambda part: pooled_features(method.encoder(), part), self.device, self.images)
        assert found is not None
        x = found.numpy()
        if not np.isfinite(x).all():
            return {"watch/knn": float("nan")}
        return {"watch/knn": knn_balanced_accuracy(x[~self.asks], self.y[~self.asks], x[self.asks], self.y[self.asks], self.k)}


def is_query_patient(patient: str) -> bool:
    return sha256(patient.encode()).digest()[0] % 3 == 0


def knn_balanced_accuracy(train: NDArray[Any], train_y: NDArray[Any], test: NDArray[Any], test_y: NDArray[Any], k: int) -> float:
    """Mean over classes of the share that is named rightly: 1 / classes by chance.  train, test: (N, D).  *_y: (N,) 0, 1, ..."""
    near, index = find_neighbours(train, test, k)
    said = vote_shares(np.exp((near - 1) / VOTE_TEMPERATURE), np.eye(int(train_y.max()) + 1)[train_y], index).argmax(axis=1)
    return float(np.mean([(said[test_y == c] == c).mean() for c in np.unique(test_y)]))
