"""What a training step costs: bytes by hand on a CPU, and the allocator's peak on a CUDA device."""

import torch
from torch import nn

from transfer.protocols.training_cost import TrainingCost

FLOAT = 4  # bytes


def one_step(cost, network, x, frozen=False):
    for p in list(network.parameters())[:1] if frozen else []:
        p.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], foreach=False, fused=False)
    with cost.measure([network], optimizer):
        network(x).sum().backward()
        optimizer.step()
    return cost.as_record()


def test_memory_on_a_cpu_is_the_sum_of_weights_gradients_optimizer_and_saved_tensors():
    cost = TrainingCost(torch.device("cpu"), 10)
    got = one_step(cost, nn.Linear(4, 2), torch.randn(3, 4))
    weights, steps, saved = 10, 2, 12  # the input is kept for the gradient of the weight
    assert got["memory_bytes"] == FLOAT * (weights + weights + 2 * weights + steps + saved)
    assert (got["memory_source"], got["parameters"]) == ("counted", 10)


def test_a_frozen_weight_has_no_gradient_no_optimizer_state_and_keeps_no_input():
    got = one_step(TrainingCost(torch.device("cpu"), 10), nn.Linear(4, 2), torch.randn(3, 4), frozen=True)
    bias = 2
    assert got["memory_bytes"] == FLOAT * (10 + bias + 2 * bias + 1)


def test_memory_of_several_phases_is_that_of_the_largest():
    cost = TrainingCost(torch.device("cpu"), 10)
    large = one_step(cost, nn.Linear(4, 2), torch.randn(30, 4))["memory_bytes"]
    assert one_step(cost, nn.Linear(4, 2), torch.randn(3, 4))["memory_bytes"] == large


def test_memory_on_a_gpu_is_the_peak_of_the_allocator_since_the_start(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: calls.append(device))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 1234 if calls == [device] else 0)
    cost = TrainingCost(torch.device("cuda"), 10)
    got = one_step(cost, nn.Linear(4, 2), torch.randn(3, 4))
    assert (got["memory_bytes"], got["memory_source"]) == (1234, "allocator")
