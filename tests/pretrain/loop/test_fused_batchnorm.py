"""BatchNorm over ranks by torch's CUDA kernels, here with their formulas on a CPU; and groups of a batch over ranks."""

import copy

import numpy as np
import pytest
import torch
import torch.distributed as td
from torch import nn

from pretrain.loop import batchnorm
from pretrain.loop.fused_batchnorm import fused_sync_batch_norm
from pretrain.methods import moco
from pretrain.methods.batch_groups import group_batchnorm
from tests.pretrain import tiny
from tests.ranks import run_on_two_ranks


def per_channel(x):
    return x.transpose(0, 1).flatten(1)  # (C, values)


def like(channels, x):
    return channels.view(1, -1, *[1] * (x.ndim - 2))


def batch_norm_stats(x, eps):
    return per_channel(x).mean(1), (per_channel(x).var(1, correction=0) + eps).rsqrt()


def batch_norm_gather_stats_with_counts(x, means, invstds, running_mean, running_var, momentum, eps, counts):
    total = counts.sum()
    mean = (counts[:, None] * means).sum(0) / total
    var = (counts[:, None] * (invstds**-2 - eps + (means - mean) ** 2)).sum(0) / total
    if running_mean is not None:
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * total / (total - 1), momentum)
    return mean, (var + eps).rsqrt()


def batch_norm_elemt(x, weight, bias, mean, invstd, eps):
    y = (x - like(mean, x)) * like(invstd, x)
    return y if weight is None else y * like(weight, x) + like(bias, x)


def batch_norm_backward_reduce(grad, x, mean, invstd, weight, input_g, weight_g, bias_g):
    sum_grad, sum_product = per_channel(grad).sum(1), per_channel(grad * (x - like(mean, x))).sum(1)
    return sum_grad, sum_product, sum_product * invstd if weight_g else None, sum_grad.clone() if bias_g else None


def batch_norm_backward_elemt(grad, x, mean, invstd, weight, sum_grad, sum_product, counts):
    assert counts.dtype == torch.int32
    n, scale = counts.sum(), invstd if weight is None else invstd * weight
    centred = (x - like(mean, x)) * like(invstd**2 * sum_product / n, x)
    return (grad - like(sum_grad / n, x) - centred) * like(scale, x)


KERNELS = [batch_norm_stats, batch_norm_gather_stats_with_counts, batch_norm_elemt, batch_norm_backward_reduce, batch_norm_backward_elemt]
NORMS = {
    "affine": {},
    "without scale": {"affine": False},
    "without averages": {"track_running_stats": False},
    "cumulative": {"momentum": None},
}


def images_and_norm(name):
    torch.manual_seed(3)
    x = torch.randn(8, 4, 5, 5, dtype=torch.float64) * 3 + 100
    norm = nn.BatchNorm2d(4, **NORMS[name]).double()
    for p in norm.parameters():
        nn.init.uniform_(p, 0.5, 2)
    return x, nn.Sequential(norm)


def passes(x, net):
    """Rows, gradients of the input, scale and shift, and averages of two passes with different images."""
    for shift in (0, 1):
        given = (x * (1 + shift)).requires_grad_()
        net.zero_grad()
        y = net(given)
        y.pow(3).sum().backward()
    parameters = [p.grad for p in net.parameters()]
    return {"y": y.detach(), "x": given.grad, "parameters": parameters, "state": dict(net.state_dict())}


def one_rank(rank, folder):
    results = {}
    for kernel in KERNELS:
        setattr(torch, kernel.__name__, kernel)
    original = batchnorm.sync_batch_norm
    for name in NORMS:
        for memory_format in (torch.contiguous_format, torch.channels_last):
            x, net = images_and_norm(name)
            batchnorm.convert_sync_batchnorm(net)
            batchnorm.sync_batch_norm = fused_sync_batch_norm
            part = (x[:3] if rank == 0 else x[3:]).contiguous(memory_format=memory_format)
            result = passes(part, net)
            for gradient in result["parameters"]:
                td.all_reduce(gradient)  # the sum over ranks, of which DDP takes the mean
            results[f"{name} {memory_format}"] = result
    for fused in (True, False):
        batchnorm.sync_batch_norm = fused_sync_batch_norm if fused else original
        results[f"groups {fused}"] = in_groups(rank)
    torch.save(results, folder / f"{rank}.pt")


def in_groups(rank):
    """Rows and state of a network whose groups pass at once, and one after the other, with BatchNorm over both ranks."""
    torch.manual_seed(0)
    slow = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3), nn.BatchNorm1d(3)).double()
    fast = copy.deepcopy(slow)
    group_batchnorm(fast)
    x = tiny.images(12, size=8, seed=rank).double()
    found = []
    for net, encode in ((slow, moco.encode_in_groups), (fast, moco.encode_together)):
        batchnorm.convert_sync_batchnorm(net)
        torch.manual_seed(rank)
        rows = encode(net, x, 3, True)
        rows.pow(3).sum().backward()
        found.append([rows.detach(), *[p.grad for p in net.parameters()], *net.state_dict().values()])
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    run_on_two_ranks(one_rank, folder)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", NORMS)
def test_batchnorm_by_the_kernels_over_two_ranks_is_batchnorm_over_their_images(ranks, name, memory_format):
    want = passes(*images_and_norm(name))
    parts = [rank[f"{name} {memory_format}"] for rank in ranks]
    close = {"rtol": 1e-9, "atol": 1e-9}
    for key in ("y", "x"):
        torch.testing.assert_close(torch.cat([part[key] for part in parts]), want[key], **close)
    for part in parts:
        torch.testing.assert_close(part["parameters"], want["parameters"], **close)
        assert part["state"].keys() == want["state"].keys()
        for key, value in want["state"].items():
            torch.testing.assert_close(part["state"][key], value, **close)


@pytest.mark.slow
@pytest.mark.parametrize("fused", [True, False])
def test_groups_at_once_over_two_ranks_are_groups_one_after_the_other(ranks, fused):
    for rank in ranks:
        slow, fast = rank[f"groups {fused}"]
        for got, want in zip(fast, slow, strict=True):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)
    assert not np.allclose(ranks[0]["groups True"][0][0], ranks[1]["groups True"][0][0])
    torch.testing.assert_close(ranks[0]["groups True"][1][-2], ranks[1]["groups True"][1][-2])  # ranks share their averages


def test_every_kernel_exists_in_this_version_of_torch():
    assert [kernel.__name__ for kernel in KERNELS if not callable(getattr(torch, kernel.__name__, None))] == []


def test_cuda_tensors_take_the_kernels(monkeypatch):
    monkeypatch.setattr(batchnorm, "fused_sync_batch_norm", lambda *args: "kernels")

    class OnCuda:
        is_cuda = True

    assert batchnorm.sync_batch_norm(OnCuda(), None, None, None, None, 0.1, 1e-5) == "kernels"
