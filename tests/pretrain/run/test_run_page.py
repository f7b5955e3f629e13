"""The verdict on a run, and its page: made from made-up run.json and metrics.jsonl, without training."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pytest
from typer.testing import CliRunner

from encoders.runtime.metrics_log import read_metrics
from pretrain.cli.main import app
from pretrain.display.curves import draw_curve, thin_out
from pretrain.recipe import config
from pretrain.run.publish_state import publish_state
from pretrain.run.report import render_page
from pretrain.run.rundir import RunDir
from pretrain.run.status import describe_run
from pretrain.run.verdict import judge, judge_run, record_verdict
from pretrain.watch.diagnose import PATIENCE
from pretrain.watch.history import find_diagnosis_spans

EVIL = "<script>alert(1)</script>"


def probe(step, cosine=0.5, rank=20.0, **more):
    """A line of metrics.jsonl with a measurement of the watchdog."""
    return {"step": step, "time": 1e9 + step, "loss": 5 - step / 100, "lr": 0.01, "grad_norm": 1.0, "watch/std": 0.5,
            "watch/rank": rank, "watch/cosine": cosine, "time/images_per_s": 100.0, "time/s_per_step": 0.1, **more}  # fmt: skip


def run_info(**changes):
    return {"asked": "a" * 16, "id": "abc", "status": "finished", "steps": 100, "warmup": 10, "fingerprint": "f" * 64, "images": 400,
            "commit": None, "versions": {"torch": "2"}, "seconds": 10.0,
            "sessions": [{"from_step": 0, "to_step": 100, "device": "cpu", "host": "secret-host"}],
            "untrained": {"watch/cosine": 0.9, "watch/rank": 3.0}, **changes}  # fmt: skip


def lines_with(collapsed):
    """Lines at steps 10 to 100, one point at the steps in `collapsed`."""
    return [probe(step, cosine=0.9999 if step in collapsed else 0.5) for step in range(10, 101, 10)]


@pytest.mark.parametrize(
    ("collapsed", "info", "sentence", "grade"),
    [
        ([], {}, "finished at step 100 of 100", "good"),
        (range(60, 101), {}, "finished at step 100 of 100, but collapsed at step 60", "bad"),
        ([80, 90, 100], {}, "finished at step 100 of 100, but collapsed at step 80", "bad"),
        ([90, 100], {}, "finished at step 100 of 100", "good"),  # two measurements may be chance
        ([20, 30, 40], {}, "complete collapse from step 20 ended at step 50", "warned"),
        (range(60, 101), {"best": 40}, "its encoder is that of step 40, before the collapse at step 60", "warned"),
        (range(60, 101), {"best": 60}, "but collapsed at step 60", "bad"),
        ([], {"best": 40}, "with the encoder of its best probe, step 40", "good"),
        ([], {"status": "stopped", "sessions": [{"ended_by": "SIGTERM"}]}, "stopped by SIGTERM at step 100", "warned"),
        (range(50, 101), {"status": "stopped", "sessions": [{"ended_by": "watchdog"}]}, "and collapsed at step 50", "bad"),
        ([], {"status": "diverged"}, "diverged at step 100", "bad"),
        ([], {"status": "running"}, "running, step 100 of 100", "open"),
        (range(50, 101), {"status": "running"}, "running, step 100 of 100, and collapsed at step 50", "bad"),
    ],
)
def test_the_verdict_says_how_the_run_ended_and_since_when_it_is_useless(collapsed, info, sentence, grade):
    verdict = judge(run_info(**info), lines_with(collapsed))
    assert sentence in verdict.sentence
    assert verdict.grade == grade
    if grade == "good":
        assert "collapse" not in verdict.sentence


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"watch/rank": 2.0}, "but collapsed at step 70"),  # dimensional
        ({"watch/head_cosine": 0.99999}, "but collapsed at step 70"),
        ({"watch/teacher_entropy": 0.999}, "but collapsed at step 70"),
        ({"watch/teacher_marginal": 0.001}, "but collapsed at step 70"),
        ({"watch/std": float("nan"), "watch/cosine": float("nan")}, "but its features are NaN or inf from step 70 on"),
        ({"loss": float("nan")}, "but its loss is NaN or inf from step 70 on"),
        ({"watch/knn": 0.5, "watch/knn_gain": -0.2, "watch/knn_gain_se": 0.01}, "but its k-NN probe is below its start"),
    ],
)
def test_finished_alone_is_not_said_of_a_useless_run(change, sentence):
    lines = [probe(step) | (change if step >= 70 else {}) for step in range(10, 101, 10)]
    assert judge(run_info(), lines).sentence.endswith(sentence)


def test_a_diverging_gradient_and_an_unwatched_run_are_named():
    lines = [probe(step, grad_norm=1.0) for step in range(1, 96)] + [probe(step) | {"grad_norm": 90.0} for step in range(96, 101)]
    assert judge(run_info(), lines).sentence.endswith("but diverging gradient from step 96 on")
    unwatched = [{"step": s, "loss": 1.0} for s in range(10, 101, 10)]
    verdict = judge(run_info(untrained={}), unwatched)
    assert "not known whether it collapsed" in verdict.sentence
    assert verdict.grade == "warned"


def test_the_process_of_a_dead_run_is_gone():
    assert "died at step 100" in judge(run_info(status="running"), lines_with([]), died=True, name="x").sentence


def test_spans_begin_with_the_first_of_the_measurements_that_they_rest_on():
    spans = find_diagnosis_spans(lines_with([20, 30, 40, 50, 80, 90, 100]), {}, 100)
    assert [(s.finding.name, s.start, s.end) for s in spans] == [("complete collapse", 80, None), ("complete collapse", 20, 60)]
    assert PATIENCE == 3


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A finished, collapsed run in the working folder."""
    monkeypatch.setenv("ISOGRAFT_HOME", str(tmp_path))
    run = RunDir(tmp_path / "runs" / "fallen")
    run.path.mkdir(parents=True)
    config.write_recipe(run.config, config.load_recipe("cxr_moco_tiny", ["data.store=/secret/folder/cxr.h5", f"licence={EVIL}"]))
    rollback = {"at_step": 30, "to_step": 20, "lr_factor": 0.5, "why": EVIL}
    run.info.write_text(json.dumps(run_info(rollbacks=[rollback], notes=[EVIL])))
    lines = [probe(s, cosine=0.9999 if s >= 60 else 0.5) | {"<b>odd": 1.0 + s} for s in range(10, 101, 10)]
    (run.path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run.path / "views.png").write_bytes(b"\x89PNG made-up")
    return run


