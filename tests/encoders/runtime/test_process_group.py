"""How a process joins the others: backend, device and timeout."""

from datetime import timedelta

import pytest
import torch
import torch.distributed as td

from encoders.runtime import dist


@pytest.fixture
def joined(monkeypatch):
    """The arguments of each `init_process_group`."""
    calls = []
    monkeypatch.setattr(td, "init_process_group", lambda backend, **more: calls.append((backend, more)))
    for name, value in {"WORLD_SIZE": "4", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    return calls


@pytest.mark.parametrize("minutes", [0.5, 45])
def test_nccl_is_bound_to_the_gpu_of_the_process(joined, minutes):
    dist.join_process_group("cuda:1", minutes)
    assert joined == [("nccl", {"timeout": timedelta(minutes=minutes), "device_id": torch.device("cuda", 1)})]


def test_cpus_talk_over_gloo_and_wait_ten_minutes_by_default(joined):
    dist.join_process_group("cpu")
    assert joined == [("gloo", {"timeout": timedelta(minutes=10), "device_id": None})]


def test_a_single_process_joins_nothing(joined, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    dist.join_process_group("cuda:0")
    assert joined == []
