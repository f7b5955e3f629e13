"""BatchNorm in groups of a batch that passes the network together gives the numbers of groups that pass alone, in fewer operations."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d, FrozenBatchNormAct2d, SplitBatchNorm2d
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from encoders.runtime.errors import InputError
from encoders.zoo.batchnorm import freeze_statistics
from pretrain.methods import moco
from pretrain.methods.batch_groups import BatchGroups, GroupedBatchNorm, group_batchnorm
from tests.pretrain.tiny import images, method

C = 4


class TokenNorm(nn.Module):
    """BatchNorm of the tokens of all images, as in timm's LeViT."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm

    def forward(self, x):
        tokens = x.flatten(2).transpose(1, 2)  # (B, T, C)
        return self.norm(tokens.flatten(0, 1)).reshape_as(tokens).transpose(1, 2)


NORMS = {
    "BatchNorm2d": lambda: nn.BatchNorm2d(C, momentum=0.3),
    "BatchNormAct2d": lambda: BatchNormAct2d(C),
    "without scale": lambda: nn.BatchNorm2d(C, affine=False),
    "without averages": lambda: nn.BatchNorm2d(C, track_running_stats=False),
    "cumulative": lambda: nn.BatchNorm2d(C, momentum=None),
    "newest only": lambda: nn.BatchNorm2d(C, momentum=1.0),
    "1d": lambda: nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(C)),
    "3d": lambda: nn.Sequential(nn.Unflatten(1, (C, 1)), nn.BatchNorm3d(C), nn.Flatten(1, 2)),
    "tokens": lambda: TokenNorm(nn.BatchNorm1d(C)),
}


def network(norm):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, C, 3), norm(), nn.Flatten(), nn.LazyLinear(6), nn.BatchNorm1d(6)).double()
    net(torch.ones(2, 1, 8, 8, dtype=torch.float64))
    for layer in net.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.affine:
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
    return net


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("n", "n_groups"), [(16, 2), (21, 4), (12, 1)])
@pytest.mark.parametrize("norm", NORMS)
def test_one_pass_gives_the_rows_gradients_and_averages_of_groups_that_pass_one_after_the_other(norm, n, n_groups, memory_format):
    slow = network(NORMS[norm])
    fast = copy.deepcopy(slow)
    assert group_batchnorm(fast)
    assert list(fast.state_dict()) == list(slow.state_dict())
    for shuffle in (False, True):
        results = []
        for net, encode in ((slow, moco.encode_in_groups), (fast, moco.encode_together)):
            torch.manual_seed(5)
            x = images(n, size=8).double().contiguous(memory_format=memory_format).requires_grad_()
            rows = encode(net, x, n_groups, shuffle)
            net.zero_grad()
            rows.pow(3).sum().backward()
            results.append([rows.detach(), x.grad, *[p.grad for p in net.parameters()], *net.state_dict().values()])
        for got, want in zip(results[1], results[0], strict=True):
            torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


def test_the_statistics_of_a_layer_are_bit_identical_in_float32():
    x = images(32, channels=C, size=8) * 3 + 10
    slow, fast = nn.BatchNorm2d(C), nn.Sequential(nn.BatchNorm2d(C))
    group_batchnorm(fast)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=memory_format)
        torch.manual_seed(1)
        want = moco.encode_in_groups(slow, given, 4, shuffle=True)
        torch.manual_seed(1)
        got = moco.encode_together(fast, given, 4, shuffle=True)
        assert torch.equal(got, want)
        assert int(fast[0].num_batches_tracked) == int(slow.num_batches_tracked)
        torch.testing.assert_close(fast[0].running_mean, slow.running_mean, rtol=3e-7, atol=0)
        torch.testing.assert_close(fast[0].running_var, slow.running_var, rtol=3e-7, atol=0)


