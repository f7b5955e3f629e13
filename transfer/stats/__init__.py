"""Confidence intervals, paired differences and tests. The unit that is resampled, counted or swapped is always the patient.

y: (N, C) labels in {0, 1}, NaN = unknown.  s: (N, C) scores.  patient: (N,) names.  A metric is a function of `transfer.metrics` that takes
(y, s, weight); its value is the mean over the labels for which it is defined.
"""

from transfer.stats.auroc_intervals import auroc_difference, auroc_interval, auroc_intervals, pooled_difference, pooled_gap, pooled_interval
from transfer.stats.bootstrap import bootstrap_values, cluster_bootstrap, draw_resamples
from transfer.stats.interval import Interval
from transfer.stats.paired import mcnemar, minimal_detectable_difference, paired_difference, paired_permutation
from transfer.stats.patients import MIN_PATIENTS, patients_per_class
from transfer.stats.verdict import Difference, correct_family, decide_verdict, holm

__all__ = [
    "MIN_PATIENTS",
    "Difference",
    "Interval",
    "auroc_difference",
    "auroc_interval",
    "auroc_intervals",
    "bootstrap_values",
    "cluster_bootstrap",
    "correct_family",
    "decide_verdict",
    "draw_resamples",
    "holm",
    "mcnemar",
    "minimal_detectable_difference",
    "paired_difference",
    "paired_permutation",
    "patients_per_class",
    "pooled_difference",
    "pooled_gap",
    "pooled_interval",
]
