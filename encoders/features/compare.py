"""How similar two encoders are: their features of the same images, their parameters, and their cards.

Linear CKA: Kornblith et al. 2019 (arXiv:1905.00414), eq. 1, on centred features; it does not change under rotation and isotropic scaling.
That estimate is biased upwards when N is not much larger than D. The debiased one replaces HSIC by its unbiased estimate (Song et al. 2012,
JMLR 13, eq. 5), as Nguyen et al. 2021 (arXiv:2010.15327) do; it may be slightly negative for unrelated features.

Shapes: N images, D and E widths of the two encoders, K neighbours.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from encoders.features.embed import extract_features
from encoders.features.nearest import find_neighbours
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.zoo.batchnorm import STATISTICS
from encoders.zoo.card import Card
from encoders.zoo.encoder import Encoder
from encoders.zoo.stages import inner_network

MIN_COMPARED = 4  # images: the unbiased HSIC divides by N - 3
# Fields of a card that differ between any two encoders or say nothing about how they were made.
UNCOMPARED_FIELDS = ("name", "sha256", "canary", "network_canary", "pixel_canary", "versions", "probe_history")


class ParameterDistance(NamedTuple):
    """Distance of the parameters of two networks with the same tensors, without BatchNorm statistics."""

    relative_l2: float  # |a - b| / |a|
    cosine: float
    equal_tensors: int
    tensors: int
    statistics_l2: float | None  # |a - b| / |a| of running means and variances; None for a network without them


class EncoderComparison(NamedTuple):
    """The similarity of two encoders on the images of a store."""

    images: int
    cka: float
    cka_debiased: float
    k: int
    overlap: float  # mean share of common neighbours
    overlap_chance: float  # its expectation for unrelated features
    parameters: ParameterDistance | None
    parameters_note: str  # why there is no distance of parameters; "" if there is one
    card_differences: dict[str, tuple[Any, Any]]


def compare_encoders(
    a: Encoder, b: Encoder, store: Store, images: int | None = 2000, k: int = 10, batch: int = 64, workers: int = 0
) -> EncoderComparison:
    """The comparison on `images` images drawn at random with a fixed seed (None: on all).

    Raises InputError for fewer than 4 images, and for k that is not below their number."""
    n = len(store) if images is None else min(images, len(store))
    if n < MIN_COMPARED or not 1 <= k < n:
        raise InputError(f"comparing needs at least {MIN_COMPARED} images and k below their number; given {n} images and k={k}")
    rows = None if n == len(store) else np.sort(np.random.default_rng(0).permutation(len(store))[:n])
    x, y = (extract_features(each, store, index=rows, batch=batch, workers=workers) for each in (a, b))
    distance, note = None, _why_not_comparable(a, b)
    if not note:
        distance = parameter_distance(inner_network(a.model), inner_network(b.model))
    return EncoderComparison(
        n,
        linear_cka(x, y),
        linear_cka(x, y, debiased=True),
        k,
        neighbour_overlap(x, y, k),
        k / (n - 1),
        distance,
        note,
        card_differences(a.card, b.card),
    )


def linear_cka(x: NDArray[np.floating], y: NDArray[np.floating], debiased: bool = False) -> float:
    """Linear CKA of the features x (N, D) and y (N, E) of the same images; 1 for equal features up to rotation and scale.

    Raises InputError for another number of rows, and for features that are the same for all images."""
    if len(x) != len(y) or len(x) < MIN_COMPARED:
        raise InputError(f"CKA needs the features of the same {MIN_COMPARED} or more images; given {len(x)} and {len(y)} rows")
    a, b = (np.asarray(f, np.float64) - np.asarray(f, np.float64).mean(0) for f in (x, y))
    hsic = _unbiased_hsic if debiased else _biased_hsic
    own, other = hsic(a, a), hsic(b, b)
    least = 1e-12 * max(float(np.square(x, dtype=np.float64).sum()), float(np.square(y, dtype=np.float64).sum())) ** 2  # rounding
    if min(own, other) <= least:
        raise InputError("the features of an encoder are (nearly) the same for all images, so no similarity is defined; is it damaged?")
    return hsic(a, b) / float(np.sqrt(own * other))


def neighbour_overlap(x: NDArray[np.floating], y: NDArray[np.floating], k: int) -> float:
    """Mean share of the K nearest neighbours (cosine) that an image has in both features; K / (N - 1) by chance."""
    return float(np.mean([len(np.intersect1d(i, j)) / k for i, j in zip(_neighbours(x, k), _neighbours(y, k), strict=True)]))


def parameter_distance(a: nn.Module, b: nn.Module) -> ParameterDistance:
    """Distances over all parameters and buffers of two networks with the same tensors, float64."""
    first, second = ({k: v.detach().cpu().double().numpy() for k, v in m.state_dict().items()} for m in (a, b))
    kept = [key for key in first if key.rpartition(".")[2] not in (*STATISTICS, "num_batches_tracked")]
    statistics = [key for key in first if key.rpartition(".")[2] in STATISTICS]
    dot = sum(float(np.vdot(first[key], second[key])) for key in kept)
    lengths = [np.sqrt(sum(float(np.vdot(s[key], s[key])) for key in kept)) for s in (first, second)]
    return ParameterDistance(
        _relative_l2(first, second, kept),
        float(dot / max(lengths[0] * lengths[1], 1e-300)),
        sum(bool(np.array_equal(first[key], second[key])) for key in kept),
        len(kept),
        _relative_l2(first, second, statistics) if statistics else None,
    )


def card_differences(a: Card, b: Card) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> the two values, for everything that differs on the cards besides name, hash, canary and versions."""
    first, second = (_flatten(card.model_dump(mode="json", exclude=set(UNCOMPARED_FIELDS))) for card in (a, b))
    return {key: (first.get(key), second.get(key)) for key in dict.fromkeys((*first, *second)) if first.get(key) != second.get(key)}


