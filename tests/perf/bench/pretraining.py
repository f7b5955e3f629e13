"""Rows on pretraining: the loop, the whole command, the watchdog's share, and the commands that list."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from tests.perf.bench.measure import Row, alternate, cpu_seconds

LOOPS = (("cxr_moco_tiny", "ResNet-18", 1.08), ("cxr_mae_tiny", "ViT-Ti/8", 1.05))  # recipe, its network, limit
LOOP_SECONDS = 25.0
COMMAND = ["arch=resnet18", "size=128", "batch=32", "steps=10", "epochs=null", "warmup_steps=1", "log_every=1", "threads=1"]
UNWATCHED = ["watch.images=0", "pictures=none"]
LISTINGS = {"status": 0.6, "recipes": 0.5, "settings": 0.5, "methods": 0.5, "--help": 0.5}  # CPU seconds
PLAN_LIMIT_S = 5.0  # beside the timed steps
SHARE_LIMIT = 0.02


@contextmanager
def home() -> Iterator[Path]:
    """A temporary home with a store of noise, images.h5, for this process and those that it starts."""
    before = {name: os.environ.get(name) for name in ("ISOGRAFT_HOME", "WANDB_MODE", "OMP_NUM_THREADS")}
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"ISOGRAFT_HOME": folder, "WANDB_MODE": "disabled", "OMP_NUM_THREADS": "1"}
        from tests.perf.loop_overhead import save_noise_store

        save_noise_store(Path(folder), 128)
        try:
            yield Path(folder)
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def pretrain(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "pretrain", *words], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def loops() -> Iterator[Row]:
    """A step of the loop, with reading, augmentation, clipping and logging, and a bare step on a cached batch."""
    from tests.perf.loop_overhead import measure_seconds_per_step

    with home() as folder:
        for recipe, network, limit in LOOPS:
            ours, bare = measure_seconds_per_step(folder / "noise.h5", 1, 0, 128, 64, LOOP_SECONDS, recipe)
            yield Row(f"a step of the loop, {recipe}, {network}, 128 px", "bare step", limit, ours, bare)


def command() -> Iterator[Row]:
    """`pretrain run`, ten steps with a line each: against a script with lightly, and against itself without watchdog and picture."""
    from PIL import Image

    from encoders.store.store import Store

    with home() as folder:
        store = Store.open(folder / "noise.h5")
        (folder / "png").mkdir()
        for i in range(len(store)):
            Image.fromarray(np.asarray(store.image(i)).squeeze()).save(folder / "png" / f"{i:04d}.png")
        number = iter(range(1000))

        def run(*more: str) -> None:
            pretrain("run", "cxr_moco_tiny", f"data.store={folder / 'noise.h5'}", *COMMAND, *more, "--name", f"run{next(number)}")

        script = [sys.executable, "-m", "tests.perf.lightly_script", str(folder / "png"), str(folder / "out.pt")]
        turns = [run, lambda: run(*UNWATCHED), lambda: subprocess.run(script, check=True, stderr=subprocess.DEVNULL)]
        whole, unwatched, lightly = alternate(2, *turns, warm=False)
    work = "pretrain run, 10 steps, ResNet-18, 128 px, with imports"
    yield Row(work, "script with lightly", 1.0, whole, lightly)
    yield Row(work, "no watchdog, no picture", None, whole, unwatched)


def watchdog() -> Iterator[Row]:
    """The share of the time of 60 steps that probes take, with a line and a possible probe in each step."""
    with home() as folder:
        from pretrain.loop.setup import build_setup
        from pretrain.loop.train import StopRequest, TrainState, fit
        from pretrain.recipe.config import load_recipe
        from pretrain.watch.watchdog import Watchdog

        settings = [f"data.store={folder / 'noise.h5'}", *COMMAND, "steps=60", "watch.every=1"]
        setup = build_setup(load_recipe("cxr_moco_tiny", settings), "cpu")
        watched = Watchdog(setup, [], {}, lambda text: None)
        watched.measure_start(folder / "start.npz")

        def log(step: int, **numbers: object) -> None:
            values = {name: float(value) for name, value in numbers.items()}
            values |= watched.measure(step) if watched.is_due(step) else {}
            watched.check(step, values)

        fit(setup.method, setup.batches, setup.optimizer, setup.scaler, setup.recipe, setup.steps, setup.warmup, TrainState(), log,
            lambda state: None, StopRequest(), setup.device)  # fmt: skip
        setup.batches.close()
        share = watched.budget.used_share() + watched.diagnosing.used_share()
        yield Row("share of the watchdog in 60 steps with a line each", limit=SHARE_LIMIT, ours=[share], unit="")


def listings() -> Iterator[Row]:
    """The commands that read or list, and the plan of a run without its timed steps."""
    with home() as folder:
        for words, limit in LISTINGS.items():
            yield Row(f"pretrain {words}", limit=limit, ours=alternate(2, lambda words=words: pretrain(words), warm=False)[0])
        store = f"data.store={folder / 'noise.h5'}"
        small = ["arch=test_resnet", "size=32", "batch=16", "threads=1"]  # whose steps take no time
        planned = cpu_seconds(lambda: pretrain("plan", "cxr_moco_tiny", store, *small))
        yield Row("pretrain plan, without its steps", limit=PLAN_LIMIT_S, ours=[planned])
