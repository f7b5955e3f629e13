"""The overview of a working folder: what it lists, how it is linked, and that it never harms a command."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from encoders.gallery.read_entries import read_entries
from encoders.gallery.refresh import refresh_gallery, refreshes_gallery, write_gallery
from encoders.gallery.related import list_related
from encoders.runtime.errors import InputError
from encoders.zoo.card import Card

ROOT = Path(__file__).resolve().parents[3]
EVIL = "<img src=x onerror=alert(1)>"


def write_run(home, name="seen", **info):
    folder = home / "runs" / name
    folder.mkdir(parents=True)
    content = {"status": "finished", "steps": 100, "step": 100, "images": 40, "sessions": [], "encoder": f"/elsewhere/zoo/{name}"} | info
    (folder / "run.json").write_text(json.dumps(content))
    (folder / "config.yaml").write_text("method:\n  name: moco\n  dim: 8\narch: resnet10t\n")
    (folder / "metrics.jsonl").write_text('{"step": 90, "watch/knn": 0.7}\n{"step": 100, "loss": 0.25, "time/images_per_s": 12.0}\n{"ste')
    return folder


def write_card(home, name="seen", **fields):
    folder = home / "zoo" / name
    folder.mkdir(parents=True)
    base = {"name": name, "arch": "resnet10t", "dim": 512, "preprocess": {}, "method": "moco", "steps": 100, "canary": [0.5] * 50}
    Card.model_validate(base | {"lineage": {"run": name, "init": "random:0"}} | fields).write(folder / "card.yaml")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


def write_bench(home, name, codes, elements=2):
    folder = home / "benches" / name
    (folder / "status").mkdir(parents=True)
    (folder / "bench.json").write_text(json.dumps({"tasks": ["pneumonia"], "elements": elements}))
    for i, code in enumerate(codes):
        (folder / "status" / str(i)).write_text(f"{code}\n")
    return folder


def write_headlines(home, task="pneumonia", encoder="seen"):
    (home / "records" / task).mkdir(parents=True)
    rows = [{"encoder": encoder, "role": "encoder", "protocol": "knn", "auroc": 0.9, "low": 0.85, "high": 0.94, "verdict": "better"}]
    (home / "records" / ".headlines.json").write_text(json.dumps({"tasks": {task: {"time": 1.0, "rows": rows}}}))


class Page(HTMLParser):
    """Links, addresses and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.tags, self.texts = [], set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        self.links += [found["href"]] if "href" in found else []
        self.ids |= {found["id"]} if "id" in found else set()

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture
def home(tmp_path, monkeypatch):
    home = tmp_path / "work room"
    home.mkdir()
    monkeypatch.setenv("ISOGRAFT_HOME", str(home))
    monkeypatch.delenv("RANK", raising=False)
    return home


def test_runs_encoders_benches_and_tasks_link_to_each_other_and_to_files(home):
    run = write_run(home, "a b#c", verdict={"status": "finished", "sentence": "finished, but collapsed at step 70", "grade": "bad"})
    (run / "report.html").write_text("x")
    write_card(home, "a b#c", lineage={"run": "a b#c", "init": "imagenet_resnet10t"})
    write_bench(home, "first", [0, 0])
    write_headlines(home, encoder="a b#c")
    assert write_gallery(home) == 4
    page = Page((home / "index.html").read_text())
    text = " ".join(page.texts)
    assert "finished, but collapsed at step 70" in text
    for link in page.links:
        if link.startswith("#"):
            assert unquote(link[1:]) in page.ids
        else:
            assert (home / unquote(link)).is_file(), link
            assert not link.startswith(("/", "file:"))
    assert {"#encoder-a_b%23c", "#run-a_b%23c", "#task-pneumonia", "runs/a%20b%23c/report.html"} <= set(page.links)
    for word in ("moco", "resnet10t", "0.25", "0.700", ".900 [.850, .940]", "100 of 100", "2 of 2"):
        assert word in text
    assert "imagenet_resnet10t" in text  # not in the zoo: named, not linked
    assert str(home) not in text


@pytest.mark.parametrize("kind", ["run", "encoder", "bench", "task", "status"])
def test_every_text_is_escaped(home, kind):
    name = "<b onclick=x>" if kind != "status" else "seen"
    if kind == "run":
        write_run(home, name)
    elif kind == "encoder":
        write_card(home, name, licence=EVIL, lineage={"init": EVIL, "run": EVIL})
    elif kind == "bench":
        write_bench(home, name, [0])
    elif kind == "task":
        write_headlines(home, name, EVIL)
    else:
        write_run(home, verdict={"status": "finished", "sentence": EVIL, "grade": '"><script>'})
    write_gallery(home)
    text = (home / "index.html").read_text()
    page = Page(text)
    assert not {"b", "img"} & set(page.tags)
    assert page.tags.count("script") == 1
    assert "onerror" not in re.sub(r"&lt;img src=x onerror=alert\(1\)&gt;", "", text)


