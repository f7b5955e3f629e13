"""The pooled features of a task, computed when a protocol first asks for them, and read from their file row by row.

Shapes: N images of the store, M rows, D width.
"""

import mmap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from encoders.runtime.arrays import Array
from transfer.tasks.load import LoadedTask

if TYPE_CHECKING:
    from encoders.store.store import Store
    from encoders.zoo.encoder import Encoder

READ_BYTES = 4 * 2**20  # of a file's features that are in memory at a time


class FeatureRows:
    """The (N, D) features of some stores, of which `[rows]` copies rows into memory. The others stay in their files."""

    def __init__(self, parts: Sequence[Array], places: Sequence[Array]):
        """parts: (n, D) arrays or memory maps.  places: for each part, the row of it (n',) that holds each image of its store; -1: none."""
        self.parts = parts
        self.part = np.repeat(np.arange(len(parts)), [len(p) for p in places])  # (N,)
        self.place = np.concatenate(places)  # (N,)

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, rows: Array) -> Array:
        """(M, D) float32 of the given rows, by index. Raises IndexError for a row whose features were not computed."""
        if (self.place[rows] < 0).any():
            raise IndexError(
                f"{int((self.place[rows] < 0).sum())} of {len(rows)} rows have no features: the task's split does not use them"
            )
        out = np.empty((len(rows), self.parts[0].shape[1]), dtype=np.float32)
        for number, features in enumerate(self.parts):
            wanted = np.flatnonzero(self.part[rows] == number)
            wanted = wanted[np.argsort(self.place[rows[wanted]], kind="stable")]  # the file is read from its start to its end
            step = max(1, READ_BYTES // (4 * out.shape[1]))
            for at in range(0, len(wanted), step):
                some = wanted[at : at + step]
                out[some] = features[self.place[rows[some]]]
                release_pages(features)
        return out


def release_pages(features: Array) -> None:
    """Lets the system take back the pages of a memory map that have been read; they stay in its file cache."""
    if isinstance(features.base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        features.base.madvise(mmap.MADV_DONTNEED)


class LazyFeatures:
    """Pooled features of a task's store. Nothing is embedded before the first call: a bench whose records exist embeds nothing.

    batch, workers: of the embedding; workers None: as many as `encoders.loading.worker_count` chooses for the store.  progress: called with
    the number of images embedded since its last call."""

    def __init__(
        self, encoder: "Encoder", loaded: LoadedTask, batch: int, workers: int | None, progress: Callable[[int], None] | None = None
    ):
        self.encoder, self.loaded, self.batch, self.workers, self.progress = encoder, loaded, batch, workers, progress
        self.features: FeatureRows | None = None

    def __call__(self) -> FeatureRows:
        """The features of the images that the task uses, by row of its store."""
        if self.features is None:
            self.features = FeatureRows(*zip(*(self._embed(task) for task in self.loaded.components), strict=True))
        return self.features

    def shifted(self, shift: str, strength: int, rows: Array) -> Array:
        """(M, D) of the given rows, with an acquisition shift applied to their images."""
        from encoders.features.embed import extract_features
        from transfer.bench.shifted_store import ShiftedStore

        store = ShiftedStore(self.loaded.store, shift, strength)
        return extract_features(self.encoder, store, index=rows, batch=self.batch, workers=self._count_workers(store))

    def _count_workers(self, store: "Store") -> int:
        from encoders.loading.worker_count import choose_worker_count

        return choose_worker_count(self.workers, self.encoder.device, store)

    def _embed(self, task: LoadedTask) -> tuple[Array, Array]:
        """Features (n, D) of a component's store, and the row of them (N,) that holds each of its images; -1: none."""
        from encoders.features.embed import extract_features, feature_cache_path

        n, used = len(task.key), np.flatnonzero(task.split.part != "")
        # When more than half are used: embed all, so that tasks on the same store share the cache.
        whole = len(used) > n // 2 or feature_cache_path(self.encoder, task.store, "pooled").is_file()
        index = None if whole else used
        workers = self._count_workers(task.store)
        features = extract_features(
            self.encoder, task.store, index=index, batch=self.batch, workers=workers, mapped=True, progress=self.progress
        )
        if index is None:
            return features, np.arange(n)
        place = np.full(n, -1)
        place[used] = np.arange(len(used))
        return features, place
