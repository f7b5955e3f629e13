"""Features of a whole store, computed once: the cache knows them by the encoder, the pixels and the kind of features.

Shapes: N images, B a batch, D width, T tokens.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from encoders.runtime import dist
from encoders.runtime.config import json_digest
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.runtime.paths import cache_dir
from encoders.runtime.shard_work import gather_pieces, take_rank_pieces
from encoders.store.store import Store
from encoders.zoo.card import Preprocess
from encoders.zoo.encoder import Encoder, FeatureKind
from encoders.zoo.preprocess import prepare_input

VERSION = 2  # of what stands in a cached file: raise it when `features` would give other numbers


def extract_features(
    encoder: Encoder,
    store: Store,
    kind: FeatureKind = "pooled",
    index: ArrayLike | None = None,
    batch: int = 64,
    workers: int = 0,
    cache: bool = True,
    progress: Callable[[int], None] | None = None,
    ranks: bool = False,
) -> NDArray[np.float32]:
    """(N, D) pooled features or (N, T, D) tokens of the images of a store, or of its rows `index`, in that order.

    progress: called with the number of images done.  Tokens come as a read-only view of the cached file, as they may exceed memory.
    With the features of the whole store in the cache, those of any rows are taken from there. What `batch` and `workers` are changes
    no number beyond the last bits.  ranks: all ranks of the process group call this and share the work; the main rank alone gets the
    features and writes them, the same bytes as one process, and the others get an empty array."""
    rows = np.arange(len(store)) if index is None else np.asarray(index, np.int64).reshape(-1)
    if not len(rows):
        raise InputError(f"there is no image to embed in {store.paths[0]}")
    path = feature_cache_path(encoder, store, kind, None if index is None else rows)
    writes = not ranks or dist.is_main()
    found = _load_cached_rows(encoder, store, kind, rows, path) if cache and writes else None
    if found is not None and progress:
        progress(len(rows))
    if dist.any_rank(found is not None, encoder.device) if ranks else found is not None:
        return _empty_features() if found is None else found
    batches = _feature_batches(encoder, kind, store, rows, batch, workers, progress, ranks)
    if not writes:
        for _ in batches:
            pass  # its rows are with the main rank
        return _empty_features()
    if not cache:
        return _fill_memory(batches, len(rows))
    with atomic_write(path) as temporary:
        _fill_file(temporary, batches, len(rows))
    made = _load_cached(path, kind, len(rows))
    assert made is not None, "what was just written can be read"
    return made


def _empty_features() -> NDArray[np.float32]:
    return np.empty((0,), np.float32)


def feature_cache_path(encoder: Encoder, store: Store, kind: FeatureKind, rows: NDArray[np.int64] | None = None) -> Path:
    """The cached file of these features."""
    parts = [VERSION, encoder.sha256, store.fingerprint, str(store.attrs.get("unit")), kind, torch.__version__.split("+")[0]]
    if rows is not None:
        parts.append(hashlib.sha256(rows.tobytes()).hexdigest())
    return cache_dir() / "features" / f"{json_digest(parts, 32)}.npy"


def _load_cached_rows(encoder: Encoder, store: Store, kind: FeatureKind, rows: NDArray[np.int64], path: Path) -> NDArray[np.float32] | None:
    """The features of `rows` in the cached file of the whole store, or in `path`."""
    whole = feature_cache_path(encoder, store, kind)
    found = _load_cached(whole, kind, len(store))
    if found is None:
        return _load_cached(path, kind, len(rows))
    return found if path == whole else found[rows]


def _load_cached(path: Path, kind: FeatureKind, rows: int) -> NDArray[np.float32] | None:
    """The features in a file; None when there is none, or another program damaged it."""
    try:
        found = np.load(path, mmap_mode="r" if kind == "tokens" else None)
    except (FileNotFoundError, ValueError, EOFError):
        return None
    return found if len(found) == rows else None


def _feature_batches(
    encoder: Encoder,
    kind: FeatureKind,
    store: Store,
    rows: NDArray[np.int64],
    batch: int,
    workers: int,
    progress: Callable[[int], None] | None,
    ranks: bool,
) -> Iterator[NDArray[np.float32]]:
    """The features batch by batch, or a round of the ranks' batches at a time."""
    parts = [rows[i : i + batch] for i in range(0, len(rows), batch)]
    images = _PreparedBatches(store, encoder.card.preprocess, take_rank_pieces(parts) if ranks else parts)
    made = (encoder.forward(x.to(encoder.device), kind) for x in DataLoader(images, batch_size=None, num_workers=workers))
    for out in gather_pieces(made, batch, len(rows)) if ranks else made:
        if progress:
            progress(len(out))
        yield out.cpu().numpy()


def _fill_memory(batches: Iterator[NDArray[np.float32]], rows: int) -> NDArray[np.float32]:
    return _fill_array(batches, lambda shape: np.empty((rows, *shape), np.float32))


def _fill_file(path: Path, batches: Iterator[NDArray[np.float32]], rows: int) -> None:
    made = _fill_array(batches, lambda shape: np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(rows, *shape)))
    made.flush()  # type: ignore[attr-defined]


def _fill_array(batches: Iterator[NDArray[np.float32]], make: Callable[[tuple[int, ...]], NDArray[np.float32]]) -> NDArray[np.float32]:
    """The batches one after the other in an array made once their shape is known."""
    out, at = None, 0
    for x in batches:
        out = make(x.shape[1:]) if out is None else out
        out[at : at + len(x)] = x
        at += len(x)
    assert out is not None, "no rows were refused before"
    return out


class _PreparedBatches(Dataset[Tensor]):
    """Batches of a store as model input; images of unlike sizes are prepared one by one."""

    def __init__(self, store: Store, preprocess: Preprocess, rows: list[NDArray[np.int64]]):
        """rows: of each batch."""
        self.store, self.preprocess, self.rows = store, preprocess, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Tensor:
        if i >= len(self.rows):
            raise IndexError(i)
        rows = self.rows[i]
        groups = [rows] if self.store.shape else [rows[j : j + 1] for j in range(len(rows))]
        return torch.cat([prepare_input(self.store.unit_images(group), self.preprocess) for group in groups])  # (B, K, S, S)


def read_encoder_sha256(out: Path) -> str | None:
    """The SHA-256 of the encoder whose features a file holds; None where it is torn, or holds none."""
    import h5py

    try:
        with h5py.File(out, "r") as file:
            return file.attrs.get("encoder_sha256")  # type: ignore[no-any-return]
    except OSError:
        return None


def check_replaceable(out: Path) -> None:
    """Raises InputError when a file is not one of features: a mistyped name must not cost a store."""
    if read_encoder_sha256(out) is None:
        raise InputError(f"{out} exists and holds no features of an encoder; write to another name")


def write_features(out: Path, features: NDArray[np.float32], encoder: Encoder, store: Store, kind: FeatureKind) -> None:
    """An HDF5 file with /features, /key and /patient, row by row, and in its attributes what they were made from."""
    import h5py

    with atomic_write(out) as part, h5py.File(part, "w") as file:
        file.create_dataset("features", data=features)
        for column in ("key", "patient"):
            file.create_dataset(column, data=[str(value) for value in store.column(column)], dtype=h5py.string_dtype())
        made_of = {"encoder": encoder.card.name, "encoder_sha256": encoder.sha256, "store_fingerprint": store.fingerprint, "kind": kind}
        file.attrs.update({**made_of, "dataset": store.dataset})


def default_device() -> str:
    """This process's GPU where there is one."""
    return dist.local_gpu() if torch.cuda.is_available() else "cpu"