def test_a_layer_that_is_passed_twice_gets_its_updates_in_order():
    norm = nn.BatchNorm1d(C)
    slow, fast = nn.Sequential(norm, norm), copy.deepcopy(nn.Sequential(norm, norm))
    group_batchnorm(fast)
    x = torch.randn(16, C, generator=torch.Generator().manual_seed(0)) + 3
    moco.encode_together(fast, x, 2, shuffle=False)
    slow(x)  # one group: only the order of the layer's two passes differs from that of groups, whose statistics are equal here up to noise
    assert int(fast[0].num_batches_tracked) == 4
    want = norm.running_mean.new_zeros(C)
    first = [part.mean(0) for part in x.split(8)]
    for mean in [*first, *[torch.zeros(C)] * 2]:  # the second pass sees normalised rows, whose mean is 0
        want = 0.9 * want + 0.1 * mean
    torch.testing.assert_close(fast[0].running_mean, want)


def test_outside_of_groups_and_in_evaluation_the_network_is_unchanged():
    plain = network(NORMS["BatchNormAct2d"])
    grouped = copy.deepcopy(plain)
    group_batchnorm(grouped)
    assert sum(isinstance(m, GroupedBatchNorm) for m in copy.deepcopy(grouped).modules()) == 2
    x = images(8, size=8).double()
    assert torch.equal(grouped(x), plain(x))
    with BatchGroups(8, 2):
        assert torch.equal(grouped.eval()(x), plain.eval()(x))
        grouped.train()
    with pytest.raises(ZeroDivisionError), BatchGroups(8, 2):
        raise ZeroDivisionError
    assert torch.equal(grouped(x), plain.train()(x))  # an error leaves no groups behind
    assert all(torch.equal(a, b) for a, b in zip(grouped.state_dict().values(), plain.state_dict().values(), strict=True))


def test_networks_that_cannot_be_grouped_pass_group_by_group():
    assert not group_batchnorm(nn.Sequential(SplitBatchNorm2d(C)))
    checkpointed = network(NORMS["BatchNorm2d"])
    checkpointed.grad_checkpointing = True
    assert not group_batchnorm(checkpointed)
    assert not any(isinstance(m, GroupedBatchNorm) for m in checkpointed.modules())
    frozen = nn.Sequential(nn.BatchNorm2d(C), FrozenBatchNormAct2d(C), nn.InstanceNorm2d(C, track_running_stats=True))
    freeze_statistics(frozen[:1])
    assert group_batchnorm(frozen)
    assert not any(isinstance(m, GroupedBatchNorm) for m in frozen.modules())


def test_a_norm_of_rows_that_are_no_images_is_an_error():
    net = nn.Sequential(nn.Unflatten(0, (-1, 2)), nn.Flatten(1), nn.BatchNorm1d(2 * C))  # pairs of images
    group_batchnorm(net)
    with pytest.raises(InputError, match="receives 8 rows for 16 images"):
        moco.encode_together(net, torch.randn(16, C), 2, shuffle=False)


class Operations(TorchDispatchMode):
    """Counts operations that are no views."""

    VIEWS = frozenset({"view", "permute", "expand", "select", "slice", "detach", "alias", "unsqueeze", "t", "transpose", "_unsafe_view"})

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name not in self.VIEWS:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def count_operations(m, batch, one_pass=True):
    m.one_pass_devices = {"cpu"} if one_pass else set()
    with Operations() as seen:
        m([images(batch), images(batch, seed=1)], None, 0.0)["loss"].backward()
    return seen.names


def test_operations_do_not_grow_with_the_number_of_groups_and_none_waits():
    m = method("moco", batch=64, bn_group=8)
    eight = count_operations(m, 64)
    assert abs(len(eight) - len(count_operations(method("moco", batch=64, bn_group=32), 64))) <= 2
    assert len(eight) < 0.3 * len(count_operations(method("moco", batch=64, bn_group=8), 64, one_pass=False))
    layers = sum(isinstance(layer, nn.Conv2d) for layer in m.backbone.modules())
    assert eight.count("convolution") == 2 * layers  # query and key
    assert not {"_local_scalar_dense", "nonzero"} & set(eight)
