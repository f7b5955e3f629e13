"""Features of a store, computed once: the cache key is the encoder, its precision, the pixels and the kind of features.

Features are stored as float32 whatever their precision. Those in bf16 have files of their own.

Shapes: N images, D width, T tokens.
"""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from encoders.features.input_batches import iterate_inputs
from encoders.features.match_features import read_stored_features
from encoders.runtime import dist
from encoders.runtime.cached_array import read_cached_array, write_cached_array
from encoders.runtime.config import json_digest
from encoders.runtime.device_copies import fetch_one_late
from encoders.runtime.errors import InputError
from encoders.runtime.hdf5_file import atomic_hdf5
from encoders.runtime.paths import cache_dir
from encoders.runtime.shard_work import gather_pieces, take_rank_pieces
from encoders.store.store import Store
from encoders.store.verified import require_intact
from encoders.zoo.encoder import Encoder, FeatureKind
from encoders.zoo.parts import join_features, require_pooled
from encoders.zoo.stored_features import StoredFeatures

VERSION = 2  # of the cached features: increase it when `extract_features` would give other values


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
    mapped: bool = False,
) -> NDArray[np.float32]:
    """(N, D) pooled features or (N, T, D) tokens of the images of a store, or of its rows `index`, in that order, in `encoder.precision`.

    batch: images per forward pass; like `workers` (reading processes) it changes the features by rounding only.  progress: called with
    the number of images done.  cache: read from and write to the cache; if it holds the features of the whole store, those of any rows
    are taken from there. Cached tokens are a read-only memory map, as they may exceed memory; with `mapped`, pooled features are one too
    where a cached file holds exactly these rows.  ranks: all ranks of the process group call
    this function and share the work; the main rank returns and caches the features, bit-identical to a single process, and the others
    return an empty array.  Raises InputError if there are no rows.

    The features of an encoder made of parts are cached by part, so that those of a part are shared with the part itself."""
    if isinstance(encoder, StoredFeatures):
        require_pooled(encoder.card.name, kind)
        own = np.arange(len(store)) if index is None else np.asarray(index, np.int64).reshape(-1)
        return _empty_features() if ranks and not dist.is_main() else read_stored_features(encoder, store, own, progress)
    if encoder.parts:
        require_pooled(encoder.card.name, kind)
        report = share_progress(progress, len(encoder.parts))
        parts = [extract_features(part, store, kind, index, batch, workers, cache, report, ranks, mapped) for part in encoder.parts]
        return _empty_features() if ranks and not dist.is_main() else join_features(parts)
    rows = np.arange(len(store)) if index is None else np.asarray(index, np.int64).reshape(-1)
    if not len(rows):
        raise InputError(f"there is no image to embed in {store.paths[0]}")
    path = feature_cache_path(encoder, store, kind, None if index is None else rows)
    writes = not ranks or dist.is_main()
    cached = _load_cached_rows(encoder, store, kind, rows, path, mapped) if cache and writes else None
    if cached is not None and progress:
        progress(len(rows))
    if dist.any_rank(cached is not None, encoder.device) if ranks else cached is not None:
        return _empty_features() if cached is None else cached
    if writes:
        require_intact(store)
    batches = _feature_batches(encoder, kind, store, rows, batch, workers, progress, ranks)
    if not writes:
        for _ in batches:
            pass  # the main rank gathers the rows of this one
        return _empty_features()
    if not cache:
        return _fill_memory(batches, len(rows))
    with write_cached_array(path) as temporary:
        _fill_file(temporary, batches, len(rows))
    written: NDArray[np.float32] = np.load(path, mmap_mode="r" if mapped or kind == "tokens" else None)  # or that of another process
    return written


