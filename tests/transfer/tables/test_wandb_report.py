"""Comparisons in W&B: numbers of the table, columns to filter by, lineage to the exact weights, no patient named."""

import json
import math
import warnings
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from encoders.runtime.paths import home_dir, records_dir
from encoders.zoo.card import Card, Preprocess
from encoders.zoo.pretraining_columns import count_images_seen, describe_pretraining
from tests.encoders.runtime.test_wandb_mirror import inspect, run
from tests.transfer.report.test_report import made, pair
from tests.wandb_server import run_server
from transfer.cli.main import app
from transfer.records import record
from transfer.stats import Interval
from transfer.tables import headline, wandb_overview, wandb_report
from transfer.tables.build import build_sections
from transfer.tables.matrix import build_matrix
from transfer.tables.wandb_columns import describe_benchmarked_encoder, list_encoder_tags

PUBLISH = """
import sys
from pathlib import Path
from encoders.runtime.metrics_log import MetricsLog
from tests.transfer.tables.test_wandb_report import CARDS, many
from transfer.tables import wandb_report
from transfer.tables.build import build_sections
folder, sha = Path(sys.argv[1]), sys.argv[4]
with MetricsLog(folder / "pretrain", group="mine", job_type="pretrain", name="mine") as track:
    track.artifact("mine", folder / "zoo", {"steps": 1, "sha256": sha})
sections = build_sections(many())
wandb_report.publish_encoders(sections, CARDS)
print(wandb_report.publish_leaderboard(sections, CARDS))
"""
CARDS = {
    "mine": Card(
        name="mine",
        arch="net",
        dim=8,
        preprocess=Preprocess(size=64),
        method="moco",
        steps=100,
        config={"batch": 32, "seed": 5},
        corpus={"images": 800, "dataset": "chest"},
        lineage={"init": "/home/doe/zoo/imagenet_net", "init_sha256": "ab", "run": "mine", "run_id": "feedbeef"},
        licence="cc-by-4.0",
    ),
    "imagenet_net": Card(name="imagenet_net", arch="net", dim=8, preprocess=Preprocess(size=64), method="supervised", licence="apache-2.0"),
}


def many():
    """Two encoders, two tasks on two stores, one of them at three shares of the labels."""
    first = [r for share in (0.1, 0.5, 1.0) for r in pair(fraction=share, computed_on={"gpu": "H200", "slurm_job": "17_3"})]
    return [*first, *pair(task="view", store="other", labels="v")]


@pytest.fixture
def place(tmp_path):
    (tmp_path / "zoo").mkdir()
    (tmp_path / "zoo" / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "zoo" / "card.yaml").write_text("name: mine\n")
    return tmp_path


