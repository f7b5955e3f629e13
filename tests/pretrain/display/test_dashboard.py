"""The dashboard and the HTML report of a run."""

import io
import re

import pytest
from rich.console import Console
from typer.testing import CliRunner

from encoders.runtime.metrics_log import read_metrics
from pretrain.cli.main import app
from pretrain.display.dashboard import SPARKLINE_BARS, build_panel, sparkline
from tests.pretrain.runs import MOCO, run, store


def test_a_sparkline_spans_minimum_to_maximum_and_marks_nan():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == SPARKLINE_BARS
    assert sparkline([3.0, 3.0]) == SPARKLINE_BARS[0] * 2
    assert sparkline([0.0, float("nan"), 7.0]) == f"{SPARKLINE_BARS[0]}·{SPARKLINE_BARS[-1]}"
    assert sparkline([0, 2, 6, 8], width=2) == f"{SPARKLINE_BARS[0]}{SPARKLINE_BARS[-1]}"  # means 1 and 7
    assert sparkline([]) == ""


@pytest.fixture
def where(tmp_path):
    return run(store(tmp_path), MOCO, "seen", "watch.images=32", "pictures=local", "licence=<b>mine")


def test_a_run_is_shown_and_reported(where, tmp_path):
    lines = read_metrics(where.path)
    parts = [f"time/{part}" for part in ("wait", "augment", "forward", "backward", "optimizer", "logging")]
    assert all(sum(line[part] for part in parts) == pytest.approx(1) for line in lines)
    assert lines[-1]["time/forward"] > 0
    console = Console(width=120, file=io.StringIO(), record=True)
    console.print(build_panel("seen", lines, 9, {}))
    text = console.export_text()
    for word in ("loss", "rank", "std", "images/s", "data wait", "left", "GiB", "backward"):
        assert word in text
    shown = CliRunner().invoke(app, ["watch", "seen", "--once"])
    assert shown.exit_code == 0
    assert "step 9 of 9" in shown.output
    out = tmp_path / "page.html"
    assert CliRunner().invoke(app, ["report", "seen", "--out", str(out)]).exit_code == 0
    page = out.read_text()
    assert "&lt;b&gt;mine" in page
    assert "<b>mine" not in page
    assert page.count("<polyline") >= 6  # loss, gradient, rank, rank of the head, std, cosine
    assert "data:image/png;base64," in page
    assert re.findall(r'(?:src|href)="(?!data:)([^"]*)', page) == []  # self-contained, and no overview is beside it
    assert str(tmp_path) not in page
    assert f">{where.read()['sessions'][0]['host']}<" not in page
