"""Prints steps per second of pretraining with 1 and with 2 processes, relative to ideal scaling, and the share of communication.

    python tests/perf/scaling.py [--steps 30] [--rounds 3] [key=value ...]

`torchrun` starts the processes; they communicate over gloo, with one thread each and noise as images. The batch is over all processes, so
R processes are ideally R times as fast. One and two processes alternate; the median step of each start counts, without its first third.
Printed are the median over rounds, the lowest and the highest. The share of the gradients is the time to sum as many bytes when all
processes are ready; DDP overlaps a part of it with the backward pass. The communication of BatchNorm over all processes and of the losses
is timed in the step itself, including the wait for a slower process. `batchnorm=train` shows the cost of BatchNorm.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

WORLDS = (1, 2)
RECIPE = ["arch=resnet10t", "size=64", "batch=64", "precision=fp32", "threads=1", "epochs=null", "warmup_steps=1", "log_every=1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--process", metavar="FOLDER", help=argparse.SUPPRESS)  # the script starts itself as one of the measured processes
    parser.add_argument("settings", nargs="*", help="settings of the recipe cxr_simclr_tiny, e.g. arch=resnet18 batch=128")
    args = parser.parse_args()
    if args.process:
        train_and_measure(Path(args.process), [*RECIPE, f"steps={args.steps}", *args.settings])
        return
    with tempfile.TemporaryDirectory() as home:
        pixels = np.random.default_rng(0).integers(0, 256, (512, 96, 96, 1)).astype(np.uint8)
        from encoders.store.write import save_store

        save_store(Path(home) / "noise.h5", pixels)
        measured: dict[int, list[dict[str, float]]] = {world: [] for world in WORLDS}
        for _ in range(args.rounds):
            for world in WORLDS:
                measured[world].append(run_processes(world, Path(home)))
    print_table(measured)


def run_processes(world: int, home: Path) -> dict[str, float]:
    """Seconds of a step and of its communication, measured by `world` processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    env = os.environ | {"ISOGRAFT_HOME": str(home), "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, __file__, "--process", home, *sys.argv[1:]], check=True, env=env, stdout=subprocess.DEVNULL)
    measured: dict[str, float] = json.loads((home / "measured.json").read_text())
    return measured


def train_and_measure(home: Path, settings: list[str]) -> None:
    """Trains as one of the processes; the main process writes its measurements to FOLDER/measured.json."""
    from encoders.runtime import dist
    from encoders.runtime.allocator import keep_freed_memory
    from encoders.runtime.stop import StopRequest
    from pretrain.loop.setup import build_setup
    from pretrain.loop.train import TrainState, fit
    from pretrain.recipe import config
    from pretrain.run.process import prepare_process

    keep_freed_memory()  # as every command does
    device = prepare_process("cpu", 1)
    spent = time_collectives()
    setup = build_setup(config.load_recipe("cxr_simclr_tiny", [f"data.store={home / 'noise.h5'}", *settings]), device)
    ends: list[tuple[float, float]] = []

    def log(step: int, **numbers: object) -> None:
        ends.append((time.perf_counter(), sum(spent)))

    fit(setup.method, setup.batches, setup.optimizer, setup.scaler, setup.recipe, setup.steps, setup.warmup, TrainState(), log,
        lambda state: None, StopRequest(), setup.device)  # fmt: skip
    setup.batches.close()
    steps, shared = np.diff(ends, axis=0)[len(ends) // 3 :].T
    n_parameters = sum(p.numel() for p in setup.method.parameters() if p.requires_grad)
    measured = {
        "step": float(np.median(steps)),
        "gradients": time_all_reduce(n_parameters),
        "rows": float(np.median(shared)),
        "megabytes": n_parameters * 4 / 1e6,
    }
    if dist.is_main():
        (home / "measured.json").write_text(json.dumps(measured))
    dist.leave_process_group()


def time_collectives() -> list[float]:
    """A list that receives the seconds of each later collective call, except those of DDP: rows gathered for a loss, BatchNorm."""
    import torch.distributed as td

    spent: list[float] = []

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any, **more: Any) -> Any:
            start = time.perf_counter()
            try:
                return call(*args, **more)
            finally:
                spent.append(time.perf_counter() - start)

        return inner

    td.all_gather, td.all_reduce = timed(td.all_gather), timed(td.all_reduce)
    return spent


def time_all_reduce(numbers: int, repeats: int = 20) -> float:
    """Median seconds to sum that many float32 values over the processes; 0 for a single process."""
    import torch
    import torch.distributed as td

    from encoders.runtime import dist

    if dist.world_size() == 1:
        return 0.0
    x, spent = torch.zeros(numbers), []
    for _ in range(repeats):
        dist.barrier()
        start = time.perf_counter()
        td.all_reduce(x)
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def print_table(measured: dict[int, list[dict[str, float]]]) -> None:
    """Prints, per number of processes: steps per second, share of the ideal, shares of a step for gradients and for rows and statistics."""
    alone = statistics.median(1 / one["step"] for one in measured[1])
    print(f"{len(os.sched_getaffinity(0))} cores; {measured[1][0]['megabytes']:.1f} MB of gradients; {len(measured[1])} round(s)")
    print("processes  steps/s (low-high)      of the ideal  gradients  rows, BatchNorm and waiting")
    for world, rounds in measured.items():
        rates = [1 / one["step"] for one in rounds]
        rate = statistics.median(rates)
        share, rows = (statistics.median(one[name] / one["step"] for one in rounds) for name in ("gradients", "rows"))
        low, high = min(rates), max(rates)
        ideal = 100 * rate / alone / world
        print(f"{world:9}  {rate:5.2f} ({low:.2f}-{high:.2f})  {ideal:15.0f} %  {100 * share:7.1f} %  {100 * rows:24.1f} %")


if __name__ == "__main__":
    main()
