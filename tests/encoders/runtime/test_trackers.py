"""Trackers beside W&B: what is written is read back with TensorBoard's and MLflow's own readers."""

import json
import os

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from encoders.runtime import trackers
from encoders.runtime.errors import InputError
from encoders.runtime.metrics_log import MetricsLog, read_metrics
from encoders.runtime.tracker import flatten_settings
from encoders.runtime.trackers import require_trackers

CONFIG = {"optim": {"lr": 1e-4}, "data": {"store": "/home/planted-user/cxr.h5"}, "patient": "planted-patient"}
ABOUT = {"group": "mine", "job_type": "pretrain", "name": "mine", "config": CONFIG, "tags": ("moco", "resnet50"), "mode": "disabled"}


def write_run(folder, track, first=1, last=3, outcome=None):
    """A session of a run that logs the steps from `first` to `last`."""
    with MetricsLog(folder, **ABOUT, track=track, step=first - 1, resume="feedbeef") as log:
        for step in range(first, last + 1):
            log.log(step, **{"train/loss": 1 / step, "time/images_per_s": 7.0})
        log.alert(last, "collapse", "features are alike in /data/planted-folder/x", "warning")
        log.image(last, "views", picture(folder))
        log.table("leaderboard", ["encoder", "auroc"], [["mine", 0.75], ["theirs", None]])
        log.html("overview", "<p>matrix</p>")
        log.summary(**{"bench/lungs/knn/auroc": 0.75, "verdict": "better"})
        log.outcome = outcome


def picture(folder):
    metadata = PngImagePlugin.PngInfo()
    metadata.add_text("PatientID", "planted-patient")
    pixels = np.arange(48, dtype=np.uint8).reshape(6, 8)
    Image.fromarray(pixels).save(folder.with_suffix(".png"), pnginfo=metadata)
    return folder.with_suffix(".png")


def stored_bytes(folder):
    return b"".join(bytes(path) + path.read_bytes() for path in folder.rglob("*") if path.is_file())


def read_tensorboard(folder):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    return events.Reload()


def read_text(events, tag):
    return [event.tensor_proto.string_val[0].decode() for event in events.Tensors(tag)]


def test_tensorboard_reads_what_the_record_has(tmp_path):
    write_run(tmp_path / "mine", ("jsonl", "tensorboard"), outcome="cancelled")
    events = read_tensorboard(tmp_path / "mine")
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(n, pytest.approx(1 / n)) for n in (1, 2, 3)]
    assert [line["train/loss"] for line in read_metrics(tmp_path / "mine")] == [1 / n for n in (1, 2, 3)]
    assert events.Scalars("bench/lungs/knn/auroc")[0].value == 0.75
    (shown,) = events.Images("views")
    assert (shown.width, shown.height, shown.step) == (8, 6, 3)
    assert read_text(events, "run/outcome") == ["cancelled"]
    assert "collapse" in "".join(events.Tags()["tensors"])
    assert "step 3" in read_text(events, "run/alert/collapse")[0]
    assert "| mine | 0.75 |" in read_text(events, "run/leaderboard")[0]
    assert "better" in read_text(events, "run/summary")[0]
    assert json.loads(read_text(events, "run/settings")[0].strip("`"))["optim"] == {"lr": 1e-4}


def test_tensorboard_files_name_no_patient_path_host_or_user(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "planted-host")
    monkeypatch.setenv("LOGNAME", "planted-user")
    write_run(tmp_path / "mine", ("tensorboard",))
    data = stored_bytes(tmp_path / "mine" / "tensorboard").replace(bytes(tmp_path), b"")
    assert b"collapse" in data
    assert not [word for word in (b"planted", b"/home", b"/data") if word in data]


def test_tensorboard_drops_the_steps_after_the_one_that_a_run_is_resumed_from(tmp_path):
    write_run(tmp_path / "mine", ("tensorboard",), 1, 5)
    write_run(tmp_path / "mine", ("tensorboard",), 4, 6)
    assert [e.step for e in read_tensorboard(tmp_path / "mine").Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in read_metrics(tmp_path / "mine")] == [1, 2, 3, 4, 5, 6]
    assert len(list((tmp_path / "mine" / "tensorboard").iterdir())) == 2