def share_progress(progress: Callable[[int], None] | None, parts: int) -> Callable[[int], None] | None:
    """A counter for the images of every part, which reports each image once: after its share of the work of all parts."""
    done = [0, 0]  # images of any part, and images reported

    def report(n: int) -> None:
        assert progress is not None
        done[0] += n
        progress(done[0] // parts - done[1])
        done[1] = done[0] // parts

    return None if progress is None else report


def _empty_features() -> NDArray[np.float32]:
    return np.empty((0,), np.float32)


def feature_cache_path(encoder: Encoder, store: Store, kind: FeatureKind, rows: NDArray[np.int64] | None = None) -> Path:
    """The path of these features in the cache.  rows: of the store; None: all."""
    parts = [VERSION, encoder.sha256, store.fingerprint, str(store.attrs.get("unit")), kind, torch.__version__.split("+")[0]]
    if encoder.precision != "fp32":
        parts.append(encoder.precision)  # the keys of features in fp32 stay those of earlier versions
    if rows is not None:
        parts.append(hashlib.sha256(rows.tobytes()).hexdigest())
    return cache_dir() / "features" / f"{json_digest(parts, 32)}.npy"


def _load_cached_rows(
    encoder: Encoder, store: Store, kind: FeatureKind, rows: NDArray[np.int64], path: Path, mapped: bool
) -> NDArray[np.float32] | None:
    """The features of `rows` from the cached file of the whole store, or from `path`; None if neither exists."""
    whole = feature_cache_path(encoder, store, kind)
    in_file = mapped or kind == "tokens"
    features = _load_cached(whole, len(store), in_file)
    if features is None:
        return _load_cached(path, len(rows), in_file)
    return features if path == whole else features[rows]


def _load_cached(path: Path, rows: int, mapped: bool) -> NDArray[np.float32] | None:
    """The features in a file; None if it is missing or damaged."""
    features = read_cached_array(path, mapped)
    if features is None or features.ndim not in (2, 3) or features.dtype != np.float32 or len(features) != rows:
        return None
    return features


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
    """The features of one batch at a time, or of one batch per rank at a time."""
    parts = [rows[i : i + batch] for i in range(0, len(rows), batch)]
    inputs = iterate_inputs(encoder, store, take_rank_pieces(parts) if ranks else parts, workers)
    features = (encoder.forward(x, kind) for x in inputs)
    for out in fetch_one_late(gather_pieces(features, batch, len(rows)) if ranks else features):
        if progress:
            progress(len(out))
        yield out.numpy()


def _fill_memory(batches: Iterator[NDArray[np.float32]], rows: int) -> NDArray[np.float32]:
    """The batches, concatenated."""
    out, at = None, 0
    for x in batches:
        out = np.empty((rows, *x.shape[1:]), np.float32) if out is None else out
        out[at : at + len(x)] = x
        at += len(x)
    assert out is not None, "there is at least one batch"
    return out


def _fill_file(path: Path, batches: Iterator[NDArray[np.float32]], rows: int) -> None:
    """Writes the batches to a .npy file. Not through a memory map, where a full disk kills the process (SIGBUS) in place of an error."""
    at = 0
    with path.open("wb") as file:
        for x in batches:
            if at == 0:
                shape = (rows, *x.shape[1:])
                np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            file.write(np.ascontiguousarray(x, "<f4").data)
            at += len(x)
    assert at == rows, "every row was computed"


def read_encoder_sha256(out: Path) -> str | None:
    """The sha256 of the encoder whose features a file holds; None if the file is damaged or holds no features."""
    import h5py

    try:
        with h5py.File(out, "r") as file:
            sha256 = file.attrs.get("encoder_sha256")
            return None if sha256 is None else str(sha256)
    except OSError:
        return None


def read_feature_precision(out: Path) -> str | None:
    """The precision of the features in a file; files of earlier versions do not say it and are fp32. None if the file is damaged."""
    import h5py

    try:
        with h5py.File(out, "r") as file:
            return str(file.attrs.get("precision", "fp32"))
    except OSError:
        return None


def check_replaceable(out: Path) -> None:
    """Raises InputError unless a file holds features: a mistyped name must not overwrite a store."""
    if read_encoder_sha256(out) is None:
        raise InputError(f"{out} exists and does not hold features of an encoder; choose another name for the output")


def write_features(out: Path, features: NDArray[np.float32], encoder: Encoder, store: Store, kind: FeatureKind) -> None:
    """Writes an HDF5 file with /features (float32), /key and /patient; its attributes name the encoder, its precision and the store."""
    import h5py

    with atomic_hdf5(out) as file:
        file.create_dataset("features", data=features)
        for column in ("key", "patient"):
            file.create_dataset(column, data=[str(value) for value in store.column(column)], dtype=h5py.string_dtype())
        attributes = {"encoder": encoder.card.name, "encoder_sha256": encoder.sha256, "store_fingerprint": store.fingerprint, "kind": kind}
        file.attrs.update({**attributes, "dataset": store.dataset, "precision": encoder.precision})


def describe_computation(encoder: Encoder) -> str:
    """The name of the encoder, and its precision unless that is fp32."""
    return encoder.card.name + (f", computed in {encoder.precision} and stored as float32" if encoder.precision != "fp32" else "")
