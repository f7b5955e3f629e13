"""1,000 clustered resamples x 14 labels x 25,596 images against a loop over scikit-learn: prints the speed-up (target: at least 20).

    OMP_NUM_THREADS=1 python -m tests.perf.bootstrap

scikit-learn computes a few resamples (all labels), which also checks the values; its time is scaled up.
"""

import argparse
import time

import numpy as np
from sklearn.metrics import roc_auc_score

from transfer.metrics import auroc
from transfer.stats.bootstrap import bootstrap_values, draw_resamples


def main(n: int = 25_596, labels: int = 14, patients: int = 2_797, resampled: int = 1_000, checked: int = 5) -> None:
    rng = np.random.default_rng(0)
    prevalence = np.geomspace(0.002, 0.2, labels)  # as in NIH ChestX-ray14
    y = (rng.random((n, labels)) < prevalence).astype(np.float32)
    s = (rng.normal(size=(n, labels)) + y).astype(np.float32)
    patient = rng.integers(0, patients, n).astype(str)
    start = time.process_time()
    values = bootstrap_values(auroc, y, s, patient, resampled)
    ours = time.process_time() - start
    weights = next(draw_resamples(patient, resampled))
    start, largest = time.process_time(), 0.0
    for b in range(checked):
        rows = np.repeat(np.arange(n), weights[:, b].astype(int))
        want = np.array([roc_auc_score(y[rows, c], s[rows, c]) for c in range(labels)])
        largest = max(largest, float(np.abs(want - values[b]).max()))
    reference = (time.process_time() - start) * resampled / checked
    print(f"ours {ours:.1f} s, scikit-learn {reference:.0f} s, {reference / ours:.0f} times faster; largest difference {largest:.1e}")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
