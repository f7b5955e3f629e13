"""Half precision, fused optimizers and checkpointed activations: the same training at another cost."""

import math

import pytest
import torch

from encoders.runtime.errors import InputError
from pretrain.loop.setup import build_setup
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
