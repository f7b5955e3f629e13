"""What every method must do for the loop, whatever its name."""

import inspect
import sys

import numpy as np
import pytest
import torch

from encoders.augment.presets import get_preset
from pretrain.methods import METHODS, Method, Reconstructs
from pretrain.recipe.method_names import METHOD_NAMES
from tests.pretrain.tiny import CNN_ONLY, backbone_for, batch, cnn, images, same_state, small_method, snapshot, step, vit

ALL = pytest.mark.parametrize("name", sorted(METHODS))


@ALL
def test_every_trained_parameter_is_in_one_group_and_gets_a_gradient(name):
    m = small_method(name)
    listed = [id(p) for g in m.param_groups() for p in g["params"]]
    trained = {id(p): n for n, p in m.named_parameters() if p.requires_grad}
    assert len(listed) == len(set(listed))
    assert set(listed) == set(trained)
    assert len({g["name"] for g in m.param_groups()}) == len(m.param_groups())
    views, masks = batch(m)
    m(views, masks, 0.5)["loss"].backward()
    assert [trained[id(p)] for p in m.parameters() if p.requires_grad and p.grad is None] == []


@ALL
def test_a_resumed_method_gives_the_losses_of_one_never_stopped(name):
    def steps(m, some):
        losses = []
        for i in some:
            torch.manual_seed(i)  # as the loop seeds each micro-batch
            losses.append(step(m, *batch(m, i), progress=i / 4))
        return losses

    uninterrupted = small_method(name)
    want = steps(uninterrupted, range(4))
    first = small_method(name)
    steps(first, range(2))
    second = small_method(name, seed=7)
    second.load_state_dict(first.state_dict())
    assert steps(second, range(2, 4)) == want[2:]
    assert same_state(uninterrupted.state_dict(), second.state_dict())


@ALL
def test_the_state_holds_tensors_only(name):
    """A rollback looks at every value of it for NaN and inf."""
    assert all(isinstance(value, torch.Tensor) for value in small_method(name).state_dict().values())


@ALL
@pytest.mark.parametrize("channels", [1, 3])
def test_under_autocast_the_loss_is_float32_finite_and_near_the_exact_one(name, channels):
    m = small_method(name, channels=channels)
    views, masks = batch(m)
    torch.manual_seed(0)
    exact = m(views, masks, 0.5)["loss"].item()
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        out = m(views, masks, 0.5)
    assert {k: v.dtype for k, v in out.items()} == dict.fromkeys(out, torch.float32)
    assert out["loss"].item() == pytest.approx(exact, rel=0.1, abs=0.02)


@ALL
def test_an_image_takes_the_stated_number_of_passes(name):
    m, seen = small_method(name), {True: 0, False: 0}

    def count(layer, given, out):
        seen[torch.is_grad_enabled()] += len(given[0])

    for layer in m.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.in_channels == m.data.channels:  # the first layer of each encoder
            layer.register_forward_hook(count)
    views, masks = batch(m)
    m(views, masks, 0.5)
    assert (seen[True] / 16, seen[False] / 16) == (m.traits.passes_with_grad, m.traits.passes_without_grad)
    assert (m.slow_network is not None) == (m.traits.passes_without_grad > 0)


@ALL
def test_every_forward_has_the_signature_of_the_contract(name):
    """A method that overrides `label_column` has one more argument."""
    own, contract = (inspect.signature(kind.forward) for kind in (METHODS[name], Method))
    has_labels = METHODS[name].label_column is not Method.label_column
    assert list(own.parameters) == [*contract.parameters, *(["class_ids"] if has_labels else [])]
    assert own.replace(parameters=[own.parameters[key] for key in contract.parameters]) == contract


@ALL
def test_the_summary_is_the_first_line_of_the_file(name):
    kind = METHODS[name]
    assert kind.summary == (sys.modules[kind.__module__].__doc__ or "").splitlines()[0]


@ALL
def test_patients_are_needed_only_if_they_are_excluded_as_negatives(name):
    kind = METHODS[name]
    assert ("exclude_same_patient" in kind.Config.model_fields) == kind.has_negatives
    assert not small_method(name).needs_patients()
    if kind.has_negatives:
        assert small_method(name, exclude_same_patient=True).needs_patients()


def test_the_members_that_the_plan_and_the_watchdog_read():
    all_methods = {name: small_method(name) for name in METHODS}
    assert {name for name, m in all_methods.items() if m.loss_head is None} == {"mae", "spark", "simmim", "ijepa"}
    assert {name for name, m in all_methods.items() if m.slow_network is not None} == {"moco", "byol", "mocov3", "dino", "dinov2", "ijepa"}
    assert {name: m.queue_length for name, m in all_methods.items() if m.queue_length is not None} == {"moco": 32}
    assert {name: m.constant_momentum for name, m in all_methods.items() if m.constant_momentum is not None} == {"moco": 0.9}
    assert {name for name, m in all_methods.items() if m.plain_vit_only} == {"mae", "dinov2", "simmim", "ijepa"}
    assert {name for name, m in all_methods.items() if isinstance(m, Reconstructs)} == {"mae", "spark", "simmim"}
    assert {name for name, m in all_methods.items() if m.has_negatives} == {"moco", "simclr", "mocov3", "supcon"}


@ALL
def test_the_slow_network_gets_no_gradient(name):
    m = small_method(name)
    views, masks = batch(m)
    m(views, masks, 0.5)["loss"].backward()
    assert m.slow_network is None or all(p.grad is None and not p.requires_grad for p in m.slow_network.parameters())


@ALL
def test_the_encoder_is_exported_in_timms_names(name):
    assert set(small_method(name).encoder().state_dict()) == set(backbone_for(name).state_dict())


@ALL
def test_a_forward_pass_without_gradients_leaves_the_state(name):
    m = small_method(name).eval()
    before = snapshot(m)
    views, masks = batch(m)
    with torch.no_grad():
        m(views, masks, 0.5)
    assert same_state(before, snapshot(m))


@ALL
@pytest.mark.slow
def test_the_loss_falls_on_a_few_images_and_features_stay_apart(name):
    m = small_method(name, cnn(arch="resnet10t") if name == "dino" else None)  # in a small network the teacher spreads, and the loss rises
    x = torch.nn.functional.interpolate(images(16, size=4), size=32, mode="bilinear")
    optimizer = torch.optim.AdamW([{"params": g["params"]} for g in m.param_groups()], lr=2e-3)
    losses = []
    for i in range(20):
        torch.manual_seed(i)
        views = [x + 0.1 * torch.randn_like(x) for _ in m.views(get_preset("cxr"))]
        loss = m(views, batch(m, i)[1], i / 20)["loss"]
        optimizer.zero_grad()
        loss.backward()
        m.after_backward(i / 20)
        optimizer.step()
        m.after_step(i / 20)
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.02 * abs(losses[0])
    features = m.encoder().eval()(x).detach()
    assert (features - features.mean(0)).norm() > 1e-3 * features.norm()


@pytest.mark.parametrize("name", sorted(name for name, kind in METHODS.items() if not kind.plain_vit_only and name not in CNN_ONLY))
def test_methods_for_a_cnn_take_a_vit_too(name):
    m = small_method(name, vit())
    assert np.isfinite(step(m, *batch(m)))


def test_the_names_that_need_no_torch_are_those_of_the_methods():
    assert tuple(METHODS) == METHOD_NAMES
