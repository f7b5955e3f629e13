"""The clock is set back, or files come from the future: no negative times, no stale cache, and names that order by time stay in order."""

import json
import os
import time

import pytest

from encoders.gallery.run_entries import describe_run_state
from encoders.runtime.log_tail import find_newest_log
from encoders.runtime.tensorboard_mirror import _next_file_name
from encoders.store.store import Store
from encoders.store.verified import require_intact, verified_path
from encoders.store.write import save_store
from pretrain.run import lock
from pretrain.run.rundir import run_dir_for
from pretrain.run.status import describe_run

DAY_S = 24 * 3600


def test_the_log_of_the_newest_job_is_found_by_its_number(tmp_path):
    for job, day in ((99, 3), (100, 1), (7, 2)):
        log = tmp_path / f"slurm-{job}.out"
        log.write_text("x")
        os.utime(log, (day * DAY_S, day * DAY_S))
    assert find_newest_log(tmp_path).name == "slurm-100.out"


def test_files_of_tensorboard_stay_in_the_order_of_their_sessions(tmp_path, monkeypatch):
    names = []
    for now in (5000, 1000, 1000, 6000, 900):
        monkeypatch.setattr(time, "time", lambda now=now: float(now))
        names.append(_next_file_name(tmp_path, "abc"))
        (tmp_path / names[-1]).touch()
    assert names == sorted(names)
    assert len(set(names)) == 5


def test_a_store_that_was_changed_with_its_old_times_is_verified_again(tmp_path):
    path = save_store(tmp_path / "a.h5", _pictures())
    require_intact(Store.open(path))
    before, facts = verified_path(Store.open(path).parts[0]), path.stat()
    with path.open("rb+") as file:
        file.seek(path.stat().st_size - 1)
        last = file.read(1)
        file.seek(-1, os.SEEK_END)
        file.write(last)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert path.stat().st_mtime_ns == facts.st_mtime_ns
    assert verified_path(Store.open(path).parts[0]) != before


def _pictures():
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (4, 16, 16, 1), dtype=np.uint8)


@pytest.mark.parametrize(("written", "age"), [(100.0, 0.0), (40.0, 60.0), (130.0, -30.0), (100.0 + DAY_S, float("inf"))])
def test_a_lock_from_the_future_is_old(tmp_path, monkeypatch, written, age):
    (tmp_path / "lock").touch()
    os.utime(tmp_path / "lock", (written, written))
    monkeypatch.setattr(time, "time", lambda: 100.0)
    assert lock._lock_age_s(tmp_path / "lock") == age


def test_a_line_of_metrics_from_the_future_was_written_now():
    run = run_dir_for("a")
    run.path.mkdir(parents=True)
    run.config.write_text("{}")
    run.update(status="finished", steps=10, step=10, id="a", sessions=[])
    (run.path / "metrics.jsonl").write_text(json.dumps({"step": 10, "time": time.time() + DAY_S, "loss": 1.0}) + "\n")
    (age,) = [column for column in describe_run(run).row if column.endswith(" ago")]
    assert "-" not in age
    assert age.startswith("0")


def test_a_run_of_the_future_has_a_line_of_now(tmp_path, monkeypatch):
    assert describe_run_state({"status": "running"}, time.time() + DAY_S, "a") == ("running", "open")
