"""The lock of a run: one process at a time holds it, also when several start at once and find a stale lock."""

import json
import multiprocessing as mp
import os
import random
import time

import pytest

from encoders.runtime.errors import InputError
from pretrain.run import lock, lock_holder
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


def write_old_lock(folder, content):
    (folder / "lock").write_bytes(content)
    os.utime(folder / "lock", (0, 0))


HOST = lock.socket.gethostname()
NAMELESS = {
    "garbage": b"\xff\xfe\x00garbage",
    "a list": b"[1, 2]",
    "a number": b"17",
    "null": b"null",
    "no pid": json.dumps({"host": HOST}).encode(),
    "no host": b'{"pid": 1}',
    "a pid of text": json.dumps({"host": HOST, "pid": "12"}).encode(),
    "pid 0, a group": json.dumps({"host": HOST, "pid": 0}).encode(),
    "pid -1, everybody": json.dumps({"host": HOST, "pid": -1}).encode(),
    "pid beyond C": json.dumps({"host": HOST, "pid": 10**30}).encode(),
    "pid true": json.dumps({"host": HOST, "pid": True}).encode(),
    "a born that is a list": json.dumps({"host": HOST, "pid": 2**22, "born": []}).encode(),
    "a host that is a number": b'{"host": 5, "pid": 1}',
    "half of a lock": json.dumps({"host": HOST, "pid": 12}).encode()[:-7],
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("content", NAMELESS)
def test_a_lock_that_names_no_process_is_refused_with_its_path_and_kept(tmp_path, content):
    write_old_lock(tmp_path, NAMELESS[content])
    with pytest.raises(InputError, match="names no process") as error, lock.lock_run(RunDir(tmp_path)):
        pass
    assert str(tmp_path / "lock") in str(error.value)
    assert "\n" not in str(error.value)
    assert (tmp_path / "lock").read_bytes() == NAMELESS[content]
    assert not lock_holder.is_run_alive(RunDir(tmp_path))


@pytest.mark.parametrize("content", [b"", b"\0" * 96, b"\n"])
def test_a_lock_that_was_created_and_not_filled_is_taken_over(tmp_path, content):
    write_old_lock(tmp_path, content)
    printed = []
    with lock.lock_run(RunDir(tmp_path), printed.append):
        assert json.loads((tmp_path / "lock").read_text())["pid"] == os.getpid()
    assert "left empty" in printed[0]


def test_a_dead_process_of_this_host_loses_its_lock_and_one_of_another_host_keeps_it(tmp_path):
    with mp.get_context("fork").Pool(1) as pool:
        dead = pool.apply(os.getpid)
    write_old_lock(tmp_path, json.dumps({"host": HOST, "pid": dead, "born": "1"}).encode())
    with lock.lock_run(RunDir(tmp_path), lambda line: None):
        assert lock_holder.is_run_alive(RunDir(tmp_path))
    write_old_lock(tmp_path, json.dumps({"host": "elsewhere", "pid": dead}).encode())
    with (
        pytest.raises(InputError, match=f"locked by process {dead} on elsewhere, and this host cannot tell"),
        lock.lock_run(RunDir(tmp_path)),
    ):
        pass


def test_a_lock_that_is_a_folder_is_an_error(tmp_path):
    (tmp_path / "lock").mkdir()
    with pytest.raises(InputError, match="cannot be read"), lock.lock_run(RunDir(tmp_path)):
        pass
