"""Half precision, fused optimizers and checkpointed activations: the same training at another cost."""

import math

import pytest
import torch

from encoders.runtime.errors import InputError
from encoders.runtime.stop import StopRequest
from pretrain.loop.setup import build_setup
from pretrain.loop.train import Diverged, TrainState, fit
from tests.pretrain.loop.test_train import trained
from tests.pretrain.runs import MAE, MOCO, recipe, store

STEADY = ["precision=fp32", "drop_path=0.0", "optim.kind=sgd", "optim.lr=0.5"]


@pytest.fixture
def images(tmp_path):
    return store(tmp_path)


@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_a_fused_optimizer_takes_the_same_steps(kind, images):
    words = [
        "precision=fp32",
        "drop_path=0.0",
        f"optim.kind={kind}",
        "optim.lr=0.01",
        "optim.eps=0.01",
    ]  # eps: Adam amplifies rounding errors to the size of a step
    plain, _ = trained(images, MAE, *words, "optim.fused=false")
    fused, _ = trained(images, MAE, *words, "optim.fused=true")
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("words", [MAE, [*MOCO[:1], "arch=vit_tiny_patch16_224", "model_args={depth: 2, patch_size: 8}", *MOCO[2:]]])
def test_checkpointed_activations_give_the_same_steps_from_fewer_saved_tensors(words, images):
    saved = {}
    weights = {}
    for flag in ("false", "true"):
        count = []

        def pack(t, count=count):
            count.append(t.numel())
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            weights[flag], _ = trained(images, words, *STEADY, f"checkpointing={flag}", steps=1)
        saved[flag] = sum(count)
    torch.testing.assert_close(weights["true"], weights["false"], rtol=1e-6, atol=1e-7)
    assert saved["true"] < saved["false"]


def test_a_network_without_checkpointing_is_refused(images):
    with pytest.raises(InputError, match="checkpointing=true: .* has no gradient checkpointing"):
        build_setup(recipe(images, MOCO, "arch=inception_v4", "drop_path=0.0", "size=96", "checkpointing=true"), "cpu")


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_close_to_full(precision, images):
    _, full = trained(images, MAE, *STEADY)
    _, half = trained(images, MAE, *STEADY[1:], f"precision={precision}")
    assert all(math.isfinite(line["loss"]) for line in half)
    assert half[0]["loss"] == pytest.approx(full[0]["loss"], rel=0.02)
    setup = build_setup(recipe(images, MAE, f"precision={precision}"), "cpu")
    assert setup.scaler.is_enabled() == (precision == "fp16")


def run_in_fp16(images, scale, loss_factor=None, **more):
    """The state of a run of twelve steps whose scaler starts at `scale`, and the scale at its end."""
    setup = build_setup(recipe(images, MAE, "precision=fp16", "steps=30", "max_skipped=3"), "cpu")
    setup.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    if loss_factor is not None:
        setup.method.register_forward_hook(lambda m, given, out: {"loss": out["loss"] * loss_factor})
    state, lines = TrainState(), []
    with setup.batches:
        fit(setup.method, setup.batches, setup.optimizer, setup.scaler, setup.recipe, 12, 1, state, lambda step, **v: lines.append(v),
            lambda s: None, StopRequest(), setup.device)  # fmt: skip
    return state, lines, setup.scaler.get_scale()


def test_the_search_of_the_fp16_scale_is_not_a_sick_run(images):
    state, lines, scale = run_in_fp16(images, 2.0**26)
    assert scale < 2**23  # at least four overflows in a row: more than max_skipped
    assert scale > 1
    assert (state.skipped, state.skipped_total, state.step) == (0, 0, 12)
    assert lines[0]["skipped"] == lines[-1]["skipped"] == 0
    assert math.isfinite(lines[-1]["grad_norm"])


@pytest.mark.parametrize("scale", [2.0**16, 1.0])
def test_a_loss_that_is_nan_in_fp16_is_one(scale, images):
    with pytest.raises(Diverged, match="for 3 consecutive steps, up to step 3;"):
        run_in_fp16(images, scale, loss_factor=math.nan)


def test_a_gradient_that_overflows_at_every_scale_is_one(images):
    """A loss near the largest float32 keeps its gradient inf in half precision also when the scale has come down to 1."""
    with pytest.raises(Diverged, match="up to step 7;"):
        run_in_fp16(images, 2.0**4, loss_factor=1e30)
