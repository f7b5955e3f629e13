"""What every method owes the loop, whatever it is called."""

import numpy as np
import pytest
import torch

from encoders.augment.masks import draw_mask
from pretrain.methods import METHODS
from tests.pretrain.tiny import cnn, images, method, same_state, snapshot, step, vit

SMALL = {
    "moco": {"dim": 16, "hidden": 32, "momentum": 0.9, "scale_momentum": False},
    "mae": {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2},
    "simclr": {"dim": 16, "hidden": 32},
    "byol": {"dim": 16, "hidden": 32, "momentum": 0.9, "scale_momentum": False},
    "simsiam": {"dim": 32, "bottleneck": 8},
    "barlowtwins": {"dim": 32},
    "vicreg": {"dim": 32},
    "mocov3": {"dim": 16, "hidden": 32, "momentum": 0.9, "scale_momentum": False},
    "dino": {"prototypes": 24, "hidden": 32, "bottleneck": 16, "n_local": 0, "momentum": 0.9, "scale_momentum": False, "freeze": 0.0},
    "lejepa": {"dim": 8, "hidden": 32, "slices": 64},
}
ALL = pytest.mark.parametrize("name", sorted(METHODS))


def made(name, channels=1, seed=1, backbone=None):
    backbone = backbone or (vit(channels) if name == "mae" else cnn(channels))
    return method(name, backbone, n_images=64, channels=channels, seed=seed, **SMALL[name])


def batch(name, i, channels=1, n=16):
    if name == "mae":
        keep, masked = draw_mask(0, np.arange(n) + n * i, 16, 0.75)
        return [images(n, channels, seed=i)], [(torch.from_numpy(keep), torch.from_numpy(masked))]
    return [images(n, channels, seed=2 * i), images(n, channels, seed=2 * i + 1)], None


@ALL
def test_every_trained_parameter_is_in_one_group_and_gets_a_gradient(name):
    m = made(name)
    listed = [id(p) for g in m.param_groups() for p in g["params"]]
    trained = {id(p): n for n, p in m.named_parameters() if p.requires_grad}
    assert len(listed) == len(set(listed))
    assert set(listed) == set(trained)
    assert len({g["name"] for g in m.param_groups()}) == len(m.param_groups())
    views, masks = batch(name, 0)
    m(views, masks, 0.5)["loss"].backward()
    assert [trained[id(p)] for p in m.parameters() if p.requires_grad and p.grad is None] == []


@ALL
def test_a_resumed_method_goes_on_as_if_never_stopped(name):
    def steps(m, some):
        losses = []
        for i in some:
            torch.manual_seed(i)  # as the loop seeds each micro-batch
            losses.append(step(m, *batch(name, i), progress=i / 4))
        return losses

    whole = made(name)
    want = steps(whole, range(4))
    first = made(name)
    steps(first, range(2))
    second = made(name, seed=7)
    second.load_state_dict(first.state_dict())
    assert steps(second, range(2, 4)) == want[2:]
    assert same_state(whole.state_dict(), second.state_dict())


@ALL
@pytest.mark.parametrize("channels", [1, 3])
def test_under_autocast_the_loss_is_float32_finite_and_near_the_exact_one(name, channels):
    m = made(name, channels)
    views, masks = batch(name, 0, channels)
    torch.manual_seed(0)
    exact = m(views, masks, 0.5)["loss"].item()
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        out = m(views, masks, 0.5)
    assert {k: v.dtype for k, v in out.items()} == dict.fromkeys(out, torch.float32)
    assert out["loss"].item() == pytest.approx(exact, rel=0.1, abs=0.02)


@ALL
def test_an_image_takes_the_passes_that_are_told(name):
    m, seen = made(name), {True: 0, False: 0}

    def count(layer, given, out):
        seen[torch.is_grad_enabled()] += len(given[0])

    for network in (
        getattr(m, "backbone", None) or m.encoder(),
        getattr(m, "key", None),
        getattr(m, "target", None),
        getattr(m, "teacher", None),
    ):
        if network is not None:
            next(layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)).register_forward_hook(count)
    views, masks = batch(name, 0)
    m(views, masks, 0.5)
    assert (seen[True] / 16, seen[False] / 16) == (m.traits.trained, m.traits.untrained)


@ALL
def test_the_encoder_is_exported_in_timms_names(name):
    fresh = vit() if name == "mae" else cnn()
    assert set(made(name).encoder().state_dict()) == set(fresh.state_dict())


@ALL
def test_looking_without_gradients_leaves_the_weights(name):
    m = made(name).eval()
    before = snapshot(m)
    views, masks = batch(name, 0)
    with torch.no_grad():
        m(views, masks, 0.5)
    assert same_state(before, snapshot(m))


@ALL
@pytest.mark.slow
def test_the_loss_falls_on_a_few_images_and_features_stay_apart(name):
    m = made(name)
    x = torch.nn.functional.interpolate(images(16, size=4), size=32, mode="bilinear")
    optimizer = torch.optim.AdamW([{"params": g["params"]} for g in m.param_groups()], lr=2e-3)
    losses = []
    for i in range(20):
        torch.manual_seed(i)
        views = [x + 0.1 * torch.randn_like(x) for _ in range(1 if name == "mae" else 2)]
        loss = m(views, batch(name, i)[1], i / 20)["loss"]
        optimizer.zero_grad()
        loss.backward()
        m.after_backward(i / 20)
        optimizer.step()
        m.after_step(i / 20)
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.02 * abs(losses[0])
    features = m.encoder().eval()(x).detach()
    assert (features - features.mean(0)).norm() > 1e-3 * features.norm()


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"mae"}))
def test_cnn_methods_take_a_vit_too(name):
    m = made(name, backbone=vit())
    views, masks = batch(name, 0)
    assert np.isfinite(step(m, views, masks))
