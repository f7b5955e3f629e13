"""Training and scoring on a GPU: where the host waits for it, on a device without values; and what is read ahead."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from encoders.features import input_batches
from encoders.runtime.device_copies import HostCopy
from encoders.runtime.optim import build_optimizer
from encoders.runtime.optim_config import Optim
from tests.device_counts import OperationCount
from tests.transfer.protocols.test_finetune import FAST, encoder, fit, images, part  # noqa: F401  a fixture
from transfer.losses.registry import build_loss
from transfer.losses.settings import ImbalanceSettings
from transfer.losses.supervised import supervised_loss
from transfer.protocols import finetune, finetune_training, heads
from transfer.protocols.finetune_network import FinetuneNetwork
from transfer.protocols.finetune_training import training_step
from transfer.protocols.predict_images import iterate_image_inputs


class Backbone(nn.Module):
    """A small network with what makes a step wait: BatchNorm, pooling and parameters without a gradient."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.unused = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(2, 2)

    def forward(self, x):
        return self.norm(self.conv(x)).relu().mean((2, 3))


@pytest.fixture
def without_values(monkeypatch):
    """A device whose tensors have no values: whatever the host would have to wait for raises an error there.

    Initialisation reads values; networks are initialised on the host. Autocast does not know the device."""
    monkeypatch.setattr(nn.init, "trunc_normal_", lambda tensor, std=1.0: tensor)
    monkeypatch.setattr(finetune_training, "use_precision", lambda device, precision: nullcontext())
    return torch.device("meta")


def count_step(device, kind, batch, imbalance="class_weight"):
    """The operations of the second step: the first one creates the state of the optimizer."""
    with device:
        network = FinetuneNetwork(Backbone(), 4, 3)
    optimizer = build_optimizer([{"params": list(network.parameters())}], Optim(kind="adamw", fused=False), 16)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    x, index = torch.empty(batch, 1, 8, 8, device=device), torch.zeros(batch, dtype=torch.int64, device=device)
    labels = torch.empty(100, 3, device=device)
    one_hot = np.eye(3)[np.arange(10) % 3]
    of_step = build_loss(ImbalanceSettings(imbalance=imbalance), True, one_hot, kind, np.arange(10), device).loss
    for _ in range(2):
        with OperationCount() as count:
            loss = training_step(network, optimizer, scaler, x, partial(of_step, y=labels[index], progress=0.9), "fp32", 1.0)
    assert loss.device == device
    return count.launches


@pytest.mark.parametrize("kind", ["binary", "multilabel", "multiclass"])
def test_a_step_of_fine_tuning_needs_no_value_on_the_host_and_its_work_does_not_grow_with_the_batch(kind, without_values):
    assert count_step(without_values, kind, 64) == count_step(without_values, kind, 4)


@pytest.mark.parametrize("imbalance", ["effective", "focal", "asymmetric", "logit_adjustment", "ldam", "balanced_sampling"])
@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_no_loss_for_rare_classes_needs_a_value_on_the_host(kind, imbalance, without_values):
    if (kind, imbalance) != ("multiclass", "asymmetric"):  # a loss of labels
        assert count_step(without_values, kind, 64, imbalance) == count_step(without_values, kind, 4, imbalance)


def test_a_value_that_the_host_needs_would_be_noticed(without_values, monkeypatch):
    monkeypatch.setattr(finetune_training, "clip_gradients", lambda parameters, limit: float(parameters[0].grad.norm()))
    with pytest.raises(RuntimeError, match="meta"):
        count_step(without_values, "binary", 4)


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_step_of_the_published_heads_needs_no_value_on_the_host(exclusive, without_values):
    x, y = torch.empty(16, 8, device=without_values), torch.empty(16, 2, device=without_values)
    with without_values:
        mae = heads.MaeHead(8, 2, exclusive, 16, 10, 1)
        dinov2 = heads.DinoV2Heads({"last 1": 8, "last 4": 8}, 2, exclusive, 16, 10)
    for _ in range(2):
        assert mae.step(x, y).device == dinov2.step({"last 1": x, "last 4": x}, y).device == without_values