def named_runs(server):
    """The server's runs by name."""
    return {facts["displayName"]: run for run, facts in server.runs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("sha", ["sha-mine", "sha-other"])
def test_online_a_comparison_is_saved_as_runs_a_workspace_and_a_report(place, sha, warm_commands):
    with run_server() as server:
        chosen = {"ISOGRAFT_HOME": str(place), "WANDB_TAGS": "paper, first", "WANDB_RUN_GROUP": "study", "WANDB_PROJECT": "isograft"}
        done = run(place, 1, 1, server.env() | chosen, wid=sha, script=PUBLISH, python=warm_commands / "python")
    assert not list(place.rglob("wandb-errors.log")), [p.read_text() for p in place.rglob("wandb-errors.log")]
    runs = named_runs(server)
    assert [run_ for run_, _ in server.used] == [runs["mine-bench"]]  # the other has no artifact, which is no error
    assert ("other weights" in done.stderr) == (sha == "sha-other")
    mine = runs["mine-bench"]
    assert server.config(mine)["encoder"]["pretraining_images"] == 800
    assert (server.config(mine)["gpu"], server.config(mine)["slurm_job"]) == ("H200", "17_3")
    assert {"bench", "moco", "chest", "lungs", "view", "paper", "first"} <= set(server.runs[mine]["tags"])
    assert {facts["groupName"] for facts in server.runs.values()} == {"study"}
    assert server.summary[mine]["bench/lungs/linear/verdict"] == "better"
    assert server.summary[mine]["headline/mean_rank"] == 1
    assert server.summary[mine]["outcome"] == "finished"
    assert not server.leaks("Doe")
    assert done.stdout.strip().startswith("http")
    check_saved_views([v for v in server.views if v.get("spec")])


def check_saved_views(views):
    """The specifications as wandb-workspaces' own schema reads them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own use of pydantic
        from wandb_workspaces.reports.v2 import internal as reports
        from wandb_workspaces.workspaces import internal as workspaces

    report = reports.Spec.model_validate_json([v["spec"] for v in views if v["type"].startswith("runs")][-1])
    titles = [b.children[0].text for b in report.blocks if isinstance(b, reports.Heading)]
    assert titles == ["Overview", "Label efficiency", "Pretraining images", "Tasks", "Leaderboard", "Lineage"]
    texts = [b.content for b in report.blocks if isinstance(b, reports.MarkdownBlock)]
    assert "🟩" in texts[0]
    assert "[." in texts[0]  # intervals
    assert "feedbeef" in texts[1]
    panels = [p for b in report.blocks if isinstance(b, reports.PanelGrid) for p in b.metadata.panel_bank_section_config.panels]
    (scatter,) = [p for p in panels if isinstance(p, reports.ScatterPlot)]
    assert (scatter.config.x_axis, scatter.config.y_axis) == ("config:encoder.value.pretraining_images", "summary:headline/mean_auroc")
    assert scatter.config.x_axis_log_scale
    (curve,) = [p for p in panels if isinstance(p, reports.Vega2)]
    assert curve.config.field_settings == {"step": "labels", "lineVal": "auroc", "lineKey": "encoder"}
    assert "label_efficiency_lungs_linear" in curve.config.model_dump_json()
    bars = {m for p in panels if isinstance(p, reports.BarPlot) for m in p.config.metrics}
    assert {f"summary_metrics.bench/{task}/linear/auroc" for task in ("lungs", "view")} <= bars
    assert any(isinstance(b, reports.WeaveBlock) for b in report.blocks)  # the lineage of the artifact
    (saved,) = [v for v in views if not v["type"].startswith("runs")]
    workspace = workspaces.WorkspaceViewspec.model_validate_json(saved["spec"])
    names = [section.name for section in workspace.section.panel_bank_config.sections if section.panels]
    assert names == ["overview", "label efficiency", "benchmarks"]


def test_the_leaderboard_holds_the_numbers_of_the_table_and_no_patient():
    parts = build_sections(pair())
    rows = [dict(zip(wandb_report.LEADERBOARD_COLUMNS, line, strict=True)) for line in wandb_report.leaderboard_lines(parts)]
    mine, other = (next(r for r in rows if r["encoder"] == name) for name in ("mine", "imagenet_net"))
    row = next(r for r in parts[0].rows if r.encoder == "mine")
    assert (mine["auroc"], mine["auroc_low"]) == (row.metrics["auroc"].value, row.metrics["auroc"].low)
    assert (mine["difference"], mine["verdict"], mine["versus"]) == (row.difference.value, "better", "imagenet_net")
    assert (other["difference"], other["verdict"]) == (None, "")
    assert "Doe" not in json.dumps(rows)


def test_versus_and_verdict_stand_beside_every_difference():
    flat = wandb_report.wandb_summary(build_sections([*many(), made("random_net", "random", 0.0)]), "mine")
    differences = [name.removesuffix("/difference") for name in flat if name.endswith("/difference")]
    assert len(differences) == 4 + 5  # the primary ones, and those with each baseline
    for place_ in differences:
        assert flat[f"{place_}/versus"] in ("imagenet_net", "random_net")
        assert flat[f"{place_}/verdict"]
        if "/vs/" in place_:
            assert place_.endswith(f"/vs/{flat[f'{place_}/versus']}")


@pytest.mark.slow
def test_compare_publishes_offline_and_sync_finds_every_run_in_order(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.chdir(home_dir())
    for made_ in pair():
        record.write_record(made_)
    done = CliRunner().invoke(app, ["compare", "--wandb"])
    assert done.exit_code == 0, done.output
    board = json.loads((records_dir() / ".track" / ".leaderboard" / "leaderboard.json").read_text())
    assert [row[0] for row in board["rows"]] == ["mine", "imagenet_net"]
    (folder,) = (records_dir() / ".track" / ".leaderboard" / "wandb").glob("offline-run-*")
    assert {"leaderboard", "overview"} <= set(inspect(folder)["summary"])
    data = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())
    assert b"Doe" not in data
    first = wandb_report.find_offline_runs(home_dir())
    assert folder in first
    assert first == sorted(first, key=lambda p: p.name)
    assert CliRunner().invoke(app, ["sync", "--dry-run"]).output.count("offline-run-") == len(first)
    next(folder.glob("*.wandb")).with_suffix(".wandb.synced").touch()
    assert folder not in wandb_report.find_offline_runs(home_dir())


def test_an_encoder_run_has_the_columns_to_filter_and_plot_by():
    config = describe_benchmarked_encoder("mine", CARDS["mine"], build_sections(many()))
    encoder = config["encoder"]
    wanted = {"name": "mine", "method": "moco", "architecture": "net", "role": "encoder", "pretraining_images": 800, "images_seen": 3200}
    wanted |= {"epochs": 4.0, "size": 64, "pretraining_dataset": "chest", "seed": 5, "parent": "imagenet_net", "licence": "cc-by-4.0"}
    wanted |= {"pretraining_run": "mine", "run_id": "feedbeef", "sha256": "sha-mine", "steps": 100}
    assert wanted.items() <= encoder.items()
    assert (config["gpu"], config["slurm_job"], config["device"]) == ("H200", "17_3", "cpu")
    assert config["bench"]["tasks"] == ["lungs", "view"]
    assert config["bench"]["label_fractions"] == [0.1, 0.5, 1.0]
    tags = list_encoder_tags(encoder, config["bench"]["tasks"])
    assert tags == ("bench", "encoder", "moco", "net", "chest", "lungs", "view")
    baseline = describe_benchmarked_encoder("imagenet_net", CARDS["imagenet_net"], build_sections(many()))["encoder"]
    assert (baseline["role"], baseline["pretraining_images"], baseline["epochs"], baseline["parent"]) == ("imagenet", None, None, None)


def test_columns_name_no_path():
    assert "/" not in json.dumps(describe_pretraining(CARDS["mine"]))


@pytest.mark.parametrize(
    ("step", "changes", "seen"),
    [
        (10, [], 320),
        (10, [(4, 16)], 4 * 16 + 6 * 32),
        (4, [(4, 16)], 64),
        (3, [(4, 16)], 48),
        (10, [(4, 16), (8, 64)], 4 * 16 + 4 * 64 + 2 * 32),
    ],
)
def test_images_seen_follow_a_batch_that_changed_at_a_resume(step, changes, seen):
    listed = [{"step": at, "key": "batch", "from": before, "to": 0} for at, before in changes]
    assert count_images_seen(step, 32, [{"step": 1, "key": "optim.lr", "from": 1.0, "to": 2.0}, *listed]) == seen


def scored(section, **aurocs):
    """The section with these AUROCs, each with an interval of +-.1."""
    rows = [
        replace(row, metrics=row.metrics | {"auroc": Interval(v, v - 0.1, v + 0.1, "")}, encoder=name, role="encoder", seeds=[])
        for (name, v), row in zip(aurocs.items(), [section.rows[0]] * len(aurocs), strict=True)
    ]
    return replace(section, rows=rows)


def test_the_headline_is_the_mean_over_the_cells_that_all_encoders_have():
    (base,) = build_sections(pair())
    parts = [
        scored(base, a=0.7, b=0.8, c=0.6),
        scored(replace(base, store="t", task="u"), a=0.9, b=0.8, c=0.8),
        scored(replace(base, task="v"), a=0.1),  # only a has it
    ]
    found = headline.build_headlines(parts)
    a, b, c = (found[name] for name in "abc")
    assert a.auroc.value == pytest.approx(0.8)
    half = math.hypot(0.1, 0.1) / 2  # two stores: independent
    assert (a.auroc.low, a.auroc.high) == (pytest.approx(0.8 - half), pytest.approx(0.8 + half))
    assert (a.rank, b.rank, c.rank) == (1.5, (1 + 2.5) / 2, (3 + 2.5) / 2)
    assert (a.cells, a.tasks, a.left_out, b.left_out, a.ranked) == (2, 2, 1, 0, 3)


def test_cells_on_one_store_share_patients_so_their_intervals_do_not_shrink():
    (base,) = build_sections(pair())
    parts = [scored(base, a=0.7, b=0.6), scored(replace(base, protocol="knn"), a=0.9, b=0.6)]
    auroc = headline.build_headlines(parts)["a"].auroc
    assert (auroc.value, auroc.low, auroc.high) == (pytest.approx(0.8), pytest.approx(0.7), pytest.approx(0.9))


def test_without_a_shared_cell_there_is_no_headline():
    (base,) = build_sections(pair())
    assert headline.build_headlines([scored(base, a=0.7), scored(replace(base, task="u"), b=0.9)]) == {}
    nan = scored(base, a=0.7)
    nan.rows[0].metrics["auroc"] = Interval(0.7, float("nan"), float("nan"), "")
    assert headline.build_headlines([nan]) == {}


@pytest.mark.parametrize(("value", "rank"), [(0.9, 1), (0.8, 2.5), (0.1, 4)])
def test_equal_values_share_their_mean_rank(value, rank):
    assert headline.rank_value(value, [0.9, 0.8, 0.8, 0.1]) == rank


def test_the_overview_shows_every_cell_with_its_interval_and_the_colour_of_its_verdict():
    sections = build_sections([*many(), made("<b>evil</b>", "encoder", 0.0, task="view", store="other", labels="v")])
    matrix = build_matrix(sections)
    names = {row.encoder: row.encoder for row in matrix.rows}
    page = wandb_overview.matrix_to_html(matrix, names)
    text = wandb_overview.matrix_to_markdown(matrix, names)
    assert page.count("<td") == len(matrix.rows) * len(matrix.columns) == 6
    mine = next(row for row in sections[0].rows if row.encoder == "mine" and row.fraction == 1)
    auroc = mine.metrics["auroc"]
    for shown in (page, text):
        assert f"{auroc.value:.3f}"[1:] in shown
        assert f"{auroc.low:.3f}"[1:] in shown
        assert "not run" in shown
    assert wandb_overview.VERDICT_COLORS["better"][0] in page
    assert "🟩" in text
    assert "<b>evil" not in page
    assert not [word for word in ("http:", "https:", "<script", "Doe") if word in page + text]
    assert {line.count("|") for line in text.splitlines() if line.startswith("|")} == {4}


def test_label_curves_are_of_tasks_with_several_numbers_of_labels():
    ((title, name, lines),) = wandb_overview.build_label_curves(build_sections(many()))
    assert (title, name) == ("lungs, linear", "label_efficiency_lungs_linear")
    assert [line[1] for line in lines if line[0] == "mine"] == [0.1, 0.5, 1.0]
    assert all(low <= auroc <= high for _, _, auroc, low, high, _ in lines)


def test_lineage_names_parent_run_and_weights_without_paths():
    text = wandb_overview.lineage_to_markdown(CARDS)
    assert "| `mine` | imagenet_net | mine (feedbeef) | moco | 800 | 4.0 |" in text
    assert "/home" not in text
    assert wandb_overview.lineage_to_markdown({}) == ""
