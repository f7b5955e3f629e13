"""Runs for tests: a store of noise, two recipes that take a second, and a process that is killed at a chosen place."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from encoders.store.write import save_store
from pretrain.loop import train
from pretrain.recipe import config
from pretrain.run import lifecycle as runs
from pretrain.run import rundir

SHORT = ["steps=9", "warmup_steps=2", "log_every=1", "save_every=2", "batch=16", "size=32", "threads=1"]
MOCO = ["cxr_moco_tiny", "arch=resnet10t", "method.hidden=32", "method.dim=16", "drop_path=0.1", *SHORT]
MAE = ["cxr_mae_tiny", "model_args={depth: 2, patch_size: 8, embed_dim: 48}", "method.decoder_width=32", "drop_path=0.1", *SHORT]
METHODS = {"moco": MOCO, "mae": MAE}


def store(folder, n=80, size=40):
    """Images with some structure, two per patient."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (n, size // 8, size // 8, 1)).astype(np.uint8)
    return save_store(Path(folder) / "images.h5", coarse.repeat(8, 1).repeat(8, 2), patient=[i // 2 for i in range(n)])


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


KILLED_PROCESS_SCRIPT = """
import os, signal, sys, threading
from encoders.runtime import checkpoint, files
from pretrain.cli import main as cli
from pretrain.loop import train
where, count = os.environ["KILL"].split(":")
left = [int(count)]
def die():
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
def before(f):
    return lambda *a, **k: (die(), f(*a, **k))[1]
def after(f):
    def inner(*a, **k):
        out = f(*a, **k)
        die()
        return out
    return inner
if where == "step":      # in the middle of a step, before the optimizer's
    train.clip_gradients = before(train.clip_gradients)
elif where == "writing":  # half of a checkpoint is written
    def half(state, file):
        import io, torch
        whole = io.BytesIO(); real(state, whole)
        file.write(whole.getvalue()[: whole.tell() // 2]); file.flush()
        die()
        file.write(whole.getvalue()[whole.tell() // 2 :])
    real = checkpoint.torch.save
    checkpoint.torch.save = half
elif where == "written":  # the checkpoint is complete, nothing after it is done
    checkpoint.save_checkpoint = after(checkpoint.save_checkpoint)
cli.main()
"""


def run_until_killed(home, place, *words):
    """Runs `pretrain ...` in a process that gets SIGKILL at `place` ("step:5": in the fifth step), and waits for its end."""
    env = {**os.environ, "ISOGRAFT_HOME": str(home), "KILL": place, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED_PROCESS_SCRIPT, *map(str, words)], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == -9, done.stdout + done.stderr
    return done