def _biased_hsic(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """|x'y|^2, the Frobenius norm squared, for centred features."""
    return float(np.square(x.T @ y).sum())


def _unbiased_hsic(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """N (N - 3) times the unbiased HSIC with linear kernels, without any (N, N) matrix; centred or not, the value is the same."""
    n = len(x)
    own, other = np.square(x).sum(1), np.square(y).sum(1)  # (N,): the diagonals, which are set to 0
    row_sums = x @ x.sum(0) - own, y @ y.sum(0) - other
    trace = np.square(x.T @ y).sum() - own @ other
    return float(trace + row_sums[0].sum() * row_sums[1].sum() / ((n - 1) * (n - 2)) - 2 * (row_sums[0] @ row_sums[1]) / (n - 2))


def _neighbours(x: NDArray[np.floating], k: int) -> list[NDArray[np.int64]]:
    """The K nearest neighbours of each row, without the row itself, which need not come first among identical rows."""
    _, near = find_neighbours(x, x, k + 1)
    return [row[row != i][:k] for i, row in enumerate(near)]


def _relative_l2(a: Mapping[str, NDArray[np.float64]], b: Mapping[str, NDArray[np.float64]], keys: list[str]) -> float:
    length = np.sqrt(sum(float(np.square(a[key]).sum()) for key in keys))
    return float(np.sqrt(sum(float(np.square(a[key] - b[key]).sum()) for key in keys)) / max(length, 1e-300))


def _why_not_comparable(a: Encoder, b: Encoder) -> str:
    if a.parts or b.parts:
        return "an encoder is made of parts"
    if a.card.arch != b.card.arch:
        return f"the networks differ: {a.card.arch} and {b.card.arch}"
    shapes = [{key: tuple(value.shape) for key, value in inner_network(e.model).state_dict().items()} for e in (a, b)]
    if shapes[0] != shapes[1]:
        first = next(key for key in sorted({*shapes[0], *shapes[1]}) if shapes[0].get(key) != shapes[1].get(key))
        return f"the tensors differ, first {first}: {shapes[0].get(first, 'missing')} and {shapes[1].get(first, 'missing')}"
    return "" if shapes[0] else "the encoders have no weights"


def _flatten(value: object, prefix: str = "") -> dict[str, object]:
    if not isinstance(value, Mapping) or not value:
        return {prefix: value} if value not in (None, {}) else {}
    return {key: leaf for k, v in value.items() for key, leaf in _flatten(v, f"{prefix}.{k}" if prefix else str(k)).items()}
