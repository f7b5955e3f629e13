"""The moving average of a network: bit-identical to one tensor after the other, at a number of operations that does not grow."""

import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from encoders.runtime.moving_average import move_average


def network(n, seed=0):
    torch.manual_seed(seed)
    net = nn.Sequential(*[nn.Sequential(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)) for _ in range(n)])
    for name, tensor in net.state_dict().items():
        tensor.copy_(torch.full_like(tensor, 7 + seed)) if "num_batches" in name else tensor.normal_()
    return net.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999, 1.0])
def test_weights_and_statistics_are_averaged_and_counters_copied(decay):
    average, model = network(3), network(3, seed=1)
    want = copy.deepcopy(average.state_dict())
    for name, tensor in model.state_dict().items():
        want[name] = want[name].lerp(tensor, 1 - decay) if tensor.is_floating_point() else tensor.clone()
    before = copy.deepcopy(model.state_dict())
    move_average(average.state_dict(), model.state_dict(), decay)
    for name, tensor in average.state_dict().items():
        assert torch.equal(tensor, want[name])
        assert torch.equal(model.state_dict()[name], before[name])
    assert int(average[0][1].num_batches_tracked) == 8


def test_a_tensor_that_the_model_lacks_is_an_error_and_networks_without_counters_are_averaged():
    with pytest.raises(KeyError, match=r"1\.0\.weight"):
        move_average(network(2).state_dict(), network(1).state_dict(), 0.9)
    plain = {"w": torch.zeros(2)}
    move_average(plain, {"w": torch.ones(2)}, 0.75)
    assert plain["w"].tolist() == [0.25, 0.25]


class Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_the_number_of_operations_does_not_grow_with_the_network():
    seen = []
    for n in (1, 20):
        average, model = network(n).state_dict(), network(n, seed=1).state_dict()
        with Operations() as operations:
            move_average(average, {name: tensor.detach() for name, tensor in model.items()}, 0.9)
        seen.append([name for name in operations.names if name not in ("detach", "alias")])
    assert seen[0] == seen[1] == ["_foreach_lerp_", "_foreach_copy_"]
