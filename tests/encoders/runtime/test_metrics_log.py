"""The record of a run, and what redaction removes from settings."""

import json
import socket
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.runtime.metrics_log import METRICS_FILE, MetricsLog, read_metrics
from encoders.runtime.redact import redact_private

ROOT = Path(__file__).resolve().parents[3]


def without_time(lines):
    return [{k: v for k, v in line.items() if k != "time" and not k.startswith(("time_", "time/"))} for line in lines]


def log(track, steps):
    for step in steps:
        track.log(step, loss=1.0 / step, time_wait=time.monotonic())


def test_every_line_is_on_disk_at_once(tmp_path):
    track = MetricsLog(tmp_path)
    track.log(1, loss=torch.tensor(0.5), **{"knn/auroc": np.float32(0.25)})
    line = json.loads((tmp_path / METRICS_FILE).read_text())
    assert {k: line[k] for k in line if k != "time"} == {"step": 1, "loss": 0.5, "knn/auroc": 0.25}
    assert abs(line["time"] - time.time()) < 60
    track.close()
    track.close()


def test_numbers_that_are_not_finite_stay_valid_json(tmp_path):
    with MetricsLog(tmp_path) as track:
        track.log(1, loss=float("nan"), grad_norm=float("inf"))
    json.loads((tmp_path / METRICS_FILE).read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    (line,) = read_metrics(tmp_path)
    assert np.isnan(line["loss"])
    assert line["grad_norm"] == float("inf")


@pytest.mark.parametrize("tear", [b"", b'{"step": 8, "lo', b'{"step": 8, "loss": 1.0}', b"\x00\x00\x00"])
def test_a_resumed_record_equals_that_of_a_run_never_stopped(tmp_path, tear):
    with MetricsLog(tmp_path / "whole", step=0) as track:
        log(track, range(1, 11))
    with MetricsLog(tmp_path / "torn", step=0) as track:  # killed after step 7, its last checkpoint at step 5
        log(track, range(1, 8))
    with open(tmp_path / "torn" / METRICS_FILE, "ab") as file:
        file.write(tear)
    with MetricsLog(tmp_path / "torn", step=5) as track:
        log(track, range(6, 11))
    assert without_time(read_metrics(tmp_path / "torn")) == without_time(read_metrics(tmp_path / "whole"))
    assert [line["step"] for line in read_metrics(tmp_path / "torn")] == list(range(1, 11))


def test_a_record_without_steps_is_continued_whole(tmp_path):
    with MetricsLog(tmp_path) as track:
        log(track, [1, 2])
    with open(tmp_path / METRICS_FILE, "ab") as file:
        file.write(b'{"step": 3')
    with MetricsLog(tmp_path) as track:
        log(track, [3])
    assert [line["step"] for line in read_metrics(tmp_path)] == [1, 2, 3]


def test_other_ranks_write_nothing(tmp_path):
    with MetricsLog(tmp_path / "x", rank=1, mode="offline") as track:
        track.log(1, loss=1.0)
        track.image(1, "a", np.zeros((2, 2, 3), np.uint8))
        track.summary(a=1)
        track.artifact("a", tmp_path)
    assert not (tmp_path / "x").exists()


def test_the_summary_is_a_file_that_grows(tmp_path):
    with MetricsLog(tmp_path) as track:
        track.summary(**{"bench/a/knn/auroc": 0.5, "n": 3})
        track.summary(**{"bench/a/linear/auroc": np.float64(0.75), "encoder.sha256": "ab", "missing": float("nan")})
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {"bench/a/knn/auroc": 0.5, "n": 3, "bench/a/linear/auroc": 0.75, "encoder.sha256": "ab", "missing": "nan"}


def test_redaction_removes_paths_hosts_users_and_patients(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "gpu-node-17.ward.example")
    monkeypatch.setenv("LOGNAME", "drsmith")
    given = {
        "data": {"store": Path("/home/drsmith/a/cxr.h5"), "keys": "k.txt", "weights": [1.0, 2]},
        "patient": "MRN1",
        "Host": "x",
        "note": "made on gpu-node-17 by drsmith from ../x/y.h5, C:\\data\\z.h5",
        "lr": 1e-4,
        "on": True,
        "none": None,
    }
    assert redact_private(given) == {
        "data": {"store": "(file).h5", "weights": [1.0, 2]},
        "note": "made on - by - from (file).h5, (file).h5",
        "lr": 1e-4,
        "on": True,
        "none": None,
    }
