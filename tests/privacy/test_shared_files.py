"""No name, date, identifier, host, user or path of the inputs is in anything that is meant to be passed on."""

import json
import stat

import numpy as np
import pytest

from tests.browser import look_at, needs_browser
from tests.privacy import planted
from tests.privacy.chain import Chain, run_chain

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> Chain:
    return run_chain(tmp_path_factory.mktemp("privacy"))


def test_nothing_private_is_in_a_file_that_is_passed_on(chain):
    files = chain.shared_files()
    names = {path.relative_to(chain.home).as_posix() for path in files}
    expected = {
        "a.csv", "a.md", "t.tex", "check.html", "check.md", "report.html", "report.png", "index.html", "exported/README.md", "mine.yaml",
        "mine.safetensors", "views.png", "zoo/trained/card.yaml", "exported_trained/card.yaml", "zoo/early/card.yaml",
        "records/table.csv", "records/table.md", "records/comparisons.csv", "runs/mine/report.html", "zoo/mine/card.yaml", "failed.csv",
        "failed.md", "slides/overview.html", "pushed/mine/card.yaml", "leak.log", "cell.log", "quarantine.log", "damaged.log",
    }  # fmt: skip
    assert expected <= names
    assert any(name.endswith(".wandb") for name in names)
    assert any("tfevents" in name for name in names)
    assert any(name.startswith("mlruns/") for name in names)
    found = {
        path.relative_to(chain.home).as_posix(): planted.find_private_words(planted.read_with_text_chunks(path), chain.words)
        for path in files
    }
    assert {name: words for name, words in found.items() if words} == {}


def test_the_search_would_find_every_planted_word(chain):
    inputs = b"".join(path.read_bytes() for path in chain.root.rglob("*") if path.is_file() and chain.home not in path.parents)
    inputs += "\n".join(str(path) for path in chain.root.rglob("*")).encode() + planted.HOST.encode()
    found = planted.find_private_words(inputs, chain.words)
    assert {(line.split(": ")[0]) for line in found} == set(chain.words)


def test_the_user_finds_what_failed_on_the_terminal_and_in_files_of_mode_0600(chain):
    assert planted.NAMES[1] in chain.printed[next(name for name in chain.printed if name.startswith("ingest folder"))]
    own = chain.home.parent / f"{planted.STORE_FILE}.quarantine.csv"
    listed = chain.home / "records" / "sick" / "leaks.csv"
    assert planted.NAMES[0] in listed.read_text()
    errors = chain.home / ".isograft" / "local-errors.log"
    assert planted.NAMES[0] in errors.read_text()
    for path in (
        own,
        listed,
        errors,
        chain.home / "slides" / "slides.csv",
        *chain.home.glob("records/sick/*.json"),
        *chain.home.glob("records/sick/*.npz"),
    ):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert "records/sick/leaks.csv" in (chain.home / "leak.log").read_text()
    assert ".isograft/local-errors.log" in (chain.home / "traceback.log").read_text()
    assert "RuntimeError: cannot read (file).png on -" in (chain.home / "traceback.log").read_text()
    assert "1 quarantined, not in the store; their names are in dcm.h5.quarantine.csv" in (chain.home / "quarantine.log").read_text()
    assert "near-duplicates" in (chain.home / "leak.log").read_text()


def test_records_hold_pseudonyms(chain):
    records = [path for path in (chain.home / "records" / "sick").glob("*.json") if json.loads(path.read_text())["status"] == "ok"]
    assert records
    for path in records:
        assert json.loads(path.read_text())["ids"] == "pseudonyms"
        arrays = np.load(path.with_suffix(".npz"))
        text = "\n".join(str(v) for name in arrays.files if arrays[name].dtype.kind == "U" for v in arrays[name])
        assert planted.find_private_words(text.encode() + path.read_bytes(), chain.words) == []
        assert len(set(arrays["test_patient"].tolist())) == 6  # patients stay apart


@needs_browser
def test_no_planted_script_runs_in_a_browser_and_no_page_breaks_its_own_policy(chain, tmp_path):
    pages = sorted(path for path in chain.shared_files() if path.suffix == ".html")
    assert len(pages) >= 6
    escaped = [page for page in pages if "PLANTED" in page.read_text()]
    assert len(escaped) >= 3  # the data set, the licence and the views are named on them, as text
    control = tmp_path / "control.html"
    control.write_text(f"<!doctype html><p>{planted.SCRIPT}")
    policy = tmp_path / "policy.html"
    head = (chain.home / "report.html").read_text().split("<title>")[0]
    policy.write_text(f"{head}</head><body>{planted.SCRIPT}</body></html>")
    frame = tmp_path / "frames.html"

    def console_of(*shown):
        frame.write_text("<!doctype html>" + "".join(f'<iframe src="{page.as_uri()}"></iframe>' for page in shown))
        return "\n".join(look_at(frame, tmp_path / "profile").console)

    seen = console_of(control, policy)
    assert seen.count(f'"{planted.SCRIPT_WORD}", source: {control.as_uri()}') == 2  # the script and the handler: this test would notice
    assert f'"{planted.SCRIPT_WORD}", source: {policy.as_uri()}' not in seen  # without escaping, the policy still stops them
    assert seen.count("violates the following Content Security Policy") >= 2
    assert console_of(*pages) == ""
