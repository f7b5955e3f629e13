"""Threads that share the work of a batch: bit-identical for any number of them, in forked processes, and with errors that name the step."""

import multiprocessing
import os
import threading

import numpy as np
import pytest
import torch

from encoders.augment import Augment
from encoders.runtime.threads import single_torch_thread
from tests.encoders.loading.test_batches import InMemory, batches, joined, same, taken


@pytest.mark.parametrize("threads", [2, 3])
def test_the_number_of_threads_changes_no_bit(threads):
    before, want = torch.get_num_threads(), joined(taken(batches(InMemory(side=300)), range(2)))
    try:
        torch.set_num_threads(threads)
        assert same(joined(taken(batches(InMemory(side=300)), range(2))), want)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def threads():
    """Sets the number of threads; as before afterwards."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def helpers():
    return [thread for thread in threading.enumerate() if thread.name.startswith("team")]


def test_threads_share_a_batch_and_change_no_bit(threads):
    made = {}
    for n in (1, 2, 4):
        threads(n)
        with batches(InMemory(100), batch=100) as source:  # three groups and a bit
            made[n] = joined([micro for step in (0, 1) for micro in source.micro_batches(step)])
            assert len(helpers()) == (0 if n == 1 else n)
            assert torch.get_num_threads() == n
        assert not helpers()
    assert same(made[1], made[2])
    assert same(made[1], made[4])


def test_a_forked_process_starts_threads_of_its_own(threads):
    threads(2)
    with batches(InMemory(64), batch=64) as source:
        (want,) = source.micro_batches(1)

        def there():  # compared in NumPy: OpenMP itself hangs where a process with threads was forked
            (got,) = source.micro_batches(1)
            os._exit(0 if np.array_equal(got.views[1].numpy(), want.views[1].numpy()) else 1)

        child = multiprocessing.get_context("fork").Process(target=there)
        child.start()
        child.join(30)
        alive = child.is_alive()
        child.kill()
        child.join()
        assert not alive
        assert child.exitcode == 0


def test_an_error_in_a_thread_names_its_step(threads):
    threads(2)
    with batches(InMemory(64), [Augment(crop=(0.5, 1.0))], batch=64) as source:
        raw = source._work.read_raw(3)
        broken = raw._replace(params=[{name: value[:40] for name, value in raw.params[0].items()}])
        with pytest.raises(RuntimeError, match="at step 3, rows"), single_torch_thread() as n:
            source._work.finish_batch(broken, 3, source._team, n)
