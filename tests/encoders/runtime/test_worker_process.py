"""A spawned loader process ends cleanly whatever its daemon threads do, and a crash keeps its exit code."""

import multiprocessing
import os
import signal
import sys
import threading

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from encoders.runtime.worker_process import worker_context


def busy_in_cpp(_: int = 0) -> None:
    """Starts daemon threads that are outside the interpreter nearly all the time, as a thread that shares tensors is at its worst."""

    def multiply() -> None:
        square = torch.rand(600, 600)
        while True:
            square = torch.softmax(square @ square, 1)

    for _ in range(2):
        threading.Thread(target=multiply, daemon=True).start()
    torch.rand(800, 800) @ torch.rand(800, 800)  # gives the threads time to start


def end_normally() -> None:
    busy_in_cpp()
    print("last line")  # buffered


def end_with_status() -> None:
    busy_in_cpp()
    sys.exit(7)


def end_with_error() -> None:
    busy_in_cpp()
    raise ValueError("an error of the work")


def end_by_signal() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


ENDS = {end_normally: 0, end_with_status: 7, end_with_error: 1, end_by_signal: -signal.SIGKILL}


def exit_codes(context, targets):
    processes = [context.Process(target=target) for target in targets]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    return [process.exitcode for process in processes]


@pytest.mark.slow
def test_a_worker_with_threads_in_cpp_ends_with_its_own_exit_code(capfd):
    assert exit_codes(worker_context("spawn"), ENDS) == list(ENDS.values())
    out, err = capfd.readouterr()
    assert "last line" in out
    assert "an error of the work" in err
    assert "terminate called" not in err


class ManySmallTensors(Dataset[list[Tensor]]):
    """A batch whose pickling takes the feeding thread far longer than the worker takes to end."""

    def __getitem__(self, _: int) -> list[Tensor]:
        return [torch.zeros(8) for _ in range(300)]

    def __len__(self) -> int:
        return 10**6


@pytest.mark.slow
@pytest.mark.parametrize("closes", [3])
def test_closing_a_loader_with_full_queues_leaves_workers_that_ended_normally(closes, capfd):
    for _ in range(closes):
        loader = DataLoader(
            ManySmallTensors(), batch_size=None, num_workers=1, multiprocessing_context=worker_context("spawn"), worker_init_fn=busy_in_cpp
        )
        iterator = iter(loader)
        next(iterator)
        workers = iterator._workers
        iterator._shutdown_workers()
        assert [worker.exitcode for worker in workers] == [0]
    assert "terminate called" not in capfd.readouterr().err


@pytest.mark.parametrize("method", [None, "fork", "spawn", "forkserver"])
def test_the_context_has_the_start_method_asked_for(method):
    assert worker_context(method).get_start_method() == (method or multiprocessing.get_start_method())
