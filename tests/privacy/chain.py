"""A small full chain on planted inputs, in this process: ingest, pretrain, bench, compare, report, export, submit, and jobs that fail."""

import contextlib
import io
import json
import os
import socket
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from typer.testing import CliRunner

from encoders.cli.main import app as encoders_app
from encoders.runtime.cli import run_cli
from pretrain.cli.main import app as pretrain_app
from tests.privacy import planted
from transfer.cli.main import app as transfer_app

QUICK_TRAINING = [f"finetune.{word}" for word in ("min_steps=4", "max_steps=4", "evaluations=2", "batch=4", "augment.preset=none")]
SMALL = ["arch=test_resnet", "method.hidden=32", "method.dim=16", "steps=3", "warmup_steps=1", "log_every=1", "save_every=2", "batch=8",
         "size=32", "threads=1", "watch.images=16", "pictures=none"]  # fmt: skip
SHARED = (
    "*.onnx", "*.safetensors", "*.csv", "*.md", "*.tex", "*.html", "*.png", "*.yaml",
    "exported/*", "exported_trained/*", "pushed/**/*", "records/*.csv", "records/*.md",
    "runs/*/report.html", "runs/*/tensorboard/*", "mlruns/*/*/params/*", "mlruns/*/*/tags/*", "mlruns/*/*/artifacts/**/*", "**/*.wandb",
    "**/wandb/*/files/**/*",
    "records/.track/*/*.json", "records/.track/*/*.html", "zoo/*/card.yaml", "slides/overview.html", "*.log",
)  # fmt: skip


class Chain(NamedTuple):
    """root: above all folders.  home: the working folder.  printed: what the user saw, command by command.  words: that must not leave."""

    root: Path
    home: Path
    printed: dict[str, str]
    words: dict[str, list[str]]

    def shared_files(self) -> list[Path]:
        """Every file that is meant to be passed on."""
        found = {path for pattern in SHARED for path in self.home.glob(pattern) if path.is_file()}
        return sorted(path for path in found if not path.name.endswith(".quarantine.csv"))  # a local list


def run_chain(root: Path) -> Chain:
    """Runs the chain below `root`."""
    folder = root / planted.USER / planted.FOLDER
    home, store, keys = folder / "home", folder / planted.STORE_FILE, folder / f"{planted.NAMES[0]}.txt"
    home.mkdir(parents=True)
    printed: dict[str, str] = {}

    def call(app: Callable[..., object], *words: object, code: int = 0) -> None:
        done = CliRunner().invoke(app, [str(word) for word in words])
        printed[" ".join(map(str, words[:3]))] = done.output
        if done.exit_code != code:
            raise AssertionError(f"{words} ended with {done.exit_code}: {done.output}") from done.exception

    env = {
        "ISOGRAFT_HOME": str(home), "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1", "ISOGRAFT_OFFLINE": "1", "USER": planted.USER,
        "LOGNAME": planted.USER, "HOSTNAME": planted.HOST, "WANDB_NOTES": planted.NAMES[0],
    }  # fmt: skip
    with mock.patch.dict(os.environ, env), mock.patch.object(socket, "gethostname", return_value=planted.HOST), contextlib.chdir(home):
        images, dicoms = planted.write_images(folder / f"png_of_{planted.NAMES[1]}"), planted.write_dicoms(folder / "dcm")
        meta = [word for name in ("name", "birth", "hospital", "view") for word in ("--meta-column", name)]
        labels = ["--labels", images / "labels.csv", "--size", 32, "--label", "sick", "--workers", 1, *meta]
        call(encoders_app, "ingest", "folder", images, store, *labels, "--dataset", planted.SCRIPT, code=1)
        slides = planted.write_slides(folder / "svs")
        tiling = ["--tile", 128, "--mpp", 0.5, "--workers", 1, "--dataset", planted.SCRIPT]
        call(encoders_app, "ingest", "wsi", slides, home / "slides", *tiling, code=1)
        call(transfer_app, "tasks", "add", "sick", store, "--label", "sick")
        call(transfer_app, "tasks", "keys", "sick", "--part", "train", "--out", keys)
        track = "track=[jsonl,wandb,tensorboard,mlflow]"
        data = [f"data.store={store}", f"data.keys={keys}", f"licence={json.dumps(planted.SCRIPT)}"]
        call(pretrain_app, "run", "cxr_moco_tiny", *data, *SMALL, track, "--name", "mine", "--device", "cpu")
        call(pretrain_app, "report", "mine")
        bench = ["bench", "linear.steps=3", "--encoder", "mine", "--allow-leakage", "--device", "cpu"]
        call(transfer_app, *bench, "--protocol", "knn", "--csv", "a.csv", "--markdown", "a.md")
        call(transfer_app, "compare", "--csv", "b.csv", "--markdown", "b.md", "--by", "view", "--wandb")
        call(transfer_app, "report", "--latex", "t.tex", "--csv", "c.csv", "--markdown", "c.md", "--checklist", "check.html")
        call(transfer_app, "report", "--out", "second.html", "--checklist", "check.md")
        call(encoders_app, "export", "mine", "exported")
        call(encoders_app, "export", "mine", "mine.safetensors")
        if find_spec("onnx") and find_spec("onnxruntime"):
            call(encoders_app, "export", "mine", "mine.onnx")
        call(pretrain_app, "export", "mine", "--step", 2, "--name", "early")
        call(pretrain_app, "preview", "cxr_moco_tiny", *data, *SMALL, "--out", "views.png")
        call(encoders_app, "push", "mine", "pushed")
        training = ["train", "--encoder", "mine", "--task", "sick", "--device", "cpu", "--allow-leakage", *QUICK_TRAINING]
        call(transfer_app, *training, "--name", "trained")
        call(encoders_app, "export", "trained", "exported_trained")
        call(transfer_app, "predict", "--model", "trained", store, "--out", "local_predictions.txt", "--device", "cpu")
        (home / "slurm.yaml").write_text(f"shared: ['{root}']\n")
        call(pretrain_app, "submit", "cxr_moco_tiny", *data, *SMALL, "--name", "sub", "--dry-run")
        call(transfer_app, "submit", "--encoder", "mine", "--dry-run")
        (home / "slurm.yaml").unlink()
        write_job_logs(home, dicoms, store, bench)
    return Chain(root, home, printed, planted.list_private_words(root))


