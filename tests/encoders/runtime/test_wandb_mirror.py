"""The W&B mirror of a run: what W&B receives, and that it can neither stop nor delay a run."""

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from encoders.runtime import wandb_mirror
from encoders.runtime.metrics_log import read_metrics
from encoders.runtime.tracker import TrackedRun
from encoders.runtime.wandb_mirror import WandbMirror
from encoders.runtime.wandb_start import clean_tags, decide_mode, init_wandb_run
from tests import wandb_server

ROOT = Path(__file__).resolve().parents[3]

CASES = [  # environment, netrc entry, requested -> mode
    ({}, None, None, "offline"),
    ({"WANDB_API_KEY": "k" * 40}, None, None, "online"),
    ({}, "api.wandb.ai", None, "online"),
    ({}, "github.com", None, "offline"),
    ({"WANDB_BASE_URL": "https://wandb.ward.example:8080"}, "api.wandb.ai", None, "offline"),
    ({"WANDB_BASE_URL": "https://wandb.ward.example:8080"}, "wandb.ward.example:8080", None, "online"),
    ({"WANDB_MODE": "online"}, None, None, "offline"),  # would prompt on a terminal
    ({"WANDB_MODE": "offline", "WANDB_API_KEY": "k" * 40}, None, None, "offline"),
    ({"WANDB_MODE": "disabled", "WANDB_API_KEY": "k" * 40}, None, None, "disabled"),
    ({"WANDB_API_KEY": "k" * 40}, None, "disabled", "disabled"),
    ({}, None, "online", "offline"),
]


@pytest.mark.parametrize(("env", "machine", "requested", "mode"), CASES)
def test_the_mode_is_decided_before_wandb_starts(tmp_path, monkeypatch, env, machine, requested, mode):
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    (tmp_path / "netrc").write_text(f"machine {machine} login user password {'k' * 40}\n" if machine else "")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    got, why = decide_mode(requested)
    assert got == mode
    assert bool(why) == (mode == "offline" and env.get("WANDB_MODE") != "offline")


def test_a_failing_mirror_is_recorded_reported_once_and_given_up(tmp_path, capsys):
    class Broken:
        calls = 0

        def log(self, *_, **__):
            self.calls += 1
            raise RuntimeError("service is gone")

    mirror = WandbMirror(tmp_path, "disabled")
    mirror.open_run = broken = Broken()
    for step in range(20):
        mirror.log(step, {"loss": 1.0})
    mirror.close("finished")
    assert broken.calls == 5
    assert (tmp_path / "wandb-errors.log").read_text().count("RuntimeError: service is gone") == 5
    assert capsys.readouterr().err.count("the run continues") == 1


SCRIPT = """
import socket, sys
socket.gethostname = lambda: "planted-host-name"
from encoders.runtime.metrics_log import MetricsLog
folder, first, last, wid = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
config = {"optim": {"lr": 1e-4}, "data": {"store": folder + "/cxr.h5"}, "patient": "planted-patient-id", "note": "by planted-user"}
about = dict(group="cxr_moco", job_type="pretrain", name="cxr_moco", config=config)
track = MetricsLog(folder + "/planted-path/run", **about, resume=wid, step=first - 1)
for step in range(first, last + 1):
    track.log(step, loss=1 / step)
track.image(last, "preview", folder + "/picture.png")
track.summary(**{"bench/kermany/knn/auroc": 0.75, "encoder.file": folder + "/model.safetensors"})
track.artifact("cxr_moco", folder + "/zoo", {"steps": last, "from": folder + "/zoo"})
track.close()
"""