def test_only_the_script_of_the_page_may_run(home):
    write_run(home)
    write_gallery(home)
    text = (home / "index.html").read_text()
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)[1]
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src &#x27;sha256-{allowed}&#x27;" in text
    assert "default-src &#x27;none&#x27;" in text


@pytest.mark.parametrize(
    ("file", "content"),
    [("runs/bad/run.json", "{"), ("runs/bad/run.json", "[]"), ("runs/bad/run.json", '{"status": "finished"}'),
     ("zoo/bad/card.yaml", "a: ["), ("zoo/bad/card.yaml", "arch: x\ncorpus: 5"),
     ("zoo/bad/card.yaml", "- 1"), ("zoo/bad/card.yaml", b"\xff\xfe"), ("zoo/bad/card.yaml", "arch: " + "[" * 200_000),
     ("zoo/bad/card.yaml", "arch: x\nsteps: .inf"), ("zoo/bad/card.yaml", "arch: x\ndim: 3\ndim: 4"),
     ("zoo/bad/card.yaml", "arch: x\ndigest: null"), ("zoo/bad/card.yaml", "arch: x\ndim: 3\ndigest: abc"),
     ("runs/bad/run.json", '{"status": "stopped", "steps": 1e999, "images": 4}'), ("runs/bad/run.json", "[" * 100_000),
     ("benches/bad/bench.json", '{"tasks": 5}'),
     ("records/.headlines.json", "["), ("records/.headlines.json", '{"tasks": []}')],
)  # fmt: skip
def test_what_cannot_be_read_is_listed_and_hides_nothing_else(home, file, content):
    write_run(home)
    (home / file).parent.mkdir(parents=True, exist_ok=True)
    (home / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert write_gallery(home) == 2
    by_name = {entry.name: entry for entry in read_entries(home)}
    bad = by_name.get("bad") or by_name[".headlines.json"]
    assert bad.status.startswith("unreadable: ")
    assert by_name["seen"].grade == "open"


@pytest.mark.parametrize(
    ("codes", "status", "grade"),
    [([0, 0], "done", "good"), ([0], "1 of 2 elements not ended", "open"), ([0, 1], "1 of 2 elements failed", "bad")],
)
def test_the_state_of_a_bench_is_that_of_its_elements(home, codes, status, grade):
    write_bench(home, "first", codes)
    (entry,) = read_entries(home)
    assert (entry.status, entry.grade) == (status, grade)


def test_finished_is_not_said_of_a_run_that_nobody_judged_or_whose_verdict_is_old(home):
    write_run(home, "unjudged")
    write_run(home, "resumed", status="running", verdict={"status": "stopped", "sentence": "stopped", "grade": "bad"})
    write_run(home, "silent", status="running")
    quiet = time.time() - 7200
    for name in ("run.json", "metrics.jsonl"):
        os.utime(home / "runs" / "silent" / name, (quiet, quiet))
    (home / "runs" / "queued").mkdir()
    (home / "runs" / "queued" / "jobs.txt").write_text("17\n")
    status = {entry.name: entry.status for entry in read_entries(home)}
    assert "whether it collapsed" in status["unjudged"]
    assert status["resumed"] == "running"
    assert status["silent"] == "running? no line for 2 h"
    assert status["queued"] == "submitted, not started"


def test_a_change_is_seen_and_a_removed_entry_is_gone(home):
    write_run(home)
    card = write_card(home) / "card.yaml"
    write_gallery(home)
    text = card.read_text().replace("method: moco", "method: dinos")
    card.write_text(text)
    (entry,) = (e for e in read_entries(home) if e.kind == "encoder")
    assert entry.status == "unreadable: it was changed after it was written (its digest does not match)"
    card.write_text("".join(line for line in text.splitlines(keepends=True) if not line.startswith("digest: ")))
    assert {e.name: e.numbers["method"] for e in read_entries(home) if e.kind == "encoder"} == {"seen": "dinos"}
    (card.parent / "model.safetensors").unlink()
    assert [e.status for e in read_entries(home) if e.kind == "encoder"] == ["card without weights"]
    card.unlink()
    assert [e.kind for e in read_entries(home)] == ["run"]


def test_entries_from_the_cache_equal_those_that_are_read(home):
    write_run(home, verdict={"status": "finished", "sentence": "finished", "grade": "good"})
    write_card(home)
    write_bench(home, "first", [0])
    first = read_entries(home)
    again = read_entries(home)
    assert again == first
    assert [list(entry.numbers) for entry in again] == [list(entry.numbers) for entry in first]  # the order of the columns
    (cache,) = (home / ".isograft" / "cache" / "overview").iterdir()
    cache.write_text(cache.read_text()[:-20])  # damaged
    assert read_entries(home) == first


def test_a_command_is_never_harmed(home, monkeypatch, capsys):
    write_run(home)

    @refreshes_gallery
    def command(value: int) -> int:
        return value + 1

    (home / "index.html").mkdir()  # cannot be replaced
    assert command(1) == 2
    monkeypatch.setattr("encoders.gallery.index_page.render_index", lambda *_: 1 / 0)
    (home / "index.html").rmdir()
    assert command(2) == 3
    assert "was not written: ZeroDivisionError" in capsys.readouterr().err
    assert not (home / "index.html").exists()


def test_the_page_is_written_when_the_command_fails(home):
    write_run(home)

    @refreshes_gallery
    def command() -> None:
        raise InputError("wrong")

    with pytest.raises(InputError, match="wrong"):
        command()
    assert (home / "index.html").is_file()


def test_a_read_only_folder_and_a_full_disk_are_left_alone(home, monkeypatch, capsys):
    write_run(home)
    before = sorted(home.rglob("*"))

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    for call in ("touch", "mkdir", "write_text"):
        monkeypatch.setattr(f"pathlib.Path.{call}", refuse)
    refresh_gallery()
    assert sorted(home.rglob("*")) == before
    assert capsys.readouterr().err == ""


def test_a_page_of_somebody_else_and_an_empty_folder_are_kept(home):
    refresh_gallery()
    assert not list(home.iterdir())
    write_run(home)
    (home / "index.html").write_text("<html>my own page")
    refresh_gallery()
    assert (home / "index.html").read_text() == "<html>my own page"
    with pytest.raises(InputError, match="is not an overview"):
        write_gallery(home)


def test_other_ranks_write_nothing(home, monkeypatch):
    write_run(home)
    monkeypatch.setenv("RANK", "1")
    refresh_gallery()
    assert not (home / "index.html").exists()


def test_two_hundred_entries_are_cheap_and_need_no_torch(home):
    for i in range(100):
        write_run(home, f"r{i}")
        write_card(home, f"r{i}")
    code = (
        "import sys, time; from pathlib import Path; from encoders.gallery.refresh import write_gallery; home = Path(sys.argv[1]); "
        "write_gallery(home); t = [time.process_time()]; "
        "exec('for _ in range(3): n = write_gallery(home); t.append(time.process_time())'); "
        "print(n, min(b - a for a, b in zip(t, t[1:])), *(m for m in ('torch', 'pydantic', 'numpy') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(home)], capture_output=True, text=True, check=True)
    n, seconds, *heavy = done.stdout.split()
    assert (n, heavy) == ("200", [])
    assert float(seconds) < 0.3  # about .05 s on an idle core


@pytest.mark.parametrize(
    ("tool", "commands"),
    [
        ("pretrain", {"run", "resume", "export", "submit", "cancel", "report"}),
        ("encoders", {"import", "combine", "remove", "pull", "verify"}),
        ("transfer", {"bench", "compare", "report", "study", "submit", "train", "gallery"}),
    ],
)
def test_every_command_that_changes_an_entry_writes_the_overview(tool, commands):
    source = (ROOT / tool / "cli" / "main.py").read_text()
    marked = set(re.findall(r"refreshes_gallery\((?:\w+\.)?(\w+)\)|@refreshes_gallery\n(?:@\w+\(\)\n)?def (\w+)", source))
    found = {(a or b).rstrip("_") for a, b in marked}
    found = {"bench" if name == "run_and_print_bench" else name for name in found} | ({"gallery"} if tool == "transfer" else set())
    assert found == commands


def test_encoders_show_names_the_run_the_results_and_the_overview(home):
    write_run(home, verdict={"status": "finished", "sentence": "finished, but collapsed at step 70", "grade": "bad"})
    write_card(home)
    write_headlines(home)
    write_gallery(home)
    found = dict(list_related("seen", "seen", home))
    assert found["run"] == "runs/seen: finished, but collapsed at step 70"
    assert found["page of the run"] == "none; `pretrain report seen` writes it"
    assert found["task pneumonia"] == "AUROC by knn .900 [.850, .940] better"
    assert found["overview"].endswith("index.html#encoder-seen")
    (home / "runs" / "seen" / "run.json").write_text("{")
    assert dict(list_related("seen", "seen", home))["run"] == "runs/seen: its files cannot be read"
    assert not [what for what, _ in list_related("other", "../secret", home) if "run" in what]


def test_an_encoder_shows_its_mean_best_auroc_and_that_its_run_collapsed(home):
    write_run(home, verdict={"status": "finished", "sentence": "finished, but collapsed at step 70", "grade": "bad"})
    write_card(home)
    rows = [
        {"encoder": "seen", "role": "encoder", "protocol": p, "auroc": a, "low": None, "high": None}
        for p, a in (("knn", 0.6), ("linear", 0.8))
    ]
    for task in ("one", "two"):
        (home / "records" / task).mkdir(parents=True)
    content = {"tasks": {"one": {"time": 1.0, "rows": rows}, "two": {"time": 1.0, "rows": [rows[0]]}}}
    (home / "records" / ".headlines.json").write_text(json.dumps(content))
    for _ in range(2):  # also from the cache
        (encoder,) = (e for e in read_entries(home) if e.kind == "encoder")
        assert encoder.numbers["AUROC"] == "0.700 (2 tasks)"
        assert encoder.status == "in the zoo; its run finished, but collapsed at step 70"
        assert encoder.grade == "bad"
        assert [link.target for link in encoder.links if link.text == "task one"] == [("task", "one")]
