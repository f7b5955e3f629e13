"""The checks of a store: mixed bit depths, duplicate images, patients in several splits, constant images and unusable labels.

Everything here returns plain data (encoders/doctor/report.py); encoders/doctor/text.py prints it, and encoders/doctor/picture.py draws the
most similar pairs.

Shapes: N images; P pairs; S sampled images.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from encoders.doctor.depths import measure_depths
from encoders.doctor.floor import measure_floors
from encoders.doctor.labels import summarise_labels
from encoders.doctor.report import (
    HIGH_FLOOR,
    DoctorReport,
    ExactDuplicates,
    Examination,
    Finding,
    IntensitySummary,
    LayoutSummary,
    NearPairs,
    PatientSummary,
    SplitSize,
    SplitSummary,
    StoreSummary,
)
from encoders.runtime.arrays import Array, IntArray
from encoders.similarity.hash_search import find_near_pairs
from encoders.similarity.perceptual_hash import HASH_BITS, HASH_RADIUS, group_exact_duplicates
from encoders.store.content import DamagedImage, count_without_hash, find_damaged_images
from encoders.store.store import Store

HISTOGRAM_BINS = 32
MAX_LISTED = 1000  # rows or groups listed in the report; the counts cover all of them
MAX_NEAR_IMAGES = 200_000  # every pair of images is compared, which takes minutes above this number

RowGroups = list[list[int]]


def examine_store(
    store: Store,
    radius: int = HASH_RADIUS,
    near: bool | None = None,
    sample: int = 1000,
    seconds: float = 1.0,
    floor: bool = True,
    floor_labels: Sequence[str] | None = None,
    watch: Callable[[Iterator[DamagedImage | None]], Iterable[DamagedImage | None]] = iter,
) -> DoctorReport:
    """The whole report, ready for JSON.

    radius: bits in which near-duplicates may differ.  near: search for near-duplicates; None: if there are at most MAX_NEAR_IMAGES
    images.  sample: images of the histogram.  seconds: for measuring the read rate.  floor: predict labels without a network; floor_labels:
    only these, None: all.  watch: passes through what is found for each image, to show the progress."""
    hashes, sha, keys = store.column("phash"), store.column("sha256"), store.column("key")
    patients, named = store.people(), store.names_patient()
    splits = store.column("split") if store.has_column("split") else np.full(len(store), "")
    groups = group_exact_duplicates(sha)
    known = np.where(named, patients, "")
    look = len(store) <= MAX_NEAR_IMAGES if near is None else near
    pairs, distance = find_near_duplicates(hashes, sha, radius) if look else (np.empty((0, 2), np.int64), np.empty(0, np.int64))
    report: Examination = {
        "store": describe_store(store),
        "layout": measure_layout(store, seconds),
        "intensity": measure_intensity(store, sample),
        "content": {
            "columns_changed": sum(part.metadata_is_intact() is False for part in store.parts),
            "without_hash": count_without_hash(store),
            "damaged": [found.key for found in watch(find_damaged_images(store, range(len(store)))) if found is not None],
        },
        "depths": measure_depths(store),
        "constant": [str(keys[i]) for i in find_constant_images(store, hashes)],
        "exact": duplicate_report(groups, keys, known, splits),
        "near": {"looked": look, "radius": radius, **near_duplicate_report(pairs, distance, keys, known, splits)},
        "patients": patient_report(patients, named),
        "splits": split_report(splits, patients),
        "labels": summarise_labels(store, splits, groups),
        "floors": measure_floors(store, floor_labels) if floor else [],
    }
    return {**report, "findings": list_findings(report)}


def describe_store(store: Store) -> StoreSummary:
    """The size, format and attributes of the store."""
    shape = store.shape or infer_shape(store)
    return {
        "images": len(store),
        "files": len(store.paths),
        "modality": store.modality,
        "dataset": store.dataset,
        "shape": list(shape) if shape else None,
        "dtype": store.dtype.name,
        "channels": store.channels,
        "unit": store.attrs["unit"],
        "geometry": store.attrs["geometry"],
        "fingerprint": store.fingerprint,
        "columns": store.columns(),
    }


def infer_shape(store: Store) -> tuple[int, ...] | None:
    """The common shape of at most 64 images of a store that does not state it; None if they differ."""
    rows = np.linspace(0, len(store) - 1, min(64, len(store))).astype(int)
    shapes = {store.image(int(i)).shape for i in rows}
    return shapes.pop() if len(shapes) == 1 else None


def measure_layout(store: Store, seconds: float) -> LayoutSummary:
    """The storage format, and the rate of reading single images in random order (from pages that may be cached)."""
    rng, count, volume = np.random.default_rng(0), 0, 0
    store.image(0).copy()  # opens the memory map
    started = time.perf_counter()
    while count < len(store) and (spent := time.perf_counter() - started) < seconds:
        image = store.image(int(rng.integers(len(store))))
        volume += image.copy().nbytes  # a view of the file is read only when its bytes are copied
        count += 1
    spent = max(time.perf_counter() - started, 1e-9)
    size = sum(path.stat().st_size for path in store.paths)
    return {
        "codec": "+".join(sorted({part.codec for part in store.parts})),
        "bytes": size,
        "bytes_per_image": size // max(len(store), 1),
        "read": count,
        "images_per_s": round(count / spent, 1),
        "mb_per_s": round(volume / spent / 1e6, 1),
    }


def measure_intensity(store: Store, sample: int) -> IntensitySummary:
    """Histogram, mean and standard deviation of the values in [0, 1] of at most `sample` evenly spaced images."""
    chosen = np.unique(np.linspace(0, len(store) - 1, min(sample, len(store))).astype(int))  # (S,)
    counts, total, squares, n, black, white = np.zeros(HISTOGRAM_BINS), 0.0, 0.0, 0, 0, 0
    for i in chosen:
        values = store.unit_images([i]).ravel()
        counts += np.histogram(values, HISTOGRAM_BINS, (0.0, 1.0))[0]
        total, squares, n = total + values.sum(dtype=np.float64), squares + np.square(values, dtype=np.float64).sum(), n + values.size
        black, white = black + int((values <= 0).sum()), white + int((values >= 1).sum())
    mean = total / max(n, 1)
    std = float(np.sqrt(max(squares / max(n, 1) - mean**2, 0)))
    return {
        "images": len(chosen),
        "mean": round(mean, 5),
        "std": round(std, 5),
        "black": round(black / max(n, 1), 5),
        "white": round(white / max(n, 1), 5),
        "histogram": (counts / max(n, 1)).round(5).tolist(),
    }


def find_constant_images(store: Store, hashes: NDArray[np.uint8]) -> list[int]:
    """Rows of images with a single value. Their perceptual hash is zero (no cell is brighter than another), so few images are read."""
    return [int(i) for i in np.flatnonzero(~hashes.any(axis=1)) if np.ptp(store.image(int(i))) == 0]


def find_near_duplicates(hashes: NDArray[np.uint8], sha: Array, radius: int) -> tuple[IntArray, IntArray]:
    """Pairs (P, 2) of images with different pixels and hashes at most `radius` bits apart, and their distances (P,), nearest first."""
    unique, members, identical = group_by_hash(hashes, sha)
    near, distance = find_near_pairs(unique, radius=radius)
    return merge_pairs(identical, near, distance, members)


def find_nearest_pairs(store: Store, count: int = 6) -> tuple[IntArray, IntArray]:
    """The `count` most similar pairs (P, 2) of images with different pixels, at any distance, and their distances (P,)."""
    import faiss

    unique, members, identical = group_by_hash(store.column("phash"), store.column("sha256"))
    bank = faiss.IndexBinaryFlat(HASH_BITS)
    bank.add(unique)
    distance, index = bank.search(unique, min(count + 1, len(unique)))  # each hash finds itself; the nearest pairs are among these
    rows = np.repeat(np.arange(len(unique)), index.shape[1])
    pairs = np.stack([rows, index.ravel()], axis=1)
    once = pairs[:, 0] < pairs[:, 1]
    order = np.argsort(distance.ravel()[once], kind="stable")[:count]
    pairs, far = merge_pairs(identical, pairs[once][order], distance.ravel()[once][order], members)
    return pairs[:count], far[:count]


def group_by_hash(hashes: NDArray[np.uint8], sha: Array) -> tuple[NDArray[np.uint8], RowGroups, RowGroups]:
    """The distinct hashes, the images of each hash, and pairs of images with the same hash.

    One image represents all with identical pixels. Images with the same hash are paired only with the next one, so that a thousand of
    them do not become a million pairs."""
    first = np.sort(np.unique(sha, return_index=True)[1])
    unique, hash_of = np.unique(hashes[first], axis=0, return_inverse=True)
    members: RowGroups = [[] for _ in unique]
    for row, h in zip(first, hash_of.ravel(), strict=True):
        members[h].append(int(row))
    return unique, members, [list(pair) for rows in members for pair in pairwise(rows)]


def merge_pairs(identical_pairs: RowGroups, near_pairs: IntArray, distance: Array, members: RowGroups) -> tuple[IntArray, IntArray]:
    """Pairs of images (P, 2) and distances (P,): those with the same hash, then those with near hashes; a hash of
    several images is paired by its first image."""
    apart = [sorted((members[a][0], members[b][0])) for a, b in near_pairs]
    pairs = np.array([*identical_pairs, *apart], dtype=np.int64).reshape(-1, 2)
    return pairs, np.concatenate([np.zeros(len(identical_pairs), np.int64), distance.astype(np.int64)])


def duplicate_report(groups: RowGroups, keys: Array, patients: Array, splits: Array) -> ExactDuplicates:
    """Groups of images with identical pixels.  patients, splits: (N,), "" if unknown."""
    return {
        "groups": len(groups),
        "images": sum(map(len, groups)),
        "across_patients": sum(len(known_names(patients[rows])) > 1 for rows in groups),
        "across_splits": sum(len(known_names(splits[rows])) > 1 for rows in groups),
        "keys": [[str(keys[i]) for i in rows] for rows in groups[:MAX_LISTED]],
    }


def near_duplicate_report(pairs: IntArray, distance: IntArray, keys: Array, patients: Array, splits: Array) -> NearPairs:
    """Pairs of similar images with different pixels.  patients, splits: (N,), "" if unknown."""
    a, b = pairs[:, 0], pairs[:, 1]
    across = [int(((names[a] != names[b]) & (names[a] != "") & (names[b] != "")).sum()) for names in (patients, splits)]
    return {
        "pairs": len(pairs),
        "across_patients": across[0],
        "across_splits": across[1],
        "nearest": [[str(keys[i]), str(keys[j]), int(d)] for (i, j), d in zip(pairs[:MAX_LISTED], distance[:MAX_LISTED], strict=True)],
    }


def patient_report(patients: Array, named: NDArray[np.bool_]) -> PatientSummary:
    """The number of patients, and of images per patient.  named: (N,), false for an image whose patient is unknown."""
    _, counts = np.unique(patients, return_counts=True)
    return {
        "patients": len(counts),
        "median": float(np.median(counts)),
        "most": int(counts.max()),
        "with_several": int((counts > 1).sum()),
        "images_without_patient": int((~named).sum()),
    }


def split_report(splits: Array, patients: Array) -> SplitSummary:
    """Images and patients of each split, and the patients in more than one."""
    names = known_names(splits)
    members = {name: {str(p) for p in patients[splits == name]} for name in names}
    both = sorted(p for p in set().union(*members.values()) if sum(p in own for own in members.values()) > 1) if members else []
    sizes: dict[str, SplitSize] = {name: {"images": int((splits == name).sum()), "patients": len(members[name])} for name in names}
    images = int(np.isin(patients, both).sum())
    return {"splits": sizes, "patients_in_several": len(both), "their_images": images, "who": both[:MAX_LISTED]}


def known_names(values: Iterable[object]) -> list[str]:
    """The distinct values as sorted strings, without the empty one, which means unknown."""
    return sorted({str(value) for value in values} - {""})


def list_findings(report: Examination) -> list[Finding]:
    """The problems to fix or consider before using the store; [] for a clean one."""
    exact, near, splits, labels = report["exact"], report["near"], report["splits"], report["labels"]
    rows = [
        ("changed columns", report["content"]["columns_changed"], "files have attributes, labels or columns that are not those written"),
        (
            "changed images",
            len(report["content"]["damaged"]),
            "images are not those that were stored: copy the store or ingest it again",
        ),
        ("constant images", len(report["constant"]), "images with a single value"),
        ("exact duplicates", exact["groups"], f"groups of images with identical pixels, {exact['images']} images in all"),
        ("near duplicates", near["pairs"], f"pairs of images whose hashes differ in at most {near['radius']} of {HASH_BITS} bits"),
        (
            "patients in several splits",
            splits["patients_in_several"],
            f"patients ({splits['their_images']} images) are in more than one split: test scores would be too high",
        ),
        ("duplicates across splits", exact["across_splits"], "groups of identical images are in more than one split"),
        ("near duplicates across splits", near["across_splits"], "pairs of nearly identical images are in two splits"),
        ("duplicates across patients", exact["across_patients"], "groups of identical images are assigned to different patients"),
        ("conflicting labels", sum(row["conflicts"] for row in labels), "groups of identical images have different labels"),
        ("useless labels", sum(row["values"] < 2 for row in labels), "labels are unknown for all images or have one value only"),
    ]
    depths = report["depths"]
    shallow = sum(group["images"] for group in depths[:-1])
    each = "; ".join(f"{group['images']} use {group['bits']} bits (first: {group['first']})" for group in depths)
    rows.append(("mixed bit depths", shallow, f"16-bit images are much darker than the others: {each}; ingest again with --bits auto"))
    high = [f"{f['label']} {f['auroc']:.2f}" for f in report["floors"] if f["auroc"] > HIGH_FLOOR]
    rows.append(
        (
            "acquisition shortcut",
            len(high),
            f"labels are predicted from histogram and thumbnail alone (AUROC: {', '.join(high)}): images of the classes may differ in how "
            "they were acquired",
        )
    )
    return [{"finding": name, "count": int(n), "meaning": f"{n} {meaning}"} for name, n, meaning in rows if n]