@pytest.fixture
def place(tmp_path):
    """A folder with a planted name, with the files of an exported encoder and a picture."""
    place = tmp_path / "planted-path"
    (place / "zoo").mkdir(parents=True)
    (place / "zoo" / "model.safetensors").write_bytes(b"weights")
    (place / "zoo" / "card.yaml").write_text(f"name: cxr_moco\nconfig: {{data: {{store: {place}/x.h5}}}}\n")
    (place / "zoo" / "manifest.npz").write_bytes(b"planted-patient-id")
    metadata = PngImagePlugin.PngInfo()
    metadata.add_text("PatientID", "planted-patient-id")
    Image.fromarray(np.full((8, 8), 99, np.uint8)).save(place / "picture.png", pnginfo=metadata)
    return place


def run(place, first, last, env, wid="feedbeef", script=SCRIPT, python=sys.executable):
    """Runs the script in a process of its own, with no W&B variable in the environment except those of `env`."""
    program = place.parent / "program.py"
    program.write_text(script)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    variables = {
        "PYTHONPATH": str(ROOT),
        "HOME": str(place.parent),
        "NETRC": str(place / "none"),
        "USER": "planted-user",
        "LOGNAME": "planted-user",
    } | env
    done = subprocess.run(
        [python, program, str(place), str(first), str(last), wid],
        env=clean | variables,
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    assert not (place / "wandb").exists()  # nothing in the current folder, all in the run's folder
    return done


PLANTED = ("planted-patient-id", "planted-path", "planted-host-name", "planted-user", str(ROOT))


def assert_redacted(server):
    assert len(server.sent) > 3
    assert {word: server.leaks(word) for word in (*PLANTED, f'"{socket.gethostname()}"') if server.leaks(word)} == {}
    assert not any(name in path for path in server.files for name in ("requirements", "metadata", "output.log", "diff.patch", "code"))


def inspect(folder):
    """A run as read by W&B itself."""
    shown = subprocess.run(
        [sys.executable, "-m", "wandb", "leet", "inspect", "--summary", "--json", str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        cwd=folder,
    )
    return json.loads(shown.stdout)


def test_an_offline_run_reads_back_as_it_was(place):
    done = run(place, 1, 3, {})
    assert len(done.stderr.splitlines()) == 1
    assert "no W&B key found" in done.stderr
    (folder,) = (place / "planted-path/run/wandb").glob("offline-run-*")
    run_info = inspect(folder)
    assert run_info["config"] == {"optim": {"lr": 1e-4}, "data": {"store": "(file).h5"}, "note": "by -"}
    assert (run_info["run_id"], run_info["project"], run_info["name"], run_info["step"], run_info["exit_code"]) == (
        "feedbeef",
        "isograft",
        "cxr_moco",
        3,
        0,
    )
    assert run_info["summary"]["loss"] == pytest.approx(1 / 3)
    assert run_info["summary"]["bench/kermany/knn/auroc"] == 0.75
    assert run_info["summary"]["preview"]["width"] == 8
    (picture,) = folder.rglob("preview*.png")
    assert np.asarray(Image.open(picture)).max() == 99
    assert not (place / "planted-path/run/wandb-errors.log").exists()


def test_online_the_server_gets_the_run_without_paths_hosts_users_or_patients(place):
    with wandb_server.run_server() as server:
        run(place, 1, 3, server.env())
        run(place, 3, 5, server.env())  # requeued from the checkpoint of step 2
    assert server.config("feedbeef") == {"optim": {"lr": 1e-4}, "data": {"store": "(file).h5"}, "note": "by -"}
    assert (server.runs["feedbeef"]["groupName"], server.runs["feedbeef"]["jobType"]) == ("cxr_moco", "pretrain")
    steps = {line["_step"]: line["loss"] for line in server.history["feedbeef"] if "loss" in line}
    assert steps == {n: pytest.approx(1 / n) for n in range(1, 6)}
    assert server.summary["feedbeef"]["bench/kermany/knn/auroc"] == 0.75
    assert server.finished == {"feedbeef": 0}
    first = server.artifacts["artifact0"]
    assert (first["state"], first["type"], set(first["files"])) == ("COMMITTED", "model", {"model.safetensors", "card.yaml"})
    assert first["files"]["model.safetensors"] == b"weights"
    assert server.unknown == []
    assert_redacted(server)
    assert not (place / "planted-path/run/wandb-errors.log").exists()


@pytest.mark.slow
def test_offline_segments_of_a_requeued_run_merge_when_they_are_sent(place):
    run(place, 1, 3, {"WANDB_MODE": "offline"})
    time.sleep(1.1)  # W&B names offline folders by the second
    run(place, 3, 5, {"WANDB_MODE": "offline"})
    folders = sorted((place / "planted-path/run/wandb").glob("offline-run-*"))
    assert len(folders) == 2
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    with wandb_server.run_server() as server:
        sent = subprocess.run(
            [sys.executable, "-m", "wandb", "sync", "--yes", *map(str, folders)],
            env=clean | server.env() | {"HOME": str(place.parent)},
            cwd=place,  # W&B's command writes a `wandb` folder with its log to the current folder
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert sent.returncode == 0, sent.stderr
    assert list(server.runs) == ["feedbeef"]
    steps = {line["_step"]: line["loss"] for line in server.history["feedbeef"] if "loss" in line}
    assert steps == {n: pytest.approx(1 / n) for n in range(1, 6)}
    assert_redacted(server)


@pytest.mark.slow
def test_an_unreachable_server_costs_seconds_and_the_run_continues_offline(place):
    env = {"WANDB_API_KEY": wandb_server.KEY, "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_INIT_TIMEOUT": "2"}
    begun = time.monotonic()
    done = run(place, 1, 3, env)
    assert time.monotonic() - begun < 90  # by default W&B tries for 90 s and then raises an error; here seconds on an idle machine
    assert "the run continues" in done.stderr
    (folder,) = (place / "planted-path/run/wandb").glob("offline-run-*")
    assert inspect(folder)["step"] == 3
    assert len(read_metrics(place / "planted-path/run")) == 3


@pytest.mark.slow
@pytest.mark.parametrize("key", ["short", "0123456789" * 5])
def test_a_wrong_key_does_not_stop_the_run(place, key):
    done = run(place, 1, 2, {"WANDB_API_KEY": key, "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_INIT_TIMEOUT": "1"})
    assert "the run continues" in done.stderr
    assert len(read_metrics(place / "planted-path/run")) == 2


@pytest.mark.slow
def test_a_killed_run_loses_at_most_the_open_row_of_the_mirror(place):
    script = SCRIPT.replace("track.image(", "import time, os, signal; time.sleep(3.5); os.kill(os.getpid(), signal.SIGKILL)\ntrack.image(")
    with pytest.raises(AssertionError):
        run(place, 1, 3, {"WANDB_MODE": "offline"}, script=script)
    assert len(read_metrics(place / "planted-path/run")) == 3
    (folder,) = (place / "planted-path/run/wandb").glob("offline-run-*")
    assert inspect(folder)["step"] == 2  # W&B writes a row when the next begins; the record has all three


@pytest.mark.slow
def test_on_a_terminal_without_a_key_there_is_no_prompt(place):
    import pty

    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    env = clean | {"PYTHONPATH": str(ROOT), "HOME": str(place.parent), "NETRC": str(place / "none"), "WANDB_MODE": "online"}
    ours, theirs = pty.openpty()
    try:
        command = [sys.executable, "-c", SCRIPT, str(place), "1", "2", "feedbeef"]
        done = subprocess.run(command, env=env, stdin=theirs, stdout=theirs, stderr=theirs, timeout=200, cwd=place)
    finally:
        os.close(theirs)
        os.close(ours)
    assert done.returncode == 0
    assert len(read_metrics(place / "planted-path/run")) == 2


class FakeRun:
    """A W&B run that keeps the calls it gets."""

    offline, tags = True, ("moco",)

    def __init__(self):
        self.calls, self.summary = [], {}

    def __getattr__(self, name):
        return lambda *given, **named: self.calls.append((name, *given, *named.items()))

    def named(self, name):
        return [call[1:] for call in self.calls if call[0] == name]


@pytest.fixture
def fake(monkeypatch):
    """What `wandb.init` gives, and the settings it got."""
    fake = FakeRun()
    monkeypatch.setattr(wandb_mirror, "init_wandb_run", lambda folder, mode, described: fake)
    monkeypatch.setattr(wandb_mirror, "teardown_wandb", lambda: fake.calls.append(("teardown",)))
    return fake


CURVES = {"train/*": "last", "train/loss": "min", "selection/knn": "max"}


def test_metrics_have_axes_and_extremes(fake, tmp_path):
    WandbMirror(tmp_path, "offline", TrackedRun(axes=("images_seen", "epoch"), curves=CURVES))
    axis = ("step_metric", "images_seen")
    assert fake.named("define_metric") == [
        ("images_seen",),
        ("epoch",),
        ("train/*", axis, ("summary", None)),
        ("train/loss", axis, ("summary", "min,last")),
        ("selection/knn", axis, ("summary", "max,last")),
    ]
    assert fake.summary == {"outcome": "running"}


@pytest.mark.parametrize(
    ("outcome", "status"),
    [("finished", 0), ("preempted", 75), ("cancelled", 130), ("stopped", 3), ("diverged", 3), ("failed", 1)],
)
def test_the_end_of_a_run_is_marked_as_what_it_was(fake, tmp_path, outcome, status):
    WandbMirror(tmp_path, "offline").close(outcome)
    assert fake.named("finish") == [(("exit_code", status),)]
    assert len(fake.named("mark_preempting")) == (outcome == "preempted")
    assert fake.summary["outcome"] == outcome
    assert fake.tags == (("moco",) if outcome == "finished" else ("moco", outcome))


def test_an_alert_names_run_and_step_and_no_path(fake, tmp_path):
    mirror = WandbMirror(tmp_path, "offline", TrackedRun(name="mine"))
    mirror.alert(7, "collapse", "see /data/planted/x.h5", "warning")
    ((title, text, level),) = fake.named("alert")
    assert (title[1], text[1], level[1]) == ("collapse at step 7 of mine", "see (file).h5", "WARN")


def test_a_run_that_cannot_be_ended_stops_nothing(fake, tmp_path, capsys):
    mirror = WandbMirror(tmp_path, "offline")
    fake.finish = lambda **_: (_ for _ in ()).throw(BrokenPipeError("the service is gone"))
    mirror.close("cancelled")
    mirror.close("cancelled")
    assert len(fake.named("teardown")) == 1  # at the exit of the process W&B would print a traceback
    told = capsys.readouterr().err
    assert "finish failed, the run continues" in told
    assert "Traceback" not in told


def test_a_full_disk_does_not_make_the_mirror_fail(tmp_path, capsys):
    mirror = WandbMirror(tmp_path / "gone", "disabled")  # the folder of the log of failures does not exist
    with mirror.record_failure("log"):
        raise OSError("no space left")
    assert "could not be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tags", "clean"),
    [
        (["a", "b", "a", "", " c "], ["a", "b", "c"]),
        (["/home/me/x.h5"], ["(file).h5"]),
        (["x" * 70], ["x" * 64]),
    ],
)
def test_tags_are_as_wandb_accepts_them(tags, clean):
    assert clean_tags(tags) == clean


@pytest.mark.parametrize("system", [False, True])
def test_the_environment_decides_project_group_and_tags_and_system_metrics_are_opt_in(tmp_path, monkeypatch, system):
    import wandb

    got = {}
    monkeypatch.setattr(wandb, "init", lambda **settings: got.update(settings))
    ours = TrackedRun(project="isograft", group="mine", tags=("moco",), system_metrics=system)
    init_wandb_run(tmp_path, "offline", ours)
    assert (got["project"], got["group"], got["tags"]) == ("isograft", "mine", ["moco"])
    for name, value in {"PROJECT": "other", "RUN_GROUP": "study", "TAGS": "paper, moco,first", "ENTITY": "lab"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    init_wandb_run(tmp_path, "offline", ours)
    assert (got["project"], got["group"], got["tags"]) == ("other", "study", ["moco", "paper", "first"])
    assert "entity" not in got  # W&B reads WANDB_ENTITY itself
    assert got["settings"].x_disable_stats is not system
    assert got["settings"].x_disable_machine_info


ENDED = """
import socket, sys, time
socket.gethostname = lambda: "planted-host-name"
from encoders.runtime.metrics_log import MetricsLog
folder, wid = sys.argv[1], sys.argv[4]
curves = {"train/*": "last", "train/loss": "min"}
track = MetricsLog(folder + "/planted-path/run", name="mine", resume=wid, axes=("images_seen", "epoch"), curves=curves, system_metrics=True)
for step in range(3):
    track.log(step, **{"train/loss": [3.0, 1.0, 2.0][step], "images_seen": 16 * step, "epoch": step / 4})
track.alert(2, "collapse", "see " + folder + "/x.h5")
time.sleep(1)
track.close("preempted")
"""


@pytest.mark.slow
def test_online_the_server_gets_alerts_preemption_and_the_team(place):
    chosen = {"WANDB_ENTITY": "lab", "WANDB_PROJECT": "chest", "WANDB_TAGS": "paper"}
    with wandb_server.run_server() as server:
        run(place, 1, 3, server.env() | chosen, script=ENDED)
    facts = server.runs["feedbeef"]
    assert facts["project"] == "chest"
    assert any(b'"entity":"lab"' in body.replace(b" ", b"") for _, body in server.sent)  # the server answers with its own team
    assert set(facts["tags"]) == {"paper", "preempted"}
    assert server.finished == {"feedbeef": 75}
    assert any(b'"preempting":true' in body.replace(b" ", b"") for _, body in server.sent)
    assert server.summary["feedbeef"]["train/loss"] == {"min": 1, "last": 2}
    assert server.summary["feedbeef"]["images_seen"] == 32
    assert server.summary["feedbeef"]["outcome"] == "preempted"
    assert any(b"collapse at step 2 of mine" in body for _, body in server.sent)
    assert server.unknown in ([], ["NotifyScriptableRunAlert"])
    assert {word: server.leaks(word) for word in PLANTED if server.leaks(word)} == {}
    assert not (place / "planted-path/run/wandb-errors.log").exists()


KILLED_SERVICE = """
import os, signal, subprocess, sys, time
from encoders.runtime.metrics_log import MetricsLog
log = MetricsLog(sys.argv[1] + "/planted-path/run", mode="offline", name="mine", resume=sys.argv[4])
log.log(1, loss=1.0)
log.log(2, loss=0.5)
time.sleep(2.5)
children = subprocess.run(["pgrep", "-P", str(os.getpid()), "wandb"], capture_output=True, text=True).stdout.split()
assert children
for child in children:
    os.kill(int(child), getattr(signal, os.environ["PLANNED_SIGNAL"]))
time.sleep(0.5)
log.close("preempted")
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", ["SIGTERM", "SIGKILL"])
def test_a_signal_that_ends_the_service_of_wandb_leaves_no_traceback_and_the_outcome_is_sent(place, number):
    done = run(place, 1, 2, {"WANDB_MODE": "offline", "PLANNED_SIGNAL": number}, script=KILLED_SERVICE)
    assert "Traceback" not in done.stderr
    first, second = sorted((place / "planted-path/run/wandb").glob("offline-run-*"))
    assert inspect(first)["step"] >= 1
    ended = inspect(second)
    assert (ended["summary"]["outcome"], ended["exit_code"], ended["run_id"]) == ("preempted", 75, "feedbeef")
