"""The offline W&B runs of a pretraining run and a benchmark, read with W&B's own reader."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory, warm_commands) -> Path:
    """A working folder in which an encoder was pretrained on phantoms and benchmarked with the command line."""
    where = tmp_path_factory.mktemp("work")
    small = ["arch=resnet10t", "size=32", "steps=6", "batch=16", "warmup_steps=2", "log_every=2", "threads=1"]
    for words in [
        ["encoders", "ingest", "phantom", "cxr.h5", "--patients", "300", "--size", "32"],
        ["transfer", "tasks", "add", "phantom", "cxr.h5", "--label", "opacity"],
        ["transfer", "tasks", "keys", "phantom", "--part", "train", "--out", "train.txt"],
        ["pretrain", "run", "cxr_moco_tiny", "data.store=cxr.h5", "data.keys=train.txt", *small, "pictures=wandb", "--name", "mine"],
        ["transfer", "bench", "--encoder", "mine", "--protocol", "knn"],
    ]:
        env = os.environ | {"ISOGRAFT_HOME": str(where), "WANDB_MODE": "offline", "OMP_NUM_THREADS": "1", "ISOGRAFT_OFFLINE": "1"}
        done = subprocess.run([warm_commands / words[0], *words[1:]], cwd=where, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr.count("W&B: offline") <= 1  # printed once, for any number of encoders
    return where


def read_offline_run(folder: Path) -> dict:
    """The only offline run in `folder`: its summary as W&B's reader prints it, with group and job type from the run's record."""
    (run,) = folder.glob("wandb/offline-run-*")
    words = [sys.executable, "-m", "wandb", "leet", "inspect", "--json"]
    summary = subprocess.run([*words, "--summary", str(run)], capture_output=True, text=True, check=True, cwd=folder).stdout
    records = subprocess.run([*words, str(run)], capture_output=True, text=True, check=True, cwd=folder).stdout
    (header,) = (line["run"] for line in map(json.loads, records.splitlines()) if line["type"] == "run")
    return json.loads(summary) | {"group": header["run_group"], "job_type": header["job_type"]}


def test_a_pretraining_run_has_its_settings_metrics_and_views(home):
    logged = read_offline_run(home / "runs" / "mine")
    assert (logged["group"], logged["job_type"], logged["step"]) == ("mine", "pretrain", 6)
    assert logged["config"]["arch"] == "resnet10t"
    assert logged["config"]["method"]["name"] == "moco"
    last = json.loads((home / "runs" / "mine" / "metrics.jsonl").read_text().splitlines()[-1])
    assert logged["summary"]["train/loss"]["last"] == pytest.approx(last["loss"])
    assert logged["summary"]["train/loss"]["min"] <= last["loss"] + 1e-9
    assert (logged["summary"]["images_seen"], logged["summary"]["outcome"]) == (6 * 16, "finished")
    assert logged["config"]["encoder"]["images_seen"] == 6 * 16
    assert {"pretrain", "moco", "resnet10t"} <= set(logged["tags"])
    assert logged["summary"]["views"]["format"] == "png"
    assert (home / "runs" / "mine" / "views.png").stat().st_size > 1000


def test_a_benchmark_has_summary_scalars_with_bounds_and_the_digest_of_its_weights(home):
    records = home / "records"
    logged = read_offline_run(records / ".track" / "mine")
    assert (logged["group"], logged["job_type"]) == ("mine", "bench")
    low, value, high = (logged["summary"][f"bench/phantom/knn/auroc{end}"] for end in ("_low", "", "_high"))
    assert 0 <= low <= value <= high <= 1
    own = [json.loads(path.read_text()) for path in records.glob("*/*.json")]
    shas = {r["identity"]["encoder_sha256"] for r in own if r.get("identity", {}).get("encoder") == "mine"}
    assert {logged["config"]["encoder"]["sha256"]} == shas
    assert logged["config"]["encoder"]["pretraining_images"] > 0
    assert logged["config"]["bench"]["datasets"] == ["phantom-cxr"]
    assert "headline/mean_rank" in logged["summary"]
    assert logged["config"]["encoder"]["run_id"] == json.loads((home / "runs" / "mine" / "run.json").read_text())["id"]


def test_no_host_folder_or_patient_is_in_what_would_be_uploaded(home):
    import h5py

    patients = {p.decode() if isinstance(p, bytes) else str(p) for p in h5py.File(home / "cxr.h5")["index/patient"][:]}
    assert patients
    for run in home.rglob("offline-run-*"):
        data = b"".join(p.read_bytes() for p in run.rglob("*") if p.is_file() and p.suffix == ".wandb")
        assert data
        texts = "\n".join(
            match.decode() for match in re.findall(rb"[ -~]{4,}", data)
        )  # a short host name may occur in other bytes by chance
        for secret in [*patients, str(home), os.uname().nodename]:
            assert not re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", texts)
