"""CPUs in use by others: read from the counters of Linux, and left out of the threads of a run on a CPU."""

import os
import subprocess
import sys
import time

import pytest
import torch

from encoders.runtime import cpu_load
from encoders.runtime.cpu_load import count_free_cpus, measure_other_use
from pretrain.run import process

TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture(autouse=True)
def _alone(monkeypatch):
    for name in ("SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def counters(busy, idle=1000.0, waiting=50.0):
    """A /proc/stat of the first CPU of this process and of one that it may not use, which is busy all the time. Seconds."""
    mine = min(os.sched_getaffinity(0))
    other = max(os.sched_getaffinity(0)) + 1
    fields = [busy / 2, 0, busy / 2, idle, waiting, 0, 0, 0, busy / 2, 0]  # user, nice, system, idle, waiting, ..., guest (part of user)
    lines = {"cpu ": [1e6] * 10, f"cpu{mine}": fields, f"cpu{other}": [time.monotonic() + 1e5 * busy, *[0] * 9], "intr": [5] * 20}
    return "\n".join(f"{name} {' '.join(str(round(value * TICKS)) for value in values)}" for name, values in lines.items())


@pytest.mark.parametrize(("used", "want"), [(0.0, 0.0), (1.0, 1.0), (0.25, 0.25)])
def test_use_is_busy_time_of_the_own_cpus_without_own_time(tmp_path, monkeypatch, used, want):
    clock, own = [100.0], [3.0]

    def sleep(seconds):
        clock[0] += seconds
        own[0] += 0.1  # a thread of this process
        (tmp_path / "stat").write_text(counters(5 + used * seconds + 0.1, idle=1000 + seconds))

    (tmp_path / "stat").write_text(counters(5))
    monkeypatch.setattr(cpu_load.time, "sleep", sleep)
    monkeypatch.setattr(cpu_load.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(cpu_load.time, "process_time", lambda: own[0])
    assert measure_other_use(2.0, tmp_path / "stat") == pytest.approx(want, abs=0.02)


@pytest.mark.parametrize("text", [None, "", "cpu0 1 x", "cpu0 1"])
def test_where_the_system_does_not_say_nothing_is_in_use(tmp_path, text):
    if text is not None:
        (tmp_path / "stat").write_text(text.replace("cpu0", f"cpu{min(os.sched_getaffinity(0))}"))
    assert measure_other_use(0.0, tmp_path / "stat") == 0


@pytest.mark.skipif(not cpu_load.CPU_COUNTERS.exists(), reason="the system has no /proc/stat")
def test_a_busy_process_is_seen():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        used = measure_other_use(0.6)
        busy.kill()
    assert used > 0.4


@pytest.mark.parametrize(
    ("allowed", "affinity", "variables", "use", "want"),
    [
        (2, 2, {}, 0.3, 2),
        (2, 2, {}, 1.0, 1),
        (2, 2, {}, 9.0, 1),
        (64, 64, {}, 40.4, 24),
        (1, 1, {}, 1.0, 1),
        (4, 64, {}, 40.0, 4),  # a quota: it is ours
        (8, 8, {"SLURM_JOB_ID": "7"}, 8.0, 8),
        (4, 8, {"LOCAL_WORLD_SIZE": "2"}, 8.0, 4),
    ],
)
def test_free_cpus(monkeypatch, allowed, affinity, variables, use, want):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cpu_load, "count_allowed_cpus", lambda: allowed)
    monkeypatch.setattr(cpu_load, "count_affine_cpus", lambda: affinity)
    monkeypatch.setattr(cpu_load, "measure_other_use", lambda sample_s: use)
    assert count_free_cpus() == want


@pytest.mark.parametrize(
    ("wanted", "variable", "device", "want", "said"),
    [(None, None, "cpu", 3, True), (None, "5", "cpu", 5, False), (6, "5", "cpu", 6, False), (None, None, "cuda:0", 8, False)],
)
def test_a_run_takes_the_free_cpus_unless_told_otherwise(monkeypatch, capsys, wanted, variable, device, want, said):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    set_to = []
    monkeypatch.setattr(process, "count_free_cpus", lambda: 3)
    monkeypatch.setattr(process, "count_allowed_cpus", lambda: 8)
    monkeypatch.setattr(process, "resolve_device", lambda name: name)
    monkeypatch.setattr(process.dist, "join_process_group", lambda *args: None)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    assert process.prepare_process(device, wanted) == device
    assert set_to == [want]
    assert ("other processes use 5 of 8 CPUs; set threads=8" in capsys.readouterr().err) == said
