"""Frozen running statistics: used in every mode, never changed, in every variant of BatchNorm and in copies of a network."""

import copy

import numpy as np
import pytest
import torch
from timm.layers import BatchNormAct2d, EvoNorm2dB0, EvoNorm2dB1, EvoNorm2dB2, FrozenBatchNormAct2d, SplitBatchNorm2d, SyncBatchNormAct
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from encoders.zoo.batchnorm import freeze_statistics, has_trained_statistics, is_frozen, list_statistics_layers, uses_batch_statistics

C = 4
BATCH_NORMS = {
    "BatchNorm1d": (lambda: nn.BatchNorm1d(C), (6, C)),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(C), (6, C, 5, 5)),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(C), (6, C, 3, 3, 3)),
    "BatchNorm2d, no momentum": (lambda: nn.BatchNorm2d(C, momentum=None), (6, C, 5, 5)),
    "BatchNorm2d, not affine": (lambda: nn.BatchNorm2d(C, affine=False), (6, C, 5, 5)),
    "BatchNormAct2d": (lambda: BatchNormAct2d(C, act_layer=nn.Identity), (6, C, 5, 5)),
    "SplitBatchNorm2d": (lambda: SplitBatchNorm2d(C, num_splits=2), (6, C, 5, 5)),
    "SyncBatchNorm": (lambda: nn.SyncBatchNorm(C), (6, C, 5, 5)),
    "SyncBatchNormAct": (lambda: SyncBatchNormAct(C), (6, C, 5, 5)),
    "FrozenBatchNorm2d": (lambda: FrozenBatchNorm2d(C), (6, C, 5, 5)),
    "FrozenBatchNormAct2d": (lambda: FrozenBatchNormAct2d(C, act_layer=nn.Identity), (6, C, 5, 5)),
}
EVO_NORMS = {"EvoNorm2dB0": EvoNorm2dB0, "EvoNorm2dB1": EvoNorm2dB1, "EvoNorm2dB2": EvoNorm2dB2}


def trained(norm):
    """`norm` in a network, with statistics and weights that are not those of a new one."""
    torch.manual_seed(0)
    for name, value in norm.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.rand(value.shape) + (0.5 if "var" in name else 0.0))
    return nn.Sequential(norm)


def tensors(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


@pytest.mark.parametrize("name", BATCH_NORMS)
def test_a_frozen_norm_normalises_by_its_running_statistics_in_training_and_keeps_them(name):
    build, shape = BATCH_NORMS[name]
    network = trained(build())
    freeze_statistics(network)
    network.train()
    before, x = tensors(network), (3 * torch.randn(shape) + 1).requires_grad_()
    y = network(x)
    y.pow(3).sum().backward()
    per_channel = [1, C, *[1] * (len(shape) - 2)]
    state = {key.removeprefix("0."): value.numpy().astype(np.float64).reshape(per_channel) for key, value in before.items() if value.ndim}
    standard = (x.detach().numpy().astype(np.float64) - state["running_mean"]) / np.sqrt(state["running_var"] + network[0].eps)
    want = standard * state.get("weight", 1.0) + state.get("bias", 0.0)
    np.testing.assert_allclose(y.detach().numpy(), want, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    axes = tuple(i for i in range(len(shape)) if i != 1)
    if isinstance(getattr(network[0], "weight", None), nn.Parameter):  # scale and shift are trained
        np.testing.assert_allclose(network[0].weight.grad.numpy(), (3 * want**2 * standard).sum(axes), rtol=1e-3)
        np.testing.assert_allclose(network[0].bias.grad.numpy(), (3 * want**2).sum(axes), rtol=1e-3)


@pytest.mark.parametrize("name", EVO_NORMS)
def test_a_frozen_evo_norm_keeps_its_running_variance_and_uses_it(name):
    network = trained(EVO_NORMS[name](C))
    x, before = 3 * torch.randn(6, C, 5, 5), tensors(network)
    assert not torch.equal(network.train()(x), network.eval()(x))
    network.load_state_dict(before)
    want = network.eval()(x)
    freeze_statistics(network)
    assert torch.equal(network.train()(x), want)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_each_variant_changes_its_statistics_if_it_is_not_frozen():
    """Otherwise the tests above could not fail."""
    for name, (build, shape) in BATCH_NORMS.items():
        if "Sync" in name or "Frozen" in name:  # the first need several GPUs to train
            continue
        network = trained(build()).train()
        before = tensors(network)
        network(3 * torch.randn(shape) + 1)
        assert not torch.equal(network.state_dict()["0.running_mean"], before["0.running_mean"]), name


def test_a_copy_is_frozen_and_no_mode_thaws_it():
    network = nn.Sequential(nn.Conv2d(3, C, 1), BatchNormAct2d(C), nn.BatchNorm2d(C))
    names = list(network.state_dict())
    freeze_statistics(network)
    freeze_statistics(network)  # again
    other = copy.deepcopy(network)
    assert list(other.state_dict()) == names
    for mode in (True, False, True):
        other.train(mode)
        assert other[0].training is mode
        assert [m.training for m in other[1:]] == [False, False]
    assert isinstance(other[1], BatchNormAct2d)
    assert type(network[1]) is type(other[1])
    before = tensors(other)
    other(torch.randn(2, 3, 4, 4))
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
    assert all(p.requires_grad for p in other.parameters())


def test_the_dropout_inside_a_frozen_norm_stays_in_the_mode_of_the_network():
    network = nn.Sequential(BatchNormAct2d(C, drop_layer=nn.Dropout, act_layer=nn.Identity))
    freeze_statistics(network)
    x = torch.ones(8, C, 6, 6)
    torch.manual_seed(0)
    assert (network.train()(x) == 0).any()
    assert not (network.eval()(x) == 0).any()


def test_what_depends_on_the_batch_and_what_has_statistics():
    plain, norm, row = nn.Sequential(nn.Conv2d(3, C, 1)), nn.Sequential(nn.BatchNorm2d(C)), nn.Sequential(nn.GroupNorm(1, C))
    untracked = nn.Sequential(nn.BatchNorm2d(C, track_running_stats=False))
    frozen = copy.deepcopy(norm)
    freeze_statistics(frozen)
    instance = nn.Sequential(nn.InstanceNorm2d(C, track_running_stats=True))
    assert [uses_batch_statistics(m) for m in (plain, norm, row, untracked, frozen, instance)] == [False, True, False, True, False, False]
    assert [len(list_statistics_layers(m)) for m in (plain, norm, row, untracked, frozen)] == [0, 1, 0, 0, 1]
    assert [is_frozen(m[0]) for m in (norm, frozen)] == [False, True]


@pytest.mark.parametrize(("buffer", "value"), [("running_mean", 0.1), ("running_var", 0.9)])
def test_statistics_count_as_trained_when_one_number_is_not_that_of_a_new_network(buffer, value):
    network = nn.Sequential(nn.Conv2d(3, C, 1), nn.BatchNorm2d(C))
    assert not has_trained_statistics(network)
    network.get_buffer(f"1.{buffer}")[2] = value
    assert has_trained_statistics(network)
    assert not has_trained_statistics(network[:1])