@pytest.fixture
def client(tmp_path, monkeypatch):
    """MLflow's client of a folder, which the tracker also uses."""
    pytest.importorskip("mlflow")
    for name in [name for name in os.environ if name.startswith("MLFLOW")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    from mlflow.tracking.client import MlflowClient

    return MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())


def read_mlflow(client):
    (experiment,) = [e for e in client.search_experiments() if e.name == "isograft"]
    return client.search_runs([experiment.experiment_id])


@pytest.mark.slow
def test_mlflow_reads_what_the_record_has_and_continues_a_resumed_run(client, tmp_path):
    write_run(tmp_path / "mine", ("mlflow",), 1, 3, "preempted")
    (run,) = read_mlflow(client)
    assert (run.info.run_name, run.info.status, run.data.tags["outcome"]) == ("mine", "SCHEDULED", "preempted")
    write_run(tmp_path / "mine", ("mlflow",), 4, 5)
    (run,) = read_mlflow(client)
    assert (run.info.status, run.data.tags["outcome"], run.data.tags["moco"]) == ("FINISHED", "finished", "true")
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert sorted((m.step, m.value) for m in history) == [(n, 1 / n) for n in range(1, 6)]
    assert run.data.params == {"optim.lr": "0.0001", "data.store": "(file).h5"}
    assert (run.data.metrics["bench/lungs/knn/auroc"], run.data.tags["verdict"]) == (0.75, "better")
    assert run.data.tags["alert/collapse"] == "warning at step 5: features are alike in (folder)"
    assert {f.path for f in client.list_artifacts(run.info.run_id)} >= {"leaderboard.json", "overview.html", "views-5.png"}


@pytest.mark.slow
@pytest.mark.parametrize(("outcome", "status"), [("cancelled", "KILLED"), ("stopped", "FAILED"), ("diverged", "FAILED")])
def test_mlflow_says_how_a_run_ended(client, tmp_path, outcome, status):
    write_run(tmp_path / "mine", ("mlflow",), outcome=outcome)
    assert read_mlflow(client)[0].info.status == status


@pytest.mark.slow
def test_mlflow_gets_no_patient_host_or_user(client, tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "planted-host")
    monkeypatch.setenv("LOGNAME", "planted-user")
    write_run(tmp_path / "mine", ("mlflow",))
    assert b"planted" not in stored_bytes(tmp_path / "mlruns").replace(bytes(tmp_path), b"")


@pytest.mark.slow
def test_a_server_of_mlflow_that_does_not_answer_stops_no_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    write_run(tmp_path / "mine", ("mlflow",))
    assert [line["step"] for line in read_metrics(tmp_path / "mine")] == [1, 2, 3]
    assert "MLflow: start failed, the run continues; see " in capsys.readouterr().err
    assert (tmp_path / "mine" / "mlflow-errors.log").exists()


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_missing_package_is_an_error_that_says_what_to_install(name, monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda package: None)
    with pytest.raises(InputError, match=rf"pip install 'isograft\[{name}\]'.*track=\[jsonl,wandb\]"):
        require_trackers(["jsonl", "wandb", name])
    require_trackers(["jsonl", "wandb"])


def test_without_trackers_the_record_is_written(tmp_path):
    write_run(tmp_path / "mine", ("jsonl",))
    assert len(read_metrics(tmp_path / "mine")) == 3
    assert not list((tmp_path / "mine").glob("wandb*"))
    assert json.loads((tmp_path / "mine" / "leaderboard.json").read_text())["rows"] == [["mine", 0.75], ["theirs", None]]


@pytest.mark.parametrize(
    ("error", "outcome"), [(None, "finished"), (KeyboardInterrupt, "cancelled"), (RuntimeError, "failed"), (SystemExit, "failed")]
)
def test_the_end_of_the_block_says_how_the_run_ended(tmp_path, error, outcome):
    ended = []

    class Kept:
        def close(self, how):
            ended.append(how)

    def work():
        with MetricsLog(tmp_path, track=("jsonl",)) as log:
            log.trackers = [Kept()]
            if error:
                raise error

    if error:
        with pytest.raises(error):
            work()
    else:
        work()
    assert ended == [outcome]


def test_nested_settings_get_dotted_names():
    assert flatten_settings({"a": {"b": {"c": 1}, "d": 2}, "e": None}) == {"a.b.c": 1, "a.d": 2, "e": None}
