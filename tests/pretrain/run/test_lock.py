"""One process at a time in a run's folder, however many come at once, and however stale the lock that they find."""

import json
import multiprocessing as mp
import os
import random
import time

import pytest

from encoders.runtime.errors import InputError
from pretrain.run import rundir

ROUNDS = 40


def comes_and_goes(path, seed, gate, answers):
    """Tries to hold the run ROUNDS times; tells how often it did, and whether it ever was not alone."""
    run, inside = rundir.RunDir(path), path / "inside"
    rng, held, company = random.Random(seed), 0, 0
    gate.wait()
    for _ in range(ROUNDS):
        try:
            with rundir.lock_run(run, lambda text: None):
                try:
                    os.close(os.open(inside, os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    company += 1
                time.sleep(rng.uniform(0, 0.002))
                inside.unlink(missing_ok=True)
                held += 1
        except InputError:
            time.sleep(rng.uniform(0, 0.002))
        if rng.random() < 0.2:  # somebody died
            rundir._try_to_lock(
                path / "lock", json.dumps({"host": rundir.socket.gethostname(), "pid": os.getpid(), "born": "1", "job": None})
            )
    answers.put((held, company))


@pytest.mark.parametrize("links", [True, False])
def test_of_many_processes_one_at_a_time_holds_a_run(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(rundir.os, "link", no_links)
    context = mp.get_context("fork")
    gate, answers = context.Barrier(4), context.Queue()
    workers = [context.Process(target=comes_and_goes, args=(tmp_path, seed, gate, answers)) for seed in range(4)]
    for worker in workers:
        worker.start()
    told = [answers.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert sum(company for _, company in told) == 0
    assert sum(held for held, _ in told) >= ROUNDS // 4
    assert not [name for name in os.listdir(tmp_path) if name.endswith((".part", ".removing"))]


def no_links(*paths):
    raise PermissionError(1, "no hard links here")


def test_a_lock_that_was_never_filled_is_taken_over(tmp_path):
    (tmp_path / "lock").touch()
    with pytest.raises(InputError, match="is being started by another process"), rundir.lock_run(rundir.RunDir(tmp_path)):
        pass
    os.utime(tmp_path / "lock", (0, 0))
    said = []
    with rundir.lock_run(rundir.RunDir(tmp_path), said.append):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert "taking over" in said[0]
