"""The best probe of a run by the online k-NN, for `watch.stop_at_best`: pure functions of the lines of metrics.jsonl.

They choose a step on the labeled images of the probe, so these images must belong to no test set; the card of the encoder says so.
"""

import math
from collections.abc import Collection, Sequence

from pretrain.watch.diagnose import MetricsLine


def find_best(lines: Sequence[MetricsLine], steps: Collection[int] | None = None) -> MetricsLine | None:
    """The line with the highest k-NN accuracy, the first of equal ones; None without a finite one.

    steps: those to choose from; None: all."""
    probed = [line for line in probes(lines) if steps is None or int(line["step"]) in steps]
    return max(probed, key=lambda line: line["watch/knn"], default=None)  # `max` returns the first of equal ones


def count_probes_since_best(lines: Sequence[MetricsLine]) -> int:
    """Probes after the best one; 0 without a probe. A probe whose features are NaN or inf counts."""
    best = find_best(lines)
    return 0 if best is None else sum("watch/knn" in line and line["step"] > best["step"] for line in lines)


def probes(lines: Sequence[MetricsLine]) -> list[MetricsLine]:
    """The lines with a finite k-NN accuracy."""
    return [line for line in lines if math.isfinite(line.get("watch/knn", math.nan))]
