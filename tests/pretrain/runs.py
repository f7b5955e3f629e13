"""Runs for tests: a store of noise, and two recipes that take a second."""

import os
import signal
from pathlib import Path

import numpy as np

from encoders.store.write import save_store
from pretrain.loop import train
from pretrain.recipe import config
from pretrain.run import lifecycle as runs
from pretrain.run import rundir

SHORT = [
    "steps=9",
    "warmup_steps=2",
    "log_every=1",
    "save_every=2",
    "batch=16",
    "size=32",
    "threads=1",
    "pictures=none",
    "watch.max_share=1",
]
MOCO = ["cxr_moco_tiny", "arch=test_resnet", "method.hidden=32", "method.dim=16", "drop_path=0.1", *SHORT]
MAE = ["cxr_mae_tiny", "model_args={depth: 2, patch_size: 8, embed_dim: 48}", "method.decoder_width=32", "drop_path=0.1", *SHORT]
METHODS = {"moco": MOCO, "mae": MAE}


def store(folder, n=80, size=40):
    """Images with some structure, two per patient. Labels: `finding` (one in four is unknown); metadata: `view`, `age`."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, size // 8, size // 8, 1)).astype(np.uint8)
    finding = [np.nan if i % 4 == 3 else float(coarse[i, 0, 0, 0] > 127) for i in range(n)]
    meta = {"view": ["AP" if i % 3 else "PA" for i in range(n)], "age": [20.0 + i % 50 for i in range(n)]}
    images = coarse.repeat(8, 1).repeat(8, 2)
    return save_store(Path(folder) / "images.h5", images, patient=[i // 2 for i in range(n)], labels={"finding": finding}, meta=meta)


def recipe(images, words, *more):
    return config.load_recipe(words[0], [*words[1:], f"data.store={images}", *more])


def run(images, words, name, *more):
    """Trains a run to its end in this process; returns its folder."""
    where = rundir.run_dir_for(name)
    assert runs.start_run(recipe(images, words, *more), where, "cpu") == 0
    return where


def sigterm_at_step(monkeypatch, step):
    """Sends SIGTERM to this process in the middle of the given step of the next run."""
    real = train.clip_gradients

    def clip(*given):
        clip.steps += 1
        if clip.steps == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*given)

    clip.steps = 0
    monkeypatch.setattr(train, "clip_gradients", clip)
