"""The pooled features of a task, computed when a protocol first asks for them.

Shapes: N images of the store, M rows, D width.
"""

from typing import TYPE_CHECKING

import numpy as np

from encoders.runtime.arrays import Array
from transfer.tasks.load import LoadedTask

if TYPE_CHECKING:
    from encoders.zoo.encoder import Encoder


class LazyFeatures:
    """Pooled features of a task's store. Nothing is embedded before the first call: a bench whose records exist embeds nothing.

    batch, workers: of the embedding."""

    def __init__(self, encoder: "Encoder", loaded: LoadedTask, batch: int, workers: int):
        self.encoder, self.loaded, self.batch, self.workers = encoder, loaded, batch, workers
        self.array: Array | None = None

    def __call__(self) -> Array:
        """(N, D), one row per image of the store; rows that the task does not use may be zero."""
        if self.array is None:
            self.array = self._embed()
        return self.array

    def shifted(self, shift: str, strength: int, rows: Array) -> Array:
        """(M, D) of the given rows, with an acquisition shift applied to their images."""
        from encoders.features.embed import extract_features
        from transfer.bench.shifted_store import ShiftedStore

        store = ShiftedStore(self.loaded.store, shift, strength)
        return extract_features(self.encoder, store, index=rows, batch=self.batch, workers=self.workers)

    def _embed(self) -> Array:
        from encoders.features.embed import extract_features

        if len(self.loaded.components) > 1:
            return np.concatenate([LazyFeatures(self.encoder, task, self.batch, self.workers)() for task in self.loaded.components])
        used = np.flatnonzero(self.loaded.split.part != "")
        n = len(self.loaded.key)
        # When more than half are used: embed all, so that tasks on the same store share the cache.
        index = None if len(used) > n // 2 else used
        features = extract_features(self.encoder, self.loaded.store, index=index, batch=self.batch, workers=self.workers)
        if index is None:
            return features
        all_rows = np.zeros((n, features.shape[1]), dtype=features.dtype)
        all_rows[used] = features
        return all_rows
