"""The lock of a run: one process at a time holds it, also when several start at once and find a stale lock."""

import json
import multiprocessing as mp
import os
import random
import time

import pytest

from encoders.runtime.errors import InputError
from pretrain.run import lock
from pretrain.run.rundir import RunDir

ROUNDS = 40


def lock_repeatedly(path, seed, gate, answers):
    """Tries to lock the run ROUNDS times; answers how often it did, and how often another process held it too."""
    run, inside = RunDir(path), path / "inside"
    rng, held, violations = random.Random(seed), 0, 0
    gate.wait()
    for _ in range(ROUNDS):
        try:
            with lock.lock_run(run, lambda text: None):
                try:
                    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    violations += 1
                time.sleep(rng.uniform(0, 0.002))
                inside.unlink(missing_ok=True)
                held += 1
        except InputError:
            time.sleep(rng.uniform(0, 0.002))
        if rng.random() < 0.2:  # a process died with the lock
            lock._try_to_lock(path / "lock", json.dumps({"host": lock.socket.gethostname(), "pid": os.getpid(), "born": "1", "job": None}))
    answers.put((held, violations))


@pytest.mark.parametrize("links", [True, False])
def test_one_process_at_a_time_holds_a_run(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(lock.os, "link", no_links)
    context = mp.get_context("fork")
    gate, answers = context.Barrier(4), context.Queue()
    workers = [context.Process(target=lock_repeatedly, args=(tmp_path, seed, gate, answers)) for seed in range(4)]
    for worker in workers:
        worker.start()
    counts = [answers.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(violations for _, violations in counts) == 0
    assert sum(held for held, _ in counts) >= ROUNDS // 4
    assert not [name for name in os.listdir(tmp_path) if name.endswith((".part", ".removing"))]


def no_links(*paths):
    raise PermissionError(1, "no hard links here")


def test_an_old_empty_lock_is_taken_over(tmp_path):
    (tmp_path / "lock").touch()
    with pytest.raises(InputError, match="is being started by another process"), lock.lock_run(RunDir(tmp_path)):
        pass
    os.utime(tmp_path / "lock", (0, 0))
    printed = []
    with lock.lock_run(RunDir(tmp_path), printed.append):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert "taking over" in printed[0]