def write_job_logs(home: Path, dicoms: Path, store: Path, bench: list[str]) -> None:
    """Runs commands that fail as jobs: their logs are `*.log` in the working folder."""
    leak = [word for word in bench if word != "--allow-leakage"]
    write_job_log(home / "leak.log", transfer_app, *leak, "--protocol", "knn")
    write_job_log(
        home / "cell.log", transfer_app, *bench, "knn.k=[1000]", "--protocol", "knn", "--csv", "failed.csv", "--markdown", "failed.md"
    )
    write_job_log(home / "quarantine.log", encoders_app, "ingest", "dicom", dicoms, home / "dcm.h5", "--size", 32, "--workers", 1)
    write_job_log(home / "missing.log", pretrain_app, "run", "cxr_moco_tiny", f"data.store={store}x", "--name", "other", "--device", "cpu")
    keys = home / f"{planted.NAMES[0]}.keys"
    keys.write_text(f"{planted.NAMES[0]}_{planted.patient_id(3)}\n")
    write_job_log(home / "keys.log", pretrain_app, "run", "cxr_moco_tiny", f"data.store={store}", f"data.keys={keys}", "--name", "other")
    with open(store, "r+b") as file:  # the first image changes
        file.seek(file.read().index(b"\x89HDF") + store.stat().st_size // 2)
        file.write(b"\xff" * 4096)
    write_job_log(home / "damaged.log", transfer_app, *bench, "--protocol", "linear", "--again")

    def fail() -> None:
        raise RuntimeError(f"cannot read /data/{planted.USER}/{planted.NAMES[0]}.png on {planted.HOST}")

    write_job_log(home / "traceback.log", fail)


def write_job_log(log: Path, app: Callable[..., object], *words: object) -> None:
    """Runs a command in the environment of a job; `log` gets what it prints."""
    out = io.StringIO()
    job, shown = mock.patch.dict(os.environ, {"SLURM_JOB_ID": "7"}), (contextlib.redirect_stdout(out), contextlib.redirect_stderr(out))
    with job, shown[0], shown[1], contextlib.suppress(SystemExit):
        run_cli(lambda: app([str(word) for word in words], standalone_mode=False) if words else app())
    log.write_text(out.getvalue())
