"""Prints steps a second of pretraining with 1 and with 2 processes, against the ideal, and the share of a step that communication takes.

    python tests/perf/scaling.py [--steps 30] [--rounds 3] [key=value ...]

`torchrun` starts the processes; they join over gloo, one thread each, with noise for images. The batch is over all processes, so R of them
are ideally R times as fast. One and two take turns; of each start the median step counts, its first third left out; printed is the median
over rounds, with the lowest and highest. The gradients' share is the time that summing as many bytes takes when every process is ready for
it: DDP hides a part of it behind the backward pass. What BatchNorm over all processes and the losses exchange is timed in the step itself,
with the waiting for a slower process in it. `sync_batchnorm=false` shows what BatchNorm's part costs.
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
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--steps", type=int, default=30)
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--process", metavar="FOLDER", help=argparse.SUPPRESS)  # one of the processes that are measured
    ask.add_argument("settings", nargs="*", help="settings of the recipe cxr_simclr_tiny, e.g. arch=resnet18 batch=128")
    args = ask.parse_args()
    if args.process:
        train_and_measure(Path(args.process), [*RECIPE, f"steps={args.steps}", *args.settings])
        return
    with tempfile.TemporaryDirectory() as home:
        pixels = np.random.default_rng(0).integers(0, 256, (512, 96, 96, 1)).astype(np.uint8)
        from encoders.store.write import save_store

        save_store(Path(home) / "noise.h5", pixels)
        found: dict[int, list[dict[str, float]]] = {world: [] for world in WORLDS}
        for _ in range(args.rounds):
            for world in WORLDS:
                found[world].append(run_processes(world, Path(home)))
    format_table(found)


def run_processes(world: int, home: Path) -> dict[str, float]:
    """Seconds of a step and of its communication, measured by `world` processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={world}"]
    env = os.environ | {"ISOGRAFT_HOME": str(home), "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    subprocess.run([*launch, __file__, "--process", home, *sys.argv[1:]], check=True, env=env, stdout=subprocess.DEVNULL)
    told: dict[str, float] = json.loads((home / "told.json").read_text())
    return told


def train_and_measure(home: Path, settings: list[str]) -> None:
    """Trains as one of the processes; the main one leaves what it measured in FOLDER/told.json."""
    from encoders.runtime import dist
    from encoders.runtime.allocator import keep_freed_memory
    from encoders.runtime.stop import StopRequest
    from pretrain.loop.setup import build_setup
    from pretrain.loop.train import TrainState, fit
    from pretrain.recipe import config
    from pretrain.run.lifecycle import prepare_process

    keep_freed_memory()  # as every command does
    device = prepare_process("cpu", 1)
    spent = time_collectives()
    made = build_setup(config.load_recipe("cxr_simclr_tiny", [f"data.store={home / 'noise.h5'}", *settings]), device)
    ends: list[tuple[float, float]] = []
    fit(made.method, made.batches, made.optimizer, made.scaler, made.recipe, made.steps, made.warmup, TrainState(),
        lambda step, **numbers: ends.append((time.perf_counter(), sum(spent))), lambda state: None, StopRequest(), made.device)  # fmt: skip
    made.batches.close()
    steps, shared = np.diff(ends, axis=0)[len(ends) // 3 :].T
    wanted = sum(p.numel() for p in made.method.parameters() if p.requires_grad)
    told = {
        "step": float(np.median(steps)),
        "gradients": time_all_reduce(wanted),
        "rows": float(np.median(shared)),
        "megabytes": wanted * 4 / 1e6,
    }
    if dist.is_main():
        (home / "told.json").write_text(json.dumps(told))
    dist.leave_process_group()


def time_collectives() -> list[float]:
    """Seconds of each collective that is called from now on, but for DDP's own: rows gathered for a loss, BatchNorm over all processes."""
    import torch.distributed as td

    spent: list[float] = []

    def timed(call: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any, **more: Any) -> Any:
            begun = time.perf_counter()
            try:
                return call(*args, **more)
            finally:
                spent.append(time.perf_counter() - begun)

        return inner

    td.all_gather, td.all_reduce = timed(td.all_gather), timed(td.all_reduce)
    return spent


def time_all_reduce(numbers: int, repeats: int = 20) -> float:
    """Median seconds in which the processes sum as many float32; 0 for a process alone."""
    import torch
    import torch.distributed as td

    from encoders.runtime import dist

    if dist.world_size() == 1:
        return 0.0
    x, spent = torch.zeros(numbers), []
    for _ in range(repeats):
        dist.barrier()
        begun = time.perf_counter()
        td.all_reduce(x)
        spent.append(time.perf_counter() - begun)
    return statistics.median(spent)


def format_table(found: dict[int, list[dict[str, float]]]) -> None:
    """Processes, steps a second, of the ideal, shares of a step: summing the gradients; gathering rows and statistics, with waiting."""
    alone = statistics.median(1 / told["step"] for told in found[1])
    print(f"{len(os.sched_getaffinity(0))} cores; {found[1][0]['megabytes']:.1f} MB of gradients; {len(found[1])} round(s)")
    print("processes  steps/s (low-high)      of the ideal  gradients  rows, BatchNorm and waiting")
    for world, rounds in found.items():
        rates = [1 / told["step"] for told in rounds]
        rate = statistics.median(rates)
        share, rows = (statistics.median(told[name] / told["step"] for told in rounds) for name in ("gradients", "rows"))
        low, high = min(rates), max(rates)
        ideal = 100 * rate / alone / world
        print(f"{world:9}  {rate:5.2f} ({low:.2f}-{high:.2f})  {ideal:15.0f} %  {100 * share:7.1f} %  {100 * rows:24.1f} %")


if __name__ == "__main__":
    main()
