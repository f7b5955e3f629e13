"""ROC and precision-recall curves of many resamples of patients at once, and their bands.

Each label is sorted once. Its curves change direction only at groups of equal scores that hold a positive (anchors), so the counts of a
resample are needed there and nowhere else: two sparse products of (anchors, patients) and (patients, resamples). All counts are integers,
which makes every comparison of a rate with a grid point exact.

Shapes: N test images, C target columns, U patients, B resamples, A anchors, G grid points.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from encoders.runtime.arrays import Array, FloatArray, IntArray
from transfer.metrics import macro
from transfer.records.cached_results import cached_result
from transfer.records.record import Record
from transfer.stats.bootstrap import percentile_band
from transfer.stats.patient_draws import draw_patients

CURVE_GRID = np.linspace(0, 1, 101)
BAND_RESAMPLES = 300  # enough for a shaded band; the intervals of the tables have their own number
MAX_CELLS = 4_000_000  # counts held at a time: anchors x resamples, 32 MB as int64
CurveKind = Literal["roc", "pr"]  # sensitivity over false positive rate; precision over recall
CURVE_KINDS: tuple[CurveKind, ...] = ("roc", "pr")


class BandedCurve(NamedTuple):
    """y over `CURVE_GRID`, and its pointwise 95 % band, (G,) each."""

    y: Array
    low: Array
    high: Array


class AnchorCounts(NamedTuple):
    """Numbers of test images at the anchors of one label, from the highest score on. All but the totals are (A, B).

    own: positives in the group.  hit: positives in it and above.  before, through: negatives above it, and including it.
    positives, negatives: (B,) in total."""

    own: Array
    hit: Array
    before: Array
    through: Array
    positives: Array
    negatives: Array


def resampled_curves(records: Sequence[Record], n: int = BAND_RESAMPLES) -> dict[CurveKind, BandedCurve]:
    """The mean curves of the records, with their bands."""
    return cached_result("curve bands", records, (n,), dict[CurveKind, BandedCurve], lambda: _resample_curves(records, n))


def _resample_curves(records: Sequence[Record], n: int) -> dict[CurveKind, BandedCurve]:
    total = {kind: np.zeros((n + 1, len(CURVE_GRID))) for kind in CURVE_KINDS}
    for record in records:
        y, s, patient = record.part("test")
        code, drawn = draw_patients(patient, n, seed=record.identity.fold)  # draws of one fold share their resamples
        curves = mean_curves(y, s, code, drawn.astype(np.int32))
        for kind in CURVE_KINDS:
            total[kind] += curves[kind] / len(records)
    banded: dict[CurveKind, BandedCurve] = {}
    for kind, values in total.items():
        banded[kind] = BandedCurve(values[0], *percentile_band(values[1:], 0.95))
    return banded


def mean_curves(y: Array, s: Array, code: IntArray, drawn: Array) -> dict[CurveKind, FloatArray]:
    """(B, G) mean curves over the labels with both classes. y, s: (N, C).  code: (N,) patient of each image.  drawn: (U, B)."""
    labels = [label_curves(y[:, c], s[:, c], code, drawn) for c in range(y.shape[1])]
    return {kind: np.asarray(macro(np.stack([label[kind] for label in labels], axis=-1))[0]) for kind in CURVE_KINDS}


def label_curves(y: Array, s: Array, code: IntArray, drawn: Array) -> dict[CurveKind, FloatArray]:
    """(B, G) curves of one label; NaN where a resample has only one class. y, s, code: (N,).  drawn: (U, B) whole numbers."""
    drawn = drawn.astype(np.int32, copy=False)  # sums of small types would overflow
    curves: dict[CurveKind, FloatArray] = {kind: np.full((drawn.shape[1], len(CURVE_GRID)), np.nan) for kind in CURVE_KINDS}
    rows = np.flatnonzero(~np.isnan(y))
    rows = rows[np.argsort(-s[rows])]
    positive = y[rows] > 0.5
    if not positive.any() or positive.all():
        return curves
    group = np.append(0, np.cumsum(s[rows][1:] != s[rows][:-1]))  # equal scores change together
    width = max(1, MAX_CELLS // int(2 * positive.sum() + 1))
    for at in range(0, drawn.shape[1], width):
        counts = count_at_anchors(positive, group, code[rows], drawn[:, at : at + width])
        both = (counts.positives > 0) & (counts.negatives > 0)
        kept = AnchorCounts(*(count[..., both] for count in counts))
        here = at + np.flatnonzero(both)
        curves["roc"][here], curves["pr"][here] = _roc_on_grid(kept), _pr_on_grid(kept)
    return curves


def count_at_anchors(positive: Array, group: IntArray, code: IntArray, drawn: Array) -> AnchorCounts:
    """The counts of one label in every resample. positive, group, code: (n,) by falling score.  drawn: (U, B)."""
    from scipy.sparse import csr_array

    def sums(rows: Array, slot: IntArray, size: int) -> Array:
        """(size, B) number of drawn images in each slot."""
        cells = csr_array((np.ones(len(slot), np.int32), (slot, code[rows])), shape=(size, len(drawn)))
        return np.asarray(cells @ drawn)

    anchors = np.unique(group[positive])
    own = sums(positive, np.searchsorted(anchors, group[positive]), len(anchors))
    # Negatives fall into 2A + 1 slots in order: above the first anchor, in it, between it and the second, ...
    left, right = (np.searchsorted(anchors, group[~positive], side) for side in ("left", "right"))
    upto = np.cumsum(sums(~positive, left + right, 2 * len(anchors) + 1), axis=0, dtype=np.int32)
    hit = np.cumsum(own, axis=0, dtype=np.int32)
    return AnchorCounts(own, hit, upto[:-1:2], upto[1::2], hit[-1], upto[-1])


def _roc_on_grid(n: AnchorCounts) -> FloatArray:
    """(B, G) sensitivity at each false positive rate, linear within groups of equal scores."""
    # The largest number of negatives whose rate does not exceed the grid point, with rates rounded as floating point rounds them.
    total = n.negatives[:, None]  # (B, 1)
    cut = np.floor(CURVE_GRID * total).astype(np.int64) + 1
    for _ in range(2):
        cut -= cut / total > CURVE_GRID
    knots = np.stack([n.before, n.through], axis=1).reshape(-1, len(total))  # (2A, B) before and through each anchor, in order
    passed = _count_below(knots, cut, "right")  # (B, G)
    done = passed // 2  # anchors that are wholly above
    resample = np.arange(len(total))[:, None]
    hits = np.where(done > 0, n.hit[done - 1, resample], 0).astype(np.float64)
    inside = np.minimum(done, len(n.own) - 1)  # the group that the grid point lies in, where `passed` is odd
    within = (n.through - n.before)[inside, resample]
    share = np.divide(CURVE_GRID * total - n.before[inside, resample], within, out=np.zeros(cut.shape), where=within > 0)
    hits += np.where(passed % 2 == 1, n.own[inside, resample] * np.clip(share, 0, 1), 0)
    return np.asarray(hits / n.positives[:, None])


def _pr_on_grid(n: AnchorCounts) -> FloatArray:
    """(B, G) the precision at the first threshold whose recall reaches each grid point: the steps whose area is the average precision."""
    total = n.positives[:, None]
    goal = CURVE_GRID - 1e-12  # in floating point, 9/10 must reach a recall of 0.9
    needed = np.ceil(goal * total).astype(np.int64) - 1
    for _ in range(2):
        needed += needed / total < goal
    # The curve begins at the first threshold that predicts an image: at a negative above all positives its precision is 0.
    resample = np.arange(len(total))[:, None]
    first = _count_below(n.hit, np.maximum(needed, 1), "left")
    hit, before, through = (count[first, resample] for count in (n.hit, n.before, n.through))
    precision = hit / (hit + through)
    return np.where((needed <= 0) & (before > 0), 0.0, precision)


def _count_below(values: Array, queries: Array, side: Literal["left", "right"]) -> IntArray:
    """(B, G) how many values of each column are below the queries (with side="right": or equal). values: (A, B), ascending in A."""
    stride = int(values.max(initial=0)) + int(queries.max(initial=0)) + 2  # keeps the columns apart in one sorted array
    offset = np.arange(values.shape[1], dtype=np.int64)[:, None] * stride
    flat = (values.T + offset).reshape(-1)
    found = np.searchsorted(flat, (queries + offset).reshape(-1), side).reshape(queries.shape)
    return np.asarray(found - np.arange(values.shape[1])[:, None] * len(values))
