"""Prints the project's speed as one table: what was measured, its limit, what a user would use instead, both times and their ratio.

    make bench                        # all rows, under ten minutes on a quiet machine with two cores
    make bench ARGS="knn loops"       # some rows
    make bench ARGS=growth            # how seven works grow with 1,000 to 64,000 images, with the fitted exponent; takes minutes
    make bench ARGS="growth:knn"      # one of them
    make bench ARGS=--list

Every row is measured in a process of its own, with one thread. A row whose peer is missing says so: `pip install -e '.[peers]'`.
Exit status: 0, or 1 if a limit is missed or a row failed.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.perf.bench import images, pretraining, probes
from tests.perf.bench.growth import CURVES, SIZES, growth_rows
from tests.perf.bench.measure import HEAD, Row

ROWS: dict[str, Callable[[], Iterator[Row]]] = {
    "listings": pretraining.listings,
    "loops": pretraining.loops,
    "command": pretraining.command,
    "watchdog": pretraining.watchdog,
    "augmentation": images.augmentation,
    "augmentation_without_antialiasing": images.augmentation_without_antialiasing,
    "store_reads": images.store_reads,
    "tiling": images.tiling,
    "near_copies": images.near_copies,
    "tasks_add": images.tasks_add,
    "knn": probes.knn,
    "linear": probes.linear,
    "linear_memory": probes.linear_memory,
    "bootstrap": probes.bootstrap,
    "compare": probes.compare,
}
WIDTHS = (58, 9, 24, 8, 8, 22)  # of the columns but the last
GROWTH_WIDTHS = (12, *(9 for _ in SIZES))
CPU_FILE = Path("/proc/cpuinfo")
MISSED = 1  # exit status of the process of a row, and of the command


def describe_machine() -> str:
    """Processor, cores, load and versions, for the line above the table."""
    from importlib.metadata import version

    model = next((s.partition(":")[2].strip() for s in CPU_FILE.read_text().splitlines() if s.startswith("model name")), platform.machine())
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    packages = " ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "timm"))
    return f"{model}, {len(os.sched_getaffinity(0))} CPUs, load {load}; Python {platform.python_version()}, {packages}"


def print_line(cells: Sequence[str], widths: Sequence[int]) -> None:
    print("  ".join(f"{cell:{width}}" for cell, width in zip(cells, (*widths, 0), strict=True)).rstrip(), flush=True)


def measure_here(name: str) -> int:
    """Measures a row in this process and prints its lines; returns the exit status."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import torch

    from encoders.runtime.allocator import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()  # as every command does
    if name.startswith("growth:"):
        for cells in growth_rows([name.partition(":")[2]]):
            print_line(cells, GROWTH_WIDTHS)
        return 0
    missed = False
    for row in ROWS[name]():
        print_line(row.cells(), WIDTHS)
        missed |= row.is_met is False
    return MISSED if missed else 0


def expand_names(asked: Sequence[str]) -> list[str]:
    """The rows that were asked for: all of the table by default; `growth` stands for all curves. Raises SystemExit for an unknown name."""
    known = [*ROWS, *(f"growth:{name}" for name in CURVES)]
    names = [one for name in asked or ROWS for one in ([f"growth:{curve}" for curve in CURVES] if name == "growth" else [name])]
    if unknown := sorted(set(names) - set(known)):
        raise SystemExit(f"there is no row {unknown[0]!r}; choose from {', '.join(known)}, or growth")
    return names


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", help="names of rows, growth, or growth:NAME  [default: the whole table]")
    parser.add_argument("--list", action="store_true", help="list the names of the rows")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)  # the process of one row
    args = parser.parse_args()
    if args.list:
        print("\n".join([*ROWS, *(f"growth:{name}" for name in CURVES)]))
        return
    names = expand_names(args.rows)
    if args.here:
        raise SystemExit(measure_here(names[0]))
    print(describe_machine())
    started, bad, headed = time.monotonic(), 0, ""
    for name in names:
        kind = "growth" if name.startswith("growth:") else "table"
        if kind != headed:
            headed = kind
            head = (HEAD, WIDTHS) if kind == "table" else (["CPU s", *(f"N={n:,}" for n in SIZES), "exponent"], GROWTH_WIDTHS)
            print_line(*head)
        env = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, "-m", "tests.perf.bench", "--here", name], env=env, check=False, stderr=subprocess.PIPE, text=True
        )
        if done.returncode not in (0, MISSED) or "Traceback" in done.stderr:
            print(f"{name}: failed: {(done.stderr.strip().splitlines() or ['no message'])[-1]}", flush=True)
        bad += done.returncode != 0
    print(f"{time.monotonic() - started:.0f} s; load at the end {os.getloadavg()[0]:.1f}")
    raise SystemExit(MISSED if bad else 0)


if __name__ == "__main__":
    main()
