"""What is in a store, and what in it would make a comparison untrue: copies, patients in two splits, empty images and labels.

Everything here returns plain data; `doctor_table` shows it, `doctor_picture` draws the nearest pairs.

Shapes: N images; P pairs; S sampled images.
"""

import time
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.doctor.labels import summarise_labels
from encoders.similarity.perceptual_hash import HASH_BITS, HASH_RADIUS, find_near_pairs, group_exact_duplicates
from encoders.store.store import Store

HISTOGRAM_BINS = 32
MAX_LISTED = 1000  # rows or groups listed in the report; the counts are of all
MAX_NEAR_IMAGES = 200_000  # images: near pairs are all against all, and take minutes above this


def examine_store(
    store: Store, radius: int = HASH_RADIUS, near: bool | None = None, sample: int = 1000, seconds: float = 1.0
) -> dict[str, Any]:
    """The whole report, ready for JSON. near: look for near-duplicates; None: if there are at most 200,000 images."""
    hashes, sha, keys = store.column("phash"), store.column("sha256"), store.column("key")
    patients = store.column("patient")
    splits = store.column("split") if store.has("split") else np.full(len(store), "")
    groups = group_exact_duplicates(sha)
    known = np.where(patients == keys, "", patients)  # an image whose patient is unknown has its key there
    look = len(store) <= MAX_NEAR_IMAGES if near is None else near
    pairs, distance = find_near_duplicates(hashes, sha, radius) if look else (np.empty((0, 2), int), np.empty(0, int))
    report: dict[str, Any] = {
        "store": describe_store(store),
        "layout": measure_layout(store, seconds),
        "intensity": measure_intensity(store, sample),
        "constant": [str(keys[i]) for i in find_constant_images(store, hashes)],
        "exact": duplicate_report(groups, keys, known, splits),
        "near": {"looked": look, "radius": radius, **near_duplicate_report(pairs, distance, keys, known, splits)},
        "patients": patient_report(patients, keys),
        "splits": split_report(splits, patients),
        "labels": summarise_labels(store, splits, groups),
    }
    return report | {"findings": list_findings(report)}


def describe_store(store: Store) -> dict[str, Any]:
    """What the store says about itself."""
    attrs = store.attrs
    shape = store.shape or infer_shape(store)
    size = {"shape": list(shape) if shape else None, "dtype": store.dtype.name, "channels": store.channels}
    of = {"images": len(store), "files": len(store.paths), "modality": store.modality, "dataset": store.dataset, **size}
    return of | {"unit": attrs["unit"], "geometry": attrs["geometry"], "fingerprint": store.fingerprint, "columns": store.columns()}


def infer_shape(store: Store) -> tuple[int, ...] | None:
    """The shape of images whose store does not say it, from some of them; None when they differ."""
    some = np.linspace(0, len(store) - 1, min(64, len(store))).astype(int)
    seen = {store.image(int(i)).shape for i in some}
    return seen.pop() if len(seen) == 1 else None


def measure_layout(store: Store, seconds: float) -> dict[str, Any]:
    """How the pixels lie on disk, and single images read a second, in random order (of pages that may be cached already)."""
    rng, count, volume = np.random.default_rng(0), 0, 0
    store.image(0).copy()  # opens the map
    begun = time.perf_counter()
    while count < len(store) and (spent := time.perf_counter() - begun) < seconds:
        image = store.image(int(rng.integers(len(store))))
        volume += image.copy().nbytes  # a view of the file costs nothing before its bytes are touched
        count += 1
    spent = max(time.perf_counter() - begun, 1e-9)
    size = sum(path.stat().st_size for path in store.paths)
    rate = {"read": count, "images_per_s": round(count / spent, 1), "mb_per_s": round(volume / spent / 1e6, 1)}
    return {
        "codec": "+".join(sorted({part.codec for part in store.parts})),
        "bytes": size,
        "bytes_per_image": size // max(len(store), 1),
    } | rate


