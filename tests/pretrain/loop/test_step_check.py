"""What the host reads of a step: one copy, the numbers as they are, and what is asked of any rank."""

import math
import threading

import pytest
import torch

from encoders.runtime import dist
from pretrain.loop.step_check import read_scalars, read_step
from tests.device_counts import OperationCount, fake_device

CPU = torch.device("cpu")


@pytest.mark.parametrize("loss", [0.1, 3e38, math.inf, math.nan])
@pytest.mark.parametrize("norm", [1 / 3, 1e200, -math.inf, math.nan])
@pytest.mark.parametrize("stop", [True, False])
def test_a_reading_is_what_the_tensors_hold(loss, norm, stop):
    one, other = torch.tensor(loss), torch.tensor(norm, dtype=torch.float64)
    reading = read_step(one, other, stop, CPU)
    assert str(reading.loss) == str(one.item())
    assert str(reading.grad_norm) == str(other.item())
    assert reading.loss_is_finite == math.isfinite(loss)
    assert reading.is_finite == (math.isfinite(loss) and math.isfinite(norm))
    assert reading.stop == stop


def test_scalars_of_a_log_line_are_exact():
    scalars = {"a": torch.tensor(0.1), "b": 0.1, "c": torch.tensor(1e-30, dtype=torch.float64)}
    assert read_scalars(scalars) == {"a": torch.tensor(0.1).item(), "b": 0.1, "c": 1e-30}


@pytest.mark.parametrize("bad", ["nothing", "loss", "norm"])
def test_what_one_rank_sees_is_known_on_all(bad, monkeypatch):
    """Two threads are the ranks; the largest flags are exchanged through a list."""
    shared, both = [None, None], threading.Barrier(2)

    def max_over_ranks(values):
        shared[threading.current_thread().rank] = values.clone()
        both.wait()
        return values.copy_(torch.maximum(*shared))

    monkeypatch.setattr(dist, "max_over_ranks", max_over_ranks)
    readings = [None, None]

    def work(rank):
        threading.current_thread().rank = rank
        nan = torch.tensor(math.nan)
        loss = nan if rank and bad == "loss" else torch.tensor(1.0 + rank)
        norm = nan if rank and bad == "norm" else torch.tensor(2.0)
        readings[rank] = read_step(loss, norm, rank == 1, CPU)

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert readings[0].loss == 1.0
    for reading in readings:
        assert reading.stop
        assert reading.loss_is_finite == (bad != "loss")
        assert reading.is_finite == (bad == "nothing")


def test_the_host_waits_for_the_device_once():
    with fake_device() as device, OperationCount(reads=1.0) as count:
        read_step(torch.ones((), device=device), torch.ones((), device=device), False, device)
    assert count.waits == 1
    with fake_device() as device, OperationCount(reads=1.0) as count:
        read_scalars({name: torch.ones((), device=device) for name in "abc"} | {"d": 2.0})
    assert count.waits == 1
