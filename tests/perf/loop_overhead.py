"""Prints what the training loop costs over a bare loop of forward, backward, optimizer on one cached batch.

    python tests/perf/loop_overhead.py [--steps 30] [--size 128] [--batch 64] [--workers 0] [--threads N]

The recipe is cxr_moco_tiny with ResNet-18 at 128 px on phantom-like noise: reading, augmenting, logging and saving included. Both loops
take the same steps on the same network in turns of a few steps, so that a busy machine slows both alike. Aim: at most 1.15.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"steps": 30, "size": 128, "batch": 64, "workers": 0, "threads": 0, "turn": 5}.items():
        ask.add_argument(f"--{name}", type=int, default=default)
    args = ask.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"ISOGRAFT_HOME": home, "WANDB_MODE": "disabled"}
        whole, bare = measured(args, Path(home))
    ratios = [w / b for w, b in zip(whole, bare, strict=True)]
    print(f"loop {statistics.median(whole):.3f} s a step, bare {statistics.median(bare):.3f} s a step")
    spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
    print(f"ratio {statistics.median(ratios):.3f} (median of {len(ratios)} turns of {args.turn} steps; {spread})")


def measured(args: argparse.Namespace, home: Path) -> tuple[list[float], list[float]]:
    """Seconds a step of the loop and of the bare loop, turn by turn."""
    import torch

    from encoders.store_write import save
    from pretrain import config
    from pretrain.setup import build
    from pretrain.train import State, Stop, autocast, fit

    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (512, args.size // 8, args.size // 8, 1)).astype(np.uint8)
    images = save(home / "noise.h5", pixels.repeat(8, 1).repeat(8, 2))
    words = [f"data.store={images}", f"size={args.size}", f"batch={args.batch}", f"data.workers={args.workers}", "steps=100000"]
    made = build(config.load("cxr_moco_tiny", words), "cpu")
    torch.set_num_threads(args.threads or len(os.sched_getaffinity(0)))
    cached = next(iter(made.batches.of(0)))
    views = [v.contiguous(memory_format=torch.channels_last) for v in cached.views]

    def bare(steps: int) -> None:
        for _ in range(steps):
            with autocast(made.recipe.precision, made.device):
                loss = made.method(views, None, progress=0.0)["loss"]
            loss.backward()
            made.method.after_backward(0.0)
            made.optimizer.step()
            made.method.after_step(0.0)
            made.optimizer.zero_grad(set_to_none=True)

    state = State()

    def loop(steps: int) -> None:
        stop, end = Stop(), state.step + steps

        def log(step: int, **numbers: object) -> None:
            stop.requested = "enough" if step >= end else None

        each = made.recipe.model_copy(update={"log_every": 1})
        fit(made.method, made.batches, made.optimizer, made.scaler, each, 100_000, 20, state, log, lambda s: None, stop, made.device)

    bare(2), loop(2)
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(max(args.steps // args.turn, 1)):
        for one, seconds in ((loop, took[0]), (bare, took[1])):
            begun = time.perf_counter()
            one(args.turn)
            seconds.append((time.perf_counter() - begun) / args.turn)
    made.batches.close()
    return took


if __name__ == "__main__":
    main()