def measure_intensity(store: Store, sample: int) -> dict[str, Any]:
    """Histogram of values in [0, 1], mean and standard deviation, over evenly spaced images (S of them)."""
    chosen = np.unique(np.linspace(0, len(store) - 1, min(sample, len(store))).astype(int))  # (S,)
    counts, total, squares, n, black, white = np.zeros(HISTOGRAM_BINS), 0.0, 0.0, 0, 0, 0
    for i in chosen:
        values = store.unit_images([i]).ravel()
        counts += np.histogram(values, HISTOGRAM_BINS, (0.0, 1.0))[0]
        total, squares, n = total + values.sum(dtype=np.float64), squares + np.square(values, dtype=np.float64).sum(), n + values.size
        black, white = black + int((values <= 0).sum()), white + int((values >= 1).sum())
    mean = total / max(n, 1)
    spread = float(np.sqrt(max(squares / max(n, 1) - mean**2, 0)))
    shares = {"black": round(black / max(n, 1), 5), "white": round(white / max(n, 1), 5)}
    return {
        "images": len(chosen),
        "mean": round(mean, 5),
        "std": round(spread, 5),
        **shares,
        "histogram": (counts / max(n, 1)).round(5).tolist(),
    }


def find_constant_images(store: Store, hashes: NDArray[np.uint8]) -> list[int]:
    """Images of one value only. Their perceptual hash is all zero (no cell is brighter than another), so few need to be read."""
    return [int(i) for i in np.flatnonzero(~hashes.any(axis=1)) if np.ptp(store.image(int(i))) == 0]


