"""The k-NN probe against a plain faiss flat search of the same rows: prints the ratio of CPU seconds (target: at most 1.2).

    OMP_NUM_THREADS=1 python -m tests.perf.knn

Compares scoring (normalise, search, vote) with `IndexFlatIP.add` and `search` of rows that are already normalised.
"""

import argparse
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
    queries = Features(x[n:], y[:0], names[:0], names[:0], "multiclass")
    plain, ours = [], []
    for _ in range(3):
        start = time.process_time()
        index = faiss.IndexFlatIP(d)
        index.add(unit[:n])
        index.search(unit[n:], k)
        plain.append(time.process_time() - start)
        start = time.process_time()
        fitted.scores(queries)
        ours.append(time.process_time() - start)
    print(f"{n} x {d} bank, {m} queries, k = {k}: ours {min(ours):.2f} s, faiss {min(plain):.2f} s, ratio {min(ours) / min(plain):.3f}")


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    main()
