"""The k-NN probe against a bare faiss flat search of the same rows: prints the ratio of CPU seconds (aim: at most 1.15).

    OMP_NUM_THREADS=1 python -m tests.perf.knn

Scoring is compared: normalising, searching and voting against `IndexFlatIP.add` and `search` of rows that are normalised already.
"""

import time

import faiss
import numpy as np

from transfer.protocols.common import Features
from transfer.protocols.knn import Fitted


def main(n: int = 20_000, m: int = 4_000, d: int = 512, k: int = 200, classes: int = 9) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n + m, d)).astype(np.float32)
    y = np.eye(classes, dtype=np.float32)[rng.integers(0, classes, n)]
    names = np.arange(n).astype(str)
    fitted = Fitted(Features(x[:n], y, names, names, "multiclass"), k, 0.07, "weighted", {})
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    bare, ours = [], []
    for _ in range(3):
        begun = time.process_time()
        index = faiss.IndexFlatIP(d)
        index.add(unit[:n])
        index.search(unit[n:], k)
        bare.append(time.process_time() - begun)
        begun = time.process_time()
        fitted.scores(x[n:])
        ours.append(time.process_time() - begun)
    print(f"{n} x {d} bank, {m} queries, k = {k}: ours {min(ours):.2f} s, faiss {min(bare):.2f} s, ratio {min(ours) / min(bare):.3f}")


if __name__ == "__main__":
    main()
