"""Peak memory of the linear probe as `transfer bench` runs it, as a multiple of the float32 train features. Target: at most 2.5.

    OMP_NUM_THREADS=1 python -m tests.perf.linear_memory [--rows 60000] [--width 1024] [--labels 1,14]

Features of a store in a cached file, with 70 % of the rows in train, 10 % in val and 20 % in test; then all C on the train part, the
choice, and the scores of val and test. Peak resident memory of a process of its own, minus that after the imports. Prints that of
scikit-learn, too: StandardScaler and LogisticRegression at one C, with one label.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=60_000, help="of the train part")
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--labels", default="1,14")
    asked = parser.parse_args()
    for labels in map(int, asked.labels.split(",")):
        for refit in (False, True):
            ratio = measure_ratio(asked.rows, asked.width, labels, refit=refit)
            print(f"{asked.rows} x {asked.width}, {labels} labels{', refit' * refit}: {ratio:.2f} times the train features", flush=True)
    print(f"scikit-learn, one C: {measure_ratio(asked.rows, asked.width, 1, sklearn=True):.2f} times the train features")


def measure_ratio(rows: int, width: int, labels: int, steps: int = 45, refit: bool = False, sklearn: bool = False) -> float:
    """Peak memory of a probe in a process of its own, minus that after its imports, over the size of the float32 train features."""
    with tempfile.TemporaryDirectory() as folder:
        code = f"from tests.perf.linear_memory import probe; probe({folder!r}, {rows}, {width}, {labels}, {steps}, {refit}, {sklearn})"
        prepare = f"from tests.perf.linear_memory import write_features; write_features({folder!r}, {rows}, {width}, {labels})"
        for command in (prepare, code):
            done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
            if done.returncode:
                raise RuntimeError(done.stderr)
        return float(done.stdout) / (4 * rows * width)


def write_features(folder: str, rows: int, width: int, labels: int) -> None:
    """Features of a CNN, of which each label follows some, positives from 1 to 50 %."""
    draw = np.random.default_rng(0)
    n = round(rows / SHARES["train"])
    x = np.lib.format.open_memmap(Path(folder) / "x.npy", mode="w+", dtype=np.float32, shape=(n, width))
    y = np.empty((n, labels), np.float32)
    direction = draw.normal(size=(width, labels)).astype(np.float32) / width**0.5
    for at in range(0, n, 4096):
        x[at : at + 4096] = np.maximum(draw.normal(size=(len(x[at : at + 4096]), width)), 0)
        score = x[at : at + 4096] @ direction + draw.normal(size=(len(x[at : at + 4096]), labels))
        y[at : at + 4096] = score > np.linspace(0, 2.3, labels)
    np.save(Path(folder) / "y.npy", y)


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def probe(folder: str, rows: int, width: int, labels: int, steps: int, refit: bool, sklearn: bool) -> None:
    """Prints by how many bytes the peak rises."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from transfer.bench.lazy_features import FeatureRows
    from transfer.protocols import linear
    from transfer.protocols.common import Features

    y = np.load(Path(folder) / "y.npy")
    store = np.load(Path(folder) / "x.npy", mmap_mode="r")
    features, names = FeatureRows([store], [np.arange(len(y))]), np.arange(len(y)).astype(str)
    part = np.random.default_rng(1).permutation(np.repeat([*SHARES], [rows, round(rows / 7), len(y) - rows - round(rows / 7)]))
    warm = np.random.default_rng(2).normal(size=(64, 8)).astype(np.float32)
    linear.solve_logistic(warm, (warm[:, :1] > 0).astype(np.float32), [1.0], "binary")  # loads BLAS

    def take(name: str) -> Features:
        at = np.flatnonzero(part == name)
        return Features(features[at], y[at], names[at], names[at], "binary" if labels == 1 else "multilabel")

    before = peak_bytes()
    if sklearn:
        train = take("train")
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=20)).fit(train.x, train.y[:, 0])
    else:
        train, val = take("train"), take("val")
        fitted = linear.fit(linear.Config(steps=steps, refit=refit), train, val)
        fitted.scores(val)
        fitted.scores(take("test"))
    print(peak_bytes() - before)


if __name__ == "__main__":
    main()
