"""Prints the cost of the training loop relative to forward, backward and optimizer on one cached batch. Takes a minute or two.

    python tests/perf/loop_overhead.py [--threads 1 2] [--workers 0 1] [--seconds 90] [--size 128] [--batch 64] [--recipe cxr_mae_tiny]

The recipe is cxr_moco_tiny, ResNet-18 at 128 px on noise, with reading, augmentation, clipping and logging. Both loops train one
network in alternating turns of two steps, so that other load slows both equally. Target: at most 1.08.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

TARGET_RATIO, STEPS_PER_TURN = 1.08, 2  # steps per turn: short, so that other load affects both loops equally


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--threads", type=int, nargs="+", default=sorted({1, min(2, len(os.sched_getaffinity(0)))}))
    ask.add_argument("--workers", type=int, nargs="+", default=[0], help="loader processes")
    for name, default in {"seconds": 90, "size": 128, "batch": 64}.items():
        ask.add_argument(f"--{name}", type=int, default=default)
    ask.add_argument("--recipe", default="cxr_moco_tiny")
    args = ask.parse_args()
    cases = [(threads, workers) for threads in args.threads for workers in args.workers]
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {"ISOGRAFT_HOME": home, "WANDB_MODE": "disabled"}
        images = save_noise_store(Path(home), args.size)
        for threads, workers in cases:
            seconds = args.seconds / len(cases)
            report(threads, workers, *measure_seconds_per_step(images, threads, workers, args.size, args.batch, seconds, args.recipe))


def report(threads: int, workers: int, loop: list[float], plain: list[float]) -> None:
    """Prints the median ratio of the two loops."""
    ratios = [a / b for a, b in zip(loop, plain, strict=True)]
    print(
        f"{threads} thread(s), {workers} loader process(es): loop {statistics.median(loop):.3f} s per step, plain "
        f"{statistics.median(plain):.3f}; ratio {statistics.median(ratios):.3f}, median of {len(ratios)} turns "
        f"({min(ratios):.3f} to {max(ratios):.3f}; target {TARGET_RATIO})",
        flush=True,
    )


def save_noise_store(home: Path, size: int) -> Path:
    from encoders.store.write import save_store

    pixels = np.random.default_rng(0).integers(0, 256, (512, size // 8, size // 8, 1)).astype(np.uint8)
    return save_store(home / "noise.h5", pixels.repeat(8, 1).repeat(8, 2))


def measure_seconds_per_step(
    images: Path, threads: int, workers: int, size: int, batch: int, seconds: float, recipe: str = "cxr_moco_tiny"
) -> tuple[list[float], list[float]]:
    """Seconds per step of the training loop and of the plain loop, turn by turn, for about `seconds` in all. CPU seconds where one thread
    does everything, so that other load does not count; otherwise wall seconds."""
    import torch

    from encoders.runtime.allocator import keep_freed_memory
    from pretrain.loop.setup import build_setup
    from pretrain.recipe import config

    keep_freed_memory()  # as every command does
    clock = time.process_time if threads == 1 and not workers else time.perf_counter
    started = clock()
    torch.set_num_threads(threads)
    settings = [f"data.store={images}", f"size={size}", f"batch={batch}", f"data.workers={workers}", "steps=100000"]
    setup = build_setup(config.load_recipe(recipe, settings), "cpu")
    loop, plain = training_loop(setup), plain_loop(setup)
    took: dict[Callable[[], None], list[float]] = {loop: [], plain: []}
    loop(), plain()  # the first steps allocate
    while not took[plain] or clock() - started < seconds:
        for turn in (loop, plain) if len(took[plain]) % 2 else (plain, loop):
            start = clock()
            turn()
            took[turn].append((clock() - start) / STEPS_PER_TURN)
    setup.batches.close()
    return took[loop], took[plain]


def plain_loop(setup) -> Callable[[], None]:  # type: ignore[no-untyped-def]
    """STEPS_PER_TURN steps on one cached batch."""
    from pretrain.loop.train import autocast, set_memory_format

    micro = next(iter(setup.batches.micro_batches(0)))
    views = set_memory_format(micro.views, setup.recipe.channels_last)

    def steps() -> None:
        for _ in range(STEPS_PER_TURN):
            with autocast(setup.recipe.precision, setup.device):
                loss = setup.method(views, micro.masks, progress=0.0)["loss"]
            loss.backward()
            setup.method.after_backward(0.0)
            setup.optimizer.step()
            setup.method.after_step(0.0)
            setup.optimizer.zero_grad(set_to_none=True)

    return steps


def training_loop(setup) -> Callable[[], None]:  # type: ignore[no-untyped-def]
    """The next STEPS_PER_TURN steps of the run."""
    from pretrain.loop.train import StopRequest, TrainState, fit

    state, each = TrainState(), setup.recipe.model_copy(update={"log_every": 1})

    def steps() -> None:
        stop, end = StopRequest(), state.step + STEPS_PER_TURN

        def log(step: int, **numbers: object) -> None:
            stop.requested = "enough" if step >= end else None

        fit(setup.method, setup.batches, setup.optimizer, setup.scaler, each, 100_000, 20, state, log, lambda s: None, stop, setup.device)

    return steps


if __name__ == "__main__":
    main()
