"""The loop on a device: where the host waits for it within a step, and that a resumed run equals the run never stopped."""

import os
import signal
import warnings
from collections import Counter
from pathlib import Path

import torch

from encoders.runtime import checkpoint
from pretrain.loop import train as loop
from pretrain.methods import METHODS
from pretrain.recipe.config import load_recipe
from pretrain.run import lifecycle, rundir
from tests.gpu.session import GpuSession, Result, cuda_code_path, relative_distance
from tests.gpu.training import small_run, small_words, train

WAITS_ALLOWED = 2  # a step: the one of the loop, and that of an fp16 scaler
RESUME_LIMIT = 2e-2  # of the weights, relative: the two sides round differently


def find_host_waits(session: GpuSession) -> Result:
    """The lines at which the host waits for the device in two steps of every method, by torch's own warnings."""
    if not session.cuda:
        return {"note": "needs a GPU; tests/device_counts.py counts them under tensors without values"}
    result: Result = {}
    for name in METHODS:
        setup = small_run(session, name, session.device, "precision=bf16", "steps=4", "log_every=100")
        found = _waits_of_two_steps(session, setup)
        result[name] = {"a_step": found.total() / 2, "where": dict(found.most_common(12))}
        if found.total() / 2 > WAITS_ALLOWED:
            session.flag(f"{name}: the host waits {found.total() / 2:.0f} times a step, first at {found.most_common(1)[0][0]}")
    return result


def _waits_of_two_steps(session: GpuSession, setup) -> Counter[str]:
    real, done = setup.method.after_step, [0]

    def after_step(progress: float) -> None:
        done[0] += 1
        if done[0] == 2:
            torch.cuda.set_sync_debug_mode("warn")
        real(progress)

    setup.method.after_step = after_step
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            train(session, setup)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    lines = (f"{'/'.join(Path(w.filename).parts[-3:])}:{w.lineno}" for w in seen if "synchroniz" in str(w.message))
    return Counter(lines)


def compare_resumed_runs(session: GpuSession) -> Result:
    """Stopped by SIGTERM in the middle and resumed, on the device and between CPU and device, against the run never stopped."""
    device = str(session.device)
    want = _weights_of_run(session, "straight", device)
    result = {"again": relative_distance(_weights_of_run(session, "again", device), want)}
    moves = {"resumed": (device, device), "cpu to device": ("cpu", device), "device to cpu": (device, "cpu")}
    for name, (first, then) in moves.items():
        result[name] = relative_distance(_weights_of_run(session, name.replace(" ", "-"), first, then), want)
    for name, off in result.items():
        if not off < RESUME_LIMIT:
            session.flag(f"resume, {name}: the weights differ by {off:.1e} from the run never stopped")
    return result


def _weights_of_run(session: GpuSession, name: str, first: str, then: str | None = None) -> torch.Tensor:
    """The weights of the last checkpoint. then: the device on which the run is resumed after a SIGTERM in its fourth step."""
    words = [*small_words(session, "moco", "precision=fp32", "save_every=4", "steps=8", "watch.images=16")]
    run, real, steps = rundir.run_dir_for(name, session.home / "runs"), loop.clip_gradients, [0]

    def clip(*given):
        steps[0] += 1
        if then and steps[0] == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*given)

    loop.clip_gradients = clip
    try:
        with cuda_code_path(session):
            status = lifecycle.start_run(load_recipe("cxr_moco_tiny", words), run, first, say=lambda text: None)
            if then:
                status = lifecycle.resume_run(run, then, say=lambda text: None)
    finally:
        loop.clip_gradients = real
    assert status == 0, f"run {name} ended with status {status}"
    saved, _ = checkpoint.load_newest(run.checkpoints)
    assert saved is not None
    return torch.cat([v.double().flatten() for v in saved["method"].values() if v.is_floating_point()])