def find_near_duplicates(hashes: NDArray[np.uint8], sha: NDArray[Any], radius: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs (P, 2) of unlike pixels with hashes at most `radius` bits apart, and their distances (P,), nearest first."""
    unique, members, same = group_by_hash(hashes, sha)
    found, distance = find_near_pairs(unique, radius=radius)
    return merge_pairs(same, found, distance, members)


def find_nearest_pairs(store: Store, enough: int = 6) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The `enough` nearest pairs of unlike pixels, however far apart: what a radius has to tell from copies."""
    import faiss

    unique, members, same = group_by_hash(store.column("phash"), store.column("sha256"))
    bank = faiss.IndexBinaryFlat(HASH_BITS)
    bank.add(unique)
    distance, index = bank.search(unique, min(enough + 1, len(unique)))  # itself among them; the nearest pairs are within these
    rows = np.repeat(np.arange(len(unique)), index.shape[1])
    pairs = np.stack([rows, index.ravel()], axis=1)
    once = pairs[:, 0] < pairs[:, 1]
    order = np.argsort(distance.ravel()[once], kind="stable")[:enough]
    pairs, far = merge_pairs(same, pairs[once][order], distance.ravel()[once][order], members)
    return pairs[:enough], far[:enough]


RowGroups = list[list[int]]


def group_by_hash(hashes: NDArray[np.uint8], sha: NDArray[Any]) -> tuple[NDArray[np.uint8], RowGroups, RowGroups]:
    """The different hashes, the images that have each, and pairs of images with one hash.

    One image stands for all with its pixels; of images with one hash each is paired with the next, so that a thousand of them are not a
    million pairs."""
    first = np.sort(np.unique(sha, return_index=True)[1])
    unique, of = np.unique(hashes[first], axis=0, return_inverse=True)
    members: RowGroups = [[] for _ in unique]
    for row, h in zip(first, of.ravel(), strict=True):
        members[h].append(int(row))
    return unique, members, [list(pair) for rows in members for pair in pairwise(rows)]


def merge_pairs(
    same: RowGroups, found: NDArray[np.int64], distance: NDArray[Any], members: RowGroups
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of images: those with one hash, then those with near hashes, each by its first image."""
    apart = [sorted((members[a][0], members[b][0])) for a, b in found]
    pairs = np.array([*same, *apart], dtype=np.int64).reshape(-1, 2)
    return pairs, np.concatenate([np.zeros(len(same), np.int64), distance.astype(np.int64)])


def duplicate_report(groups: list[list[int]], keys: NDArray[Any], patients: NDArray[Any], splits: NDArray[Any]) -> dict[str, Any]:
    """Groups of images with the same pixels.  patients, splits: "" where unknown."""
    return {
        "groups": len(groups),
        "images": sum(map(len, groups)),
        "across_patients": sum(len(known_names(patients[rows])) > 1 for rows in groups),
        "across_splits": sum(len(known_names(splits[rows])) > 1 for rows in groups),
        "keys": [[str(keys[i]) for i in rows] for rows in groups[:MAX_LISTED]],
    }


def near_duplicate_report(
    pairs: NDArray[np.int64], distance: NDArray[np.int64], keys: NDArray[Any], patients: NDArray[Any], splits: NDArray[Any]
) -> dict[str, Any]:
    """Pairs that look the same and are not."""
    a, b = pairs[:, 0], pairs[:, 1]
    across = [int(((of[a] != of[b]) & (of[a] != "") & (of[b] != "")).sum()) for of in (patients, splits)]
    return {
        "pairs": len(pairs),
        "across_patients": across[0],
        "across_splits": across[1],
        "nearest": [[str(keys[i]), str(keys[j]), int(d)] for (i, j), d in zip(pairs[:MAX_LISTED], distance[:MAX_LISTED], strict=True)],
    }


def patient_report(patients: NDArray[Any], keys: NDArray[Any]) -> dict[str, Any]:
    """Patients, and how many images they have."""
    _, each = np.unique(patients, return_counts=True)
    several = {"median": float(np.median(each)), "most": int(each.max()), "with_several": int((each > 1).sum())}
    return {"patients": len(each), **several, "images_without_patient": int((patients == keys).sum())}


def split_report(splits: NDArray[Any], patients: NDArray[Any]) -> dict[str, Any]:
    """Images and patients of each split, and the patients who are in more than one."""
    names = known_names(splits)
    of = {name: {str(p) for p in patients[splits == name]} for name in names}
    both = sorted(p for p in set().union(*of.values()) if sum(p in members for members in of.values()) > 1) if of else []
    images = int(np.isin(patients, both).sum())
    sizes = {name: {"images": int((splits == name).sum()), "patients": len(of[name])} for name in names}
    return {"splits": sizes, "patients_in_several": len(both), "their_images": images, "who": both[:MAX_LISTED]}


def known_names(values: Iterable[Any]) -> list[str]:
    """The names that occur, unknown ones left out."""
    return sorted({str(value) for value in values} - {""})


def list_findings(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What should be put right or known before anything is measured on the store; [] for a clean one."""
    exact, near, splits = report["exact"], report["near"], report["splits"]
    told = [
        ("constant images", len(report["constant"]), "images of one value only"),
        ("exact duplicates", exact["groups"], f"groups of images with the same pixels, {exact['images']} images in all"),
        ("near duplicates", near["pairs"], f"pairs of images that differ in at most {near['radius']} of {HASH_BITS} hash bits"),
        (
            "patients in several splits",
            splits["patients_in_several"],
            f"patients, with {splits['their_images']} images: a score would leak",
        ),
        ("duplicates across splits", exact["across_splits"], "groups of identical images lie in more than one split"),
        ("near duplicates across splits", near["across_splits"], "pairs of nearly identical images lie in two splits"),
        ("duplicates across patients", exact["across_patients"], "groups of identical images are said to be of different patients"),
        ("conflicting labels", sum(row["conflicts"] for row in report["labels"]), "groups of identical images with different labels"),
        (
            "useless labels",
            sum(row["values"] < 2 for row in report["labels"]),
            "labels that are unknown for all images or the same for all",
        ),
    ]
    return [{"finding": what, "count": int(n), "meaning": f"{n} {why}"} for what, n, why in told if n]
