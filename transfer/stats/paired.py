"""Paired comparison of two encoders on the same test patients."""

import numpy as np

from encoders.runtime.arrays import Array
from encoders.runtime.random import Purpose, generator
from transfer.metrics import auroc, macro
from transfer.stats.auroc_intervals import auroc_difference
from transfer.stats.bootstrap import Metric, bootstrap_difference, percentile_interval
from transfer.stats.patients import encode_patients, few_patients_note, to_columns
from transfer.stats.permutation import PERMUTATION_CHUNK, midranks
from transfer.stats.verdict import Difference, decide_verdict


def paired_difference(
    metric: Metric, y: Array, s_a: Array, s_b: Array, patient: Array, n: int = 1000, seed: int = 0, level: float = 0.95
) -> Difference:
    """Metric of `s_a` minus metric of `s_b` with interval, p-value and verdict. AUROC: clustered DeLong; otherwise patient bootstrap.

    y, s_a, s_b: (N,) or (N, C).  The bootstrap's p-value is twice the smaller share of resamples on either side of zero."""
    if metric is auroc:
        return auroc_difference(y, s_a, s_b, patient, level)
    value, values = bootstrap_difference(metric, y, s_a, s_b, patient, n, seed)
    low, high = percentile_interval(values, level)
    known = values[~np.isnan(values)]
    tail = min((known <= 0).sum(), (known >= 0).sum())
    p = min(1.0, 2 * (float(tail) + 1) / (len(known) + 1))
    method = f"paired patient bootstrap, {n} resamples"
    return Difference(value, low, high, p, decide_verdict(low, high), method, level, few_patients_note(y, patient))


def paired_permutation(metric: Metric, y: Array, s_a: Array, s_b: Array, patient: Array, n: int = 1000, seed: int = 0) -> float:
    """Two-sided p-value of the difference under random swaps of the scores of the two encoders, patient by patient.

    For AUROC, scores are replaced by ranks, because only their order is comparable between encoders (Bandos et al. 2005). Swaps are
    weights: the rows of both encoders are stacked, and a row has weight 1 on the side it is assigned to."""
    y, a, b = to_columns(y), to_columns(s_a), to_columns(s_b)
    if metric is auroc:
        a, b = midranks(a), midranks(b)
    code, size = encode_patients(patient)
    both_y, both = np.concatenate([y, y]), np.concatenate([a, b])
    draw = generator(seed, Purpose.BOOTSTRAP, 1)
    observed = abs(macro(np.asarray(metric(y, a)) - np.asarray(metric(y, b)))[0])
    as_large = 0
    for start in range(0, n, PERMUTATION_CHUNK):
        swap = draw.integers(0, 2, (size, min(PERMUTATION_CHUNK, n - start))).astype(np.float32)[code]  # (N, B)
        first = np.asarray(metric(both_y, both, weight=np.concatenate([1 - swap, swap])))
        second = np.asarray(metric(both_y, both, weight=np.concatenate([swap, 1 - swap])))
        as_large += int((np.abs(macro(first - second)[0]) >= observed - 1e-12).sum())  # 1e-12: rounding
    return (as_large + 1) / (n + 1)


def mcnemar(right_a: Array, right_b: Array, patient: Array) -> tuple[float, str]:
    """p-value of equal accuracy, and the method. right_a, right_b: (N,) booleans, whether each row was classified correctly.

    One image per patient: the exact binomial test on discordant rows. Several: Durkalski et al. 2003 (Stat Med 22, 2417), whose variance is
    between patients; the plain test would treat images of one patient as independent."""
    from scipy.stats import binomtest, chi2

    a, b = np.asarray(right_a, dtype=bool), np.asarray(right_b, dtype=bool)
    code, size = encode_patients(patient)
    if size == len(a):
        won, lost = int((a & ~b).sum()), int((b & ~a).sum())
        return (float(binomtest(won, won + lost).pvalue) if won + lost else 1.0), "McNemar, exact"
    mean = np.bincount(code, weights=a.astype(float) - b, minlength=size) / np.bincount(code, minlength=size)
    variance = float((mean**2).sum())
    return (float(chi2.sf(mean.sum() ** 2 / variance, 1)) if variance > 0 else 1.0), "McNemar, clustered by patient (Durkalski 2003)"


def minimal_detectable_difference(difference: Difference, power: float = 0.8) -> float:
    """The true difference for which a test set like this one gives the verdict "better" with the given power.

    From the width of the interval: half of it is the quantile times the standard error, to which the quantile of the power is added."""
    from scipy.special import ndtri

    half = (difference.high - difference.low) / 2
    quantile = ndtri((1 + difference.level) / 2)
    return float(half * (1 + ndtri(power) / quantile))
