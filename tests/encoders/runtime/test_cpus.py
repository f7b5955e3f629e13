"""CPUs of a process: the fewest of affinity, quota and what SLURM grants, divided among the processes that share them."""

import os

import pytest

from encoders.runtime import cpus
from encoders.runtime.launcher import expand_counts, local_ranks

VARIABLES = ["LOCAL_WORLD_SIZE", "LOCAL_RANK", "SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE", "SLURM_STEP_ID", "MASTER_ADDR", "SLURM_NTASKS"]
TORCHRUN = {"LOCAL_WORLD_SIZE": 4}
SRUN = {"SLURM_STEP_ID": 0, "MASTER_ADDR": "n1", "SLURM_NTASKS": 4, "SLURM_STEP_TASKS_PER_NODE": "4", "SLURM_CPUS_ON_NODE": 32}


@pytest.mark.parametrize(
    ("affinity", "quota", "variables", "want"),
    [
        (32, None, {}, 32),
        (32, 4.0, {}, 4),
        (32, 2.5, {}, 2),
        (32, 0.5, {}, 1),
        (32, None, {"SLURM_CPUS_PER_TASK": 8}, 8),
        (4, None, {"SLURM_CPUS_PER_TASK": 8}, 4),
        (32, None, TORCHRUN, 8),
        (32, 16.0, TORCHRUN, 4),
        (32, None, TORCHRUN | {"SLURM_CPUS_PER_TASK": 16}, 4),  # of the one task that torchrun runs in
        (2, None, TORCHRUN, 1),
        (8, None, SRUN, 8),  # bound: fewer CPUs than the job has on the node
        (32, None, SRUN, 8),  # not bound: all tasks share them
        (32, None, SRUN | {"SLURM_CPUS_PER_TASK": 6}, 6),
        (32, 8.0, SRUN | {"SLURM_CPUS_PER_TASK": 6}, 2),
    ],
)
def test_the_cpus_of_a_process(monkeypatch, affinity, quota, variables, want):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(cpus, "count_affine_cpus", lambda: affinity)
    monkeypatch.setattr(cpus, "cgroup_quota", lambda: quota)
    assert cpus.count_allowed_cpus() == want


def test_the_affinity_is_that_of_the_operating_system():
    assert cpus.count_affine_cpus() == len(os.sched_getaffinity(0))
    assert 1 <= cpus.count_allowed_cpus() <= os.cpu_count()


@pytest.mark.parametrize(
    ("files", "own", "want"),
    [
        ({"a/b/cpu.max": "max 100000", "a/cpu.max": "150000 100000"}, "/a/b", 1.5),
        ({"a/b/cpu.max": "400000 100000", "a/cpu.max": "150000 100000"}, "/a/b", 1.5),
        ({"a/b/cpu.max": "50000 100000", "a/cpu.max": "max 100000"}, "/a/b", 0.5),
        ({"cpu.max": "200000 100000"}, "/", 2.0),  # a container sees its own group as the root
        ({}, "/", None),
        ({"cpu.max": "nonsense"}, "/", None),
    ],
)
def test_quota_of_version_2_is_the_tightest_of_all_enclosing_groups(tmp_path, files, own, want):
    (tmp_path / "cgroup.controllers").touch()
    (tmp_path / "member").write_text(f"0::{own}\n")
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert cpus.cgroup_quota(tmp_path, tmp_path / "member") == want


@pytest.mark.parametrize(("quota", "want"), [(350000, 3.5), (-1, None)])
def test_quota_of_version_1(tmp_path, quota, want):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    assert cpus.cgroup_quota(tmp_path) == want


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert cpus.cgroup_quota(tmp_path) is None


@pytest.mark.parametrize(("text", "want"), [("2(x3),1", [2, 2, 2, 1]), ("4", [4]), ("", []), ("1,2(x2)", [1, 2, 2])])
def test_counts_of_slurm(text, want):
    assert expand_counts(text) == want


def test_processes_of_this_node(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert local_ranks() == 1
    for name, value in (SRUN | {"SLURM_STEP_TASKS_PER_NODE": "2,3", "SLURM_NODEID": 1}).items():
        monkeypatch.setenv(name, str(value))
    assert local_ranks() == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert local_ranks() == 8
