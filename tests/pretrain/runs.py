"""Runs for tests: a store of noise, two recipes that take a second, and a process that is killed at a chosen place."""

import io
import os
import signal
import sys
from pathlib import Path

import numpy as np

from encoders.runtime import checkpoint
from encoders.store.write import save_store
from pretrain.cli.main import main
from pretrain.loop import train
from pretrain.recipe import config
from pretrain.run import lifecycle as runs
from pretrain.run import rundir
from tests.forked import run_forked

SHORT = ["steps=9", "warmup_steps=2", "log_every=1", "save_every=2", "batch=16", "size=32", "threads=1", "pictures=none"]
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


def run_until_killed(home, place, *words):
    """Runs `pretrain ...` in a process that gets SIGKILL at `place` ("step:5": in the fifth step), and waits for its end."""
    env = {"ISOGRAFT_HOME": str(home), "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    done = run_forked(pretrain_and_die, place, [str(word) for word in words], env=env, logs=Path(home) / "killed")
    assert done.status == -signal.SIGKILL, done
    return done


def pretrain_and_die(place, words):
    """`pretrain ...` in this process, which kills itself at `place`; see `run_until_killed`."""
    where, count = place.split(":")
    left = [int(count)]

    def die():
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    if where == "step":  # in the middle of a step, before the optimizer's
        clip = train.clip_gradients
        train.clip_gradients = lambda *given: (die(), clip(*given))[1]
    elif where == "writing":  # half of a checkpoint is written
        real = checkpoint.torch.save

        def half(state, file):
            whole = io.BytesIO()
            real(state, whole)
            file.write(whole.getvalue()[: whole.tell() // 2])
            file.flush()
            die()
            file.write(whole.getvalue()[whole.tell() // 2 :])

        checkpoint.torch.save = half
    else:  # written: the checkpoint is complete, nothing after it is done
        save = checkpoint.save_checkpoint
        checkpoint.save_checkpoint = lambda *given, **more: (save(*given, **more), die())[0]
    sys.argv = ["pretrain", *words]
    main()