@pytest.mark.parametrize("gradient", [torch.zeros(3, 2), torch.ones(3, 2)])
@pytest.mark.parametrize("parameter", [torch.zeros(3, 2), torch.full((3, 2), 2.0)])
def test_lars_leaves_a_gradient_alone_where_a_norm_is_zero(parameter, gradient):
    scale = heads.LARS_TRUST * parameter.norm() / gradient.norm() if parameter.any() and gradient.any() else 1.0
    assert torch.allclose(heads.scale_by_lars(parameter, gradient), gradient * scale)


def test_images_to_score_are_read_before_the_scores_of_a_batch_are_fetched(images, monkeypatch):  # noqa: F811
    monkeypatch.setattr(input_batches, "prepares_on_device", lambda device: True)
    e, events = encoder(), []
    val = replace(part(images, range(60, 90)), encoder=e)
    fitted = fit(finetune.Config(**{**FAST, "min_steps": 1, "max_steps": 1, "evaluations": 1}), e, part(images, range(60)), val)
    read, wait = type(val.store).compact_images, HostCopy.wait
    monkeypatch.setattr("transfer.protocols.predict_images.FORWARD_BATCH", 10)
    monkeypatch.setattr(iterate_image_inputs, "__defaults__", (10, 0))
    monkeypatch.setattr(type(val.store), "compact_images", lambda self, rows: events.append("read") or read(self, rows))
    monkeypatch.setattr(HostCopy, "wait", lambda self: events.append("fetch") or wait(self))
    fitted.scores(val)
    assert events == ["read", "read", "fetch", "read", "fetch", "fetch"]


def test_scores_through_the_path_of_a_device_and_of_loader_processes_equal_those_of_a_cpu(images, monkeypatch):  # noqa: F811
    e = encoder()
    train, val, test = part(images, range(60)), part(images, range(60, 90)), part(images, range(90, 160))
    fitted = fit(finetune.Config(**{**FAST, "min_steps": 2, "max_steps": 2, "evaluations": 1}), e, train, val)
    want = fitted.scores(test)
    assert np.array_equal(replace(fitted, workers=1).scores(test), want)
    monkeypatch.setattr(input_batches, "prepares_on_device", lambda device: True)
    assert fitted.scores(test) == pytest.approx(want, abs=1e-6)


def test_training_in_fp32_and_validation_are_without_tf32(images, monkeypatch):  # noqa: F811
    seen = []
    forward = FinetuneNetwork.forward
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)

    def record(self, x):
        seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
        return forward(self, x)

    monkeypatch.setattr(FinetuneNetwork, "forward", record)
    cfg = finetune.Config(**{**FAST, "min_steps": 2, "max_steps": 2, "evaluations": 1})
    fit(cfg, encoder(), part(images, range(60)), part(images, range(60, 90))).scores(part(images, range(90, 100)))
    assert len(seen) == 4
    assert set(seen) == {(False, False)}
    assert torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_trains_like_fp32(precision):
    """With fp16 the loss is scaled, and steps whose gradient overflows while the scale is searched are left out."""
    last = {}
    for p in ("fp32", precision):
        torch.manual_seed(0)
        network = FinetuneNetwork(nn.Flatten(), 16, 1)
        optimizer = build_optimizer([{"params": list(network.parameters())}], Optim(kind="adamw", lr=0.05, lr_rule="none"), 16)
        scaler = torch.amp.GradScaler("cpu", enabled=p == "fp16")
        x = torch.randn(64, 1, 4, 4)
        y = (x.mean((1, 2, 3), keepdim=True).flatten(1) > 0).float()
        loss = partial(supervised_loss, y=y, weight=torch.ones(1), kind="binary")
        losses = [training_step(network, optimizer, scaler, x, loss, p, 1.0).item() for _ in range(40)]
        assert losses[-1] < 0.5 * losses[0]
        assert network.head.weight.dtype == torch.float32
        last[p] = losses[-1]
    assert last[precision] == pytest.approx(last["fp32"], abs=0.02)
    assert last[precision] != last["fp32"]
