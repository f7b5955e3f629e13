"""Comparisons in W&B: numbers of the table, lineage to the exact weights, no patient named."""

import json

import pytest
from typer.testing import CliRunner

from encoders.runtime.paths import home_dir, records_dir
from encoders.zoo.card import Card
from tests.encoders.runtime.test_wandb_mirror import inspect, run
from tests.transfer.report.test_report import pair
from tests.wandb_server import run_server
from transfer.cli.main import app
from transfer.records import record
from transfer.tables import wandb_report
from transfer.tables.build import build_sections

SCRIPT = """
import sys
from pathlib import Path
from encoders.runtime.metrics_log import MetricsLog
folder, sha = Path(sys.argv[1]), sys.argv[4]
with MetricsLog(folder / "pretrain", group="mine", job_type="pretrain", name="mine") as track:
    track.artifact("mine", folder / "zoo", {"steps": 1, "sha256": "sha-mine"})
for name in ("mine", "theirs"):
    with MetricsLog(folder / name, group=name, job_type="bench", name=f"{name}-bench", resume=f"id{name}") as track:
        track.summary(**{"bench/lungs/linear/auroc": 0.75})
        track.use_artifact(name, [sha])
with MetricsLog(folder / "board", group="comparison", job_type="compare", name="leaderboard", resume="idboard") as track:
    track.table("leaderboard", ["encoder", "auroc"], [["mine", 0.75], ["theirs", None]])
    print(track.save_comparison_view(["bench/lungs/linear/auroc"]))
"""


@pytest.fixture
def place(tmp_path):
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "zoo" / "card.yaml").write_text("name: mine\n")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("sha", ["sha-mine", "sha-other"])
def test_online_a_bench_names_the_artifact_of_its_encoder_and_the_comparison_is_saved(place, sha):
    with run_server() as server:
        done = run(place, 1, 1, server.env(), wid=sha, script=SCRIPT)
    assert not list(place.rglob("wandb-errors.log")), [p.read_text() for p in place.rglob("wandb-errors.log")]
    assert [run_ for run_, _ in server.used] == ["idmine"]  # `theirs` has no artifact, which is no error
    assert ("other weights" in done.stderr) == (sha == "sha-other")
    pytest.importorskip("wandb_workspaces")
    specs = [json.dumps(v) for v in server.views]
    assert len(specs) >= 2
    assert all("bench/lungs/linear/auroc" in spec for spec in specs[-2:])
    assert done.stdout.strip().startswith("http")


def test_the_leaderboard_holds_the_numbers_of_the_table_and_no_patient(monkeypatch):
    parts = build_sections(pair())
    rows = [dict(zip(wandb_report.LEADERBOARD_COLUMNS, line, strict=True)) for line in wandb_report.leaderboard_lines(parts)]
    mine, other = (next(r for r in rows if r["encoder"] == name) for name in ("mine", "imagenet_net"))
    row = next(r for r in parts[0].rows if r.encoder == "mine")
    assert (mine["auroc"], mine["auroc_low"]) == (row.metrics["auroc"].value, row.metrics["auroc"].low)
    assert (mine["difference"], mine["verdict"], mine["versus"]) == (row.difference.value, "better", "imagenet_net")
    assert (other["difference"], other["verdict"]) == (None, "")
    assert "Doe" not in json.dumps(rows)


@pytest.mark.slow
def test_compare_publishes_offline_and_sync_finds_every_run_in_order(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(home_dir())
    for made in pair():
        record.write_record(made)
    done = CliRunner().invoke(app, ["compare", "--wandb"])
    assert done.exit_code == 0, done.output
    board = json.loads((records_dir() / ".track" / ".leaderboard" / "leaderboard.json").read_text())
    assert [row[0] for row in board["rows"]] == ["mine", "imagenet_net"]
    (folder,) = (records_dir() / ".track" / ".leaderboard" / "wandb").glob("offline-run-*")
    assert "leaderboard" in inspect(folder)["summary"]
    data = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())
    assert b"Doe" not in data
    first = wandb_report.find_offline_runs(home_dir())
    assert folder in first
    assert first == sorted(first, key=lambda p: p.name)
    assert CliRunner().invoke(app, ["sync", "--dry-run"]).output.count("offline-run-") == len(first)
    next(folder.glob("*.wandb")).with_suffix(".wandb.synced").touch()
    assert folder not in wandb_report.find_offline_runs(home_dir())


def test_an_encoder_run_says_which_weights_it_is_of(monkeypatch):
    told = {}

    class Kept:
        id = "x"

        def __init__(self, folder, **about):
            told.update(about)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def summary(self, **flat):
            told["flat"] = flat

        def use_artifact(self, name, sha):
            told["uses"] = (name, sha)

    monkeypatch.setattr(wandb_report, "MetricsLog", Kept)
    card = Card.model_construct(arch="net", method="moco", steps=7, lineage={"run_id": "r1"})
    wandb_report.publish_encoders(build_sections(pair()), {"mine": card})
    assert told["config"]["encoder"] == {"name": "mine", "sha256": "sha-mine", "arch": "net", "method": "moco", "steps": 7, "run_id": "r1"}
    assert told["uses"] == ("mine", ["sha-mine"])
    assert "bench/lungs/linear/auroc" in told["flat"]
