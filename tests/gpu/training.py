"""Recipes of a few steps for every method, and the loop on them."""

import json
import time
from typing import Any

import torch

from encoders.runtime.stop import StopRequest
from pretrain.loop.setup import Setup, build_setup
from pretrain.loop.train import TrainState, fit
from pretrain.methods import METHODS
from pretrain.recipe.config import load_recipe
from tests.gpu.made_data import store_path
from tests.gpu.session import GpuSession, cuda_code_path
from tests.pretrain.tiny import SMALL

SHORT = ["steps=3", "epochs=null", "warmup_steps=1", "log_every=1", "save_every=1000", "size=32", "threads=1", "init=null", "pictures=none"]
PLAIN = ["optim.lr_rule=none", "optim.lr=1e-3"]
VIT = ["arch=vit_tiny_patch16_224", "model_args={depth: 2, patch_size: 8, embed_dim: 48}"]
CNN = ["arch=test_resnet"]
NEEDS_CNN = ("spark",)  # masked convolutions


def build_run(session: GpuSession, recipe: str, words: list[str], device: str | torch.device) -> Setup:
    """Everything for a run. With `as_cuda`, the batches of the session's device are made as for a CUDA device."""
    setup = build_setup(load_recipe(recipe, words), str(device))
    if session.as_cuda and device is session.device:
        setup.batches._work.augments = False
        setup.batches._copy_ahead = True
    return setup


def small_words(session: GpuSession, name: str, *more: str) -> list[str]:
    """The settings of a run of method `name` on 32-pixel images, with a network of less than a million parameters."""
    kind = METHODS[name]
    network = VIT if kind.plain_vit_only and name not in NEEDS_CNN else CNN
    own = [f"method.{key}={json.dumps(value)}" for key, value in SMALL[name].items() if key != "scale_momentum"]
    batch = f"batch={8 if session.tiny else 32}"
    return [*SHORT, *PLAIN, batch, f"data.store={store_path(session, 'small')}", *network, *own, *more]


def small_run(session: GpuSession, name: str, device: str | torch.device, *more: str) -> Setup:
    """A run of method `name` with `small_words`."""
    return build_run(session, f"cxr_{name}_tiny", small_words(session, name, *more), device)


def train(session: GpuSession, setup: Setup) -> list[dict[str, Any]]:
    """The logged lines of the loop from step 0, each with its step and time; the batches are closed after it."""
    lines: list[dict[str, Any]] = []

    def log(step: int, **numbers: Any) -> None:
        lines.append({name: float(value) for name, value in numbers.items()} | {"step": step, "at": time.perf_counter()})

    try:
        with cuda_code_path(session, not setup.batches._work.augments):
            fit(
                setup.method,
                setup.batches,
                setup.optimizer,
                setup.scaler,
                setup.recipe,
                setup.steps,
                setup.warmup,
                TrainState(),
                log,
                lambda state: None,
                StopRequest(),
                setup.device,
                setup.continuation,
            )
    finally:
        setup.batches.close()
    return lines


def encoder_weights(setup: Setup) -> torch.Tensor:
    """All floating-point numbers of the encoder, as one vector on the host."""
    values = setup.method.encoder().state_dict().values()
    return torch.cat([v.detach().double().flatten().cpu() for v in values if v.is_floating_point()])
