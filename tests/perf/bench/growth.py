"""How the time of each work grows with the number of images N: CPU seconds at each N, and the exponent fitted to them.

The exponent is the slope of log seconds over log N from the second size on, as the first one is mostly constant cost: 1 is linear, 2 all
pairs.
Images are made up, 32 pixels a side, in thousands of patients.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from encoders.runtime.arrays import Array
from tests.perf.bench.measure import Work, cpu_seconds

SIZES = (1_000, 4_000, 16_000, 64_000)
Prepare = Callable[[Path, int], Work]


def fit_exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The slope of log seconds over log N by least squares, without the first size."""
    slope, _ = np.polyfit(np.log(sizes[1:]), np.log(seconds[1:]), 1)
    return float(slope)


def made_up_hashes(n: int) -> Array:
    """(N, 4, 32) hashes of unrelated images."""
    from tests.perf.leak import hash_signs_of_random_images

    return hash_signs_of_random_images(n, np.random.default_rng(0))


def features(n: int, d: int = 128) -> tuple[Array, Array]:
    """(N, D) features and (N, 1) labels that they partly predict."""
    from tests.perf.logistic import make_data

    return make_data(n, d, 1)


def ingest(folder: Path, n: int) -> Work:
    """`encoders ingest hdf5` of N arrays, in one process."""
    import h5py
    from typer.testing import CliRunner

    from encoders.cli.main import app

    draw = np.random.default_rng(0)
    with h5py.File(folder / "arrays.h5", "w") as file:
        file["x"] = draw.integers(0, 256, (n, 32, 32), dtype=np.uint8)
        file["y"] = draw.integers(0, 2, n)

    def work() -> None:
        words = ["ingest", "hdf5", str(folder / "arrays.h5"), str(folder / "store.h5"), "--images", "x", "--labels", "y", "--workers", "1"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output

    return work


def tasks_add(folder: Path, n: int) -> Work:
    """`transfer tasks add` with 14 labels and the search for copies among all images."""
    from typer.testing import CliRunner

    from tests.perf.tasks_add import write_synthetic_store
    from transfer.cli.main import app

    store = write_synthetic_store(folder / "s.h5", n, 14)
    names = [word for i in range(14) for word in ("--label", f"finding_{i:02d}")]

    def work() -> None:
        done = CliRunner().invoke(app, ["tasks", "add", "nih", str(store), "--replace", *names])
        assert done.exit_code == 0, done.output

    return work


def doctor(folder: Path, n: int) -> Work:
    """`encoders doctor`: checks, near-duplicates, floor of a prediction without a network."""
    from encoders.doctor.checks import examine_store
    from encoders.store.store import Store
    from tests.perf.tasks_add import write_synthetic_store

    path = write_synthetic_store(folder / "s.h5", n, 2)
    return lambda: examine_store(Store.open(path))


def gate(folder: Path, n: int) -> Work:
    """The leakage gate's search for a quarter of N test images, in sixteen turns, in a manifest of N."""
    from encoders.similarity.turned_search import find_candidates

    manifest, tested = made_up_hashes(n), made_up_hashes(n // 4)[:, :, ::-1].copy()
    return lambda: find_candidates(tested, manifest[:, 0], manifest[:, 2])


def knn(folder: Path, n: int) -> Work:
    """The k-NN probe: N images in the bank, 1,000 queries."""
    from transfer.protocols.common import Features
    from transfer.protocols.knn import Fitted

    x, y = features(n + 1_000)
    names = np.arange(n + 1_000).astype(str)
    fitted = Fitted(Features(x[:n], y[:n], names[:n], names[:n], "binary"), 20, 0.07, "weighted", {})
    queries = Features(x[n:], y[n:], names[n:], names[n:], "binary")
    return lambda: fitted.scores(queries)


def linear(folder: Path, n: int) -> Work:
    """The linear probe: 45 values of C on N images."""
    from tests.perf.logistic import GRID
    from transfer.protocols.logistic import solve_logistic

    x, y = features(n)
    return lambda: solve_logistic(x, y, GRID, "binary")


def compare(folder: Path, n: int) -> Work:
    """Table and comparison of two encoders: 14 labels, N test images of N / 4 patients."""
    from tests.perf.report_page import nih_record
    from transfer.tables.build import build_sections

    sizes = {"val": (n, n // 4), "test": (n, n // 4)}
    records = [
        nih_record(name, role, skill, sizes=sizes) for name, role, skill in (("mine", "encoder", 1.2), ("imagenet", "imagenet", 0.9))
    ]
    return lambda: build_sections(records)


CURVES: dict[str, Prepare] = {
    "ingest": ingest,
    "tasks add": tasks_add,
    "doctor": doctor,
    "gate": gate,
    "knn": knn,
    "linear": linear,
    "compare": compare,
}


def measure_curve(prepare: Prepare, sizes: Sequence[int] = SIZES) -> list[float]:
    """CPU seconds at each size; the smallest size runs once before, so that no import is counted."""
    seconds = []
    for n in (sizes[0], *sizes):
        with tempfile.TemporaryDirectory() as folder:
            os.environ["ISOGRAFT_HOME"] = folder
            seconds.append(cpu_seconds(prepare(Path(folder), n)))
    return seconds[1:]


def growth_rows(names: Sequence[str]) -> Iterator[list[str]]:
    """A line of the table for each curve: seconds at each size, and the exponent."""
    for name in names:
        seconds = measure_curve(CURVES[name])
        yield [name, *(f"{value:.3g}" for value in seconds), f"{fit_exponent(SIZES, seconds):.2f}"]
