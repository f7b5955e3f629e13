"""The number of loader processes follows the CPUs of a rank, the device and the store."""

import numpy as np
import pytest
import torch

from encoders.loading import worker_count
from encoders.loading.worker_count import MOST_WORKERS, choose_worker_count, describe_loading
from encoders.store.store import Store
from encoders.store.write import save_store
from tests.encoders.loading.test_batches import batches, joined, same, taken

GPU, CPU = torch.device("cuda", 0), torch.device("cpu")


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    pixels = np.zeros((4, 8, 8, 1), np.uint8)
    return Store.open(save_store(tmp_path_factory.mktemp("raw") / "a.h5", pixels, patient=[0, 1, 2, 3]))


@pytest.fixture
def jpeg(raw, monkeypatch):
    """The store as one of JPEGs."""
    monkeypatch.setattr(raw.parts[0], "codec", "jpeg")
    return raw


@pytest.mark.parametrize(("cpus", "want"), [(1, 1), (2, 1), (3, 2), (8, 7), (17, 16), (64, MOST_WORKERS)])
def test_null_leaves_one_cpu_to_the_process_that_drives_the_gpu(raw, monkeypatch, cpus, want):
    monkeypatch.setattr(worker_count, "count_allowed_cpus", lambda: cpus)
    assert choose_worker_count(None, GPU, raw) == want
    assert choose_worker_count(None, CPU, raw) == 0  # all CPUs train


@pytest.mark.parametrize("asked", [0, 1, 5, 40])
def test_a_number_is_taken_as_it_is(raw, asked):
    assert choose_worker_count(asked, GPU, raw) == choose_worker_count(asked, CPU, raw) == asked


@pytest.mark.parametrize(("asked", "want"), [(0, 1), (1, 1), (5, 5)])
def test_a_gpu_never_waits_for_jpeg_that_its_own_process_decodes(jpeg, asked, want):
    assert choose_worker_count(asked, GPU, jpeg) == want
    assert choose_worker_count(asked, CPU, jpeg) == asked


def test_the_choice_is_said(jpeg, monkeypatch):
    monkeypatch.setattr(worker_count, "count_allowed_cpus", lambda: 8)
    assert describe_loading(None, 2, GPU, jpeg) == "7 loader processes, each 2 micro-batches ahead"
    assert describe_loading(0, 1, GPU, jpeg) == "1 loader process (not 0, because the store holds JPEG), 1 micro-batch ahead"
    assert describe_loading(None, 2, CPU, jpeg) == "images are read by the training process"


def test_prefetch_reaches_the_loader_and_changes_no_bit():
    assert batches(workers=1, prefetch=3)._loader(0).prefetch_factor == 3
    want = joined(taken(batches(), range(3)))
    assert same(want, joined(taken(batches(workers=1, prefetch=4), range(3))))