class Headlines(HTMLParser):
    """The texts of the page in their order, and its links."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.links = [], []
        self.feed(page)

    def handle_data(self, data):
        self.texts.append(data)

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("href", "src") and not value.startswith("data:")]


def test_the_page_begins_with_the_verdict_and_escapes_everything(written):
    page = render_page(written, written.path / "report.html")
    read = Headlines(page)
    text = " ".join(read.texts)
    order = [
        text.index(words) for words in ("but collapsed at step 60", "complete collapse", "Training", "Effective values", "All settings")
    ]
    assert order == sorted(order)
    assert "<script" not in page.lower()
    assert page.count(EVIL.replace("<", "&lt;").replace(">", "&gt;")) == 4  # licence, twice; rollback, note
    assert "<b>odd" not in page
    assert "&lt;b&gt;odd, last" in page
    assert read.links == ["../../index.html"]
    assert "secret" not in page
    assert "learning rate at its peak" in text
    assert re.search(r'class="event"', page)
    assert "0.03" in text or "0.06" in text


def test_a_page_with_images_warns_and_one_without_can_be_shared(written, tmp_path):
    assert "do not share" in render_page(written)
    out = tmp_path / "shared.html"
    done = CliRunner().invoke(app, ["report", "fallen", "--no-images", "--out", str(out)])
    assert done.exit_code == 0, done.output
    page = out.read_text()
    assert "data:image" not in page
    assert "do not share" not in page
    assert "no image of a patient" in page
    assert written.read()["verdict"]["sentence"] == "finished at step 100 of 100, but collapsed at step 60"


def test_the_page_of_a_run_needs_no_torch(written):
    code = "import sys; from pretrain.cli.main import app; app(['report', 'fallen'], standalone_mode=False); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"


def test_a_run_without_a_line_has_a_page(written):
    (written.path / "metrics.jsonl").unlink()
    written.update(status="running")
    assert "died at step 0" in render_page(written)
    assert read_metrics(written.path) == []


def test_curves_keep_their_extremes_and_count_what_they_leave_out():
    points = [(i, float(i % 7)) for i in range(5000)]
    points[2345] = (2345, 99.0)
    thin = thin_out(points, 400)
    assert len(thin) <= 400
    assert (2345, 99.0) in thin
    assert thin == sorted(thin)
    assert (thin[0], thin[-1]) == (points[0], points[-1])
    assert "1 of 2 values are NaN or inf" in draw_curve([{"step": 1, "a": float("nan")}, {"step": 2, "a": 1.0}], "a", "a")
    assert "NaN or inf" in draw_curve([{"step": 1, "a": float("inf")}], "a", "a")


def test_status_does_not_say_finished_of_a_collapsed_run(written):
    assert describe_run(written).row[1] == "finished"  # of an earlier version: nobody judged it
    record_verdict(written, judge_run(written))
    shown = describe_run(written)
    assert shown.row[1] == "collapsed"
    assert shown.details == ["fallen: finished at step 100 of 100, but collapsed at step 60"]


def test_a_verdict_is_not_recorded_while_a_process_may_write(written):
    written.update(status="running")
    record_verdict(written, judge_run(written))
    assert "verdict" not in written.read()


def test_publishing_never_raises_and_says_what_failed(written, monkeypatch):
    said = []
    publish_state(written, said.append)
    assert "fallen: finished at step 100 of 100, but collapsed at step 60" in said[0]
    assert (written.path / "report.html").is_file()
    assert (written.path.parent.parent / "index.html").is_file()
    monkeypatch.setattr("pretrain.run.publish_state.write_report", lambda *_: 1 / 0)
    publish_state(written, said.append)
    assert said[-1] == "run fallen: its page was not written: ZeroDivisionError: division by zero"
