"""Rows on features and records: k-NN, linear probe, bootstrap, comparison of encoders."""

import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from tests.perf.bench.measure import Row, alternate


def knn() -> Iterator[Row]:
    """The k-NN probe, and a search of the same rows by faiss."""
    import faiss

    from transfer.protocols.common import Features
    from transfer.protocols.knn import Fitted

    n, m, d, k = 20_000, 2_000, 512, 200
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n + m, d)).astype(np.float32)
    y, names = np.eye(9, dtype=np.float32)[rng.integers(0, 9, n)], np.arange(n).astype(str)
    fitted = Fitted(Features(x[:n], y, names, names, "multiclass"), k, 0.07, "weighted", {})
    queries, unit = Features(x[n:], y[:0], names[:0], names[:0], "multiclass"), x / np.linalg.norm(x, axis=1, keepdims=True)

    def plain() -> None:
        index = faiss.IndexFlatIP(d)
        index.add(unit[:n])
        index.search(unit[n:], k)

    ours, theirs = alternate(3, lambda: fitted.scores(queries), plain)
    yield Row("k-NN probe, 20,000 x 512, 2,000 queries", "faiss, flat", 1.2, ours, theirs)


def linear() -> Iterator[Row]:
    """45 values of C, and every fifth or ninth of them by scikit-learn, whose time is multiplied."""
    from sklearn.linear_model import LogisticRegression

    from tests.perf.logistic import GRID, make_data
    from transfer.protocols.logistic import solve_logistic

    warnings.simplefilter("ignore")
    for n, d, classes, every, limit in ((2_000, 1280, 1, 5, 0.5), (10_000, 512, 9, 9, 0.2)):
        x, y = make_data(n, d, classes)
        kind = "multiclass" if classes > 1 else "binary"
        z = ((x - x.mean(0)) / x.std(0)).astype(float)  # in float32 scikit-learn stops at a larger loss
        labels = y.argmax(1) if classes > 1 else y[:, 0]

        def by_sklearn(z=z, labels=labels, every=every) -> None:
            for c in GRID[every // 2 :: every]:
                LogisticRegression(C=c, max_iter=10_000).fit(z, labels)

        ours, theirs = alternate(1, lambda x=x, y=y, kind=kind: solve_logistic(x, y, GRID, kind), by_sklearn)
        work = f"linear probe, {n:,} x {d:,}, {max(classes, 2)} classes, 45 values of C"
        yield Row(work, "scikit-learn", limit, ours, [every * seconds for seconds in theirs])


def linear_memory() -> Iterator[Row]:
    """Peak memory of a probe over its float32 features."""
    from tests.perf.linear_memory import measure_ratio

    ours, theirs = measure_ratio(40_000, 1024, 1), measure_ratio(40_000, 1024, 1, sklearn=True)
    yield Row("linear probe, memory over its features", limit=2.5, ours=[ours], unit="x")
    yield Row("the same by scikit-learn, one C", ours=[theirs], unit="x")


def bootstrap() -> Iterator[Row]:
    """200 resamples of AUROC over 14 labels, and two of them by scikit-learn, whose time is multiplied."""
    from sklearn.metrics import roc_auc_score

    from transfer.metrics import auroc
    from transfer.stats.bootstrap import bootstrap_values, draw_resamples

    n, labels, resamples = 25_596, 14, 200
    rng = np.random.default_rng(0)
    y = (rng.random((n, labels)) < np.geomspace(0.002, 0.2, labels)).astype(np.float32)
    s = (rng.normal(size=(n, labels)) + y).astype(np.float32)
    patient = rng.integers(0, 2_797, n).astype(str)
    weights = next(draw_resamples(patient, 2))

    def by_sklearn() -> None:
        for b in range(2):
            rows = np.repeat(np.arange(n), weights[:, b].astype(int))
            for c in range(labels):
                roc_auc_score(y[rows, c], s[rows, c])

    ours, theirs = alternate(3, lambda: bootstrap_values(auroc, y, s, patient, resamples), by_sklearn)
    yield Row("AUROC, 200 resamples x 14 labels x 25,596", "scikit-learn", 0.05, ours, [resamples / 2 * seconds for seconds in theirs])


def compare() -> Iterator[Row]:
    """`transfer compare` and `transfer report` of 16 records of NIH's size, with all imports, the first time and again."""
    from tests.perf.many_records import run_command, write_records

    with tempfile.TemporaryDirectory() as folder:
        home, os.environ["ISOGRAFT_HOME"] = os.environ.get("ISOGRAFT_HOME"), folder
        try:
            count = write_records(4)
            for title, limit in (("first time", 16.0), ("again", 5.0)):
                for command in ("compare", "report"):
                    yield Row(f"transfer {command}, {count} records of NIH's size, {title}", limit=limit,
                              ours=[run_command([command], Path(folder))[0]])  # fmt: skip
        finally:
            os.environ.pop("ISOGRAFT_HOME")
            if home is not None:
                os.environ["ISOGRAFT_HOME"] = home
