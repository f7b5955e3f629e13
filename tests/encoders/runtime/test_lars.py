"""LARS against its paper and against lightly's, and what it costs: operations that do not grow with the network, and none that waits."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from encoders.runtime import optim
from encoders.runtime.lars import LARS

SHAPES = [(8, 4, 3, 3), (5, 7), (64,), (130,), (3,), (2, 2), (6, 3, 2, 2)]
ZERO_WEIGHT, ZERO_GRADIENT, CHANNELS_LAST, NO_GRADIENT = 5, 1, 6, 4


def groups(seed=0, dtype=torch.float32):
    """Matrices with weight decay and vectors without; one tensor is zero, one in channels-last order."""
    torch.manual_seed(seed)
    params = [nn.Parameter(torch.randn(shape, dtype=dtype) * 10 ** (i % 3 - 1)) for i, shape in enumerate(SHAPES)]
    with torch.no_grad():
        params[ZERO_WEIGHT].zero_()
    params[CHANNELS_LAST].data = params[CHANNELS_LAST].data.contiguous(memory_format=torch.channels_last)
    decays = {True: 0.02, False: 0.0}
    return [{"params": [p for p in params if (p.ndim > 1) is m], "weight_decay": decay} for m, decay in decays.items()]


def parameters(some):
    return [p for group in some for p in group["params"]]


def set_gradients(params, step):
    generator = torch.Generator().manual_seed(step)
    for i, p in enumerate(params):
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype) if i != NO_GRADIENT else None
        if i == ZERO_GRADIENT and step != 1:
            p.grad.zero_()


def lars_in_numpy(w, v, g, lr, decay, momentum, trust, eps):
    """One step of one tensor; equation 6 and algorithm 1 of the paper."""
    if decay and np.linalg.norm(w) and np.linalg.norm(g):
        g = trust * np.linalg.norm(w) / (np.linalg.norm(g) + decay * np.linalg.norm(w) + eps) * (g + decay * w)
    v = momentum * v + g
    return w - lr * v, v


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_steps_are_those_of_the_paper(momentum):
    some = groups(dtype=torch.float64)
    optimizer = LARS(some, lr=0.3, momentum=momentum, trust_coefficient=0.02)
    params = parameters(some)
    decays = [group["weight_decay"] for group in some for _ in group["params"]]
    want = [(p.detach().numpy().copy(), 0.0) for p in params]
    for step in range(4):
        set_gradients(params, step)
        optimizer.step()
        for i, p in enumerate(params):
            if p.grad is not None:
                want[i] = lars_in_numpy(*want[i], p.grad.numpy(), 0.3, decays[i], momentum, 0.02, 1e-8)
            np.testing.assert_allclose(p.detach().numpy(), want[i][0], rtol=1e-12, atol=1e-15)


def test_steps_and_state_are_those_of_lightly():
    lightly = pytest.importorskip("lightly.utils.lars")
    ours, theirs = groups(), groups()
    one, two = LARS(ours, lr=0.3, momentum=0.9), lightly.LARS(theirs, lr=0.3, momentum=0.9)
    for step in range(5):
        for some, optimizer in ((ours, one), (theirs, two)):
            set_gradients(parameters(some), step)
            optimizer.step()
        for a, b in zip(parameters(ours), parameters(theirs), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-7, atol=0)
    for a, b in zip(one.state_dict()["state"].values(), two.state_dict()["state"].values(), strict=True):
        torch.testing.assert_close(a["momentum_buffer"], b["momentum_buffer"], rtol=1e-7, atol=0)


def test_a_checkpoint_of_lightlys_lars_continues():
    lightly = pytest.importorskip("lightly.utils.lars")
    ours, theirs = groups(), groups()
    old = lightly.LARS(theirs, lr=0.3, momentum=0.9)
    set_gradients(parameters(theirs), 0)
    old.step()
    new = LARS(ours, lr=0.1, momentum=0.5)
    for a, b in zip(parameters(ours), parameters(theirs), strict=True):
        a.data.copy_(b.data)
    new.load_state_dict(copy.deepcopy(old.state_dict()))
    for some, optimizer in ((ours, new), (theirs, old)):
        set_gradients(parameters(some), 1)
        optimizer.step()
    for a, b in zip(parameters(ours), parameters(theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=0)


def test_tensors_may_get_their_first_gradient_later_and_the_optimizer_can_be_pickled():
    some = groups()
    optimizer, params = LARS(some, lr=0.3), parameters(some)
    set_gradients(params, 0)
    optimizer.step()
    late = params[NO_GRADIENT].detach().clone()
    again = pickle.loads(pickle.dumps(optimizer))
    params[NO_GRADIENT].grad = torch.ones_like(late)
    optimizer.step()
    decay = next(g["weight_decay"] for g in some if any(p is params[NO_GRADIENT] for p in g["params"]))
    want = lars_in_numpy(late.double().numpy(), 0.0, np.ones(late.shape), 0.3, decay, 0.9, 1e-3, 1e-8)[0]
    np.testing.assert_allclose(params[NO_GRADIENT].detach().numpy(), want, rtol=1e-6)
    again.step()  # without gradients: nothing to do


class Operations(TorchDispatchMode):
    """Counts the operations by name."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func.overloadpacket))
        return func(*args, **(kwargs or {}))


def operations_of_a_step(n_layers):
    net = nn.Sequential(*[nn.Linear(4, 4) for _ in range(n_layers)])
    some = [
        {"params": [p for p in net.parameters() if p.ndim > 1]},
        {"params": [p for p in net.parameters() if p.ndim == 1], "weight_decay": 0},
    ]
    optimizer = optim.build_optimizer(some, optim.Optim(kind="lars", weight_decay=0.1), 256)
    for _ in range(2):  # the first makes the momentum buffers
        net(torch.ones(2, 4)).sum().backward()
        optimizer.step()
    with Operations() as seen:
        optimizer.step()
    return seen.names


def test_the_number_of_operations_does_not_grow_with_the_network_and_none_waits():
    names = operations_of_a_step(2)
    assert len(operations_of_a_step(60)) == len(names) <= 30
    assert not {name for name in names if "local_scalar_dense" in name or "nonzero" in name or "_to_copy" in name}
