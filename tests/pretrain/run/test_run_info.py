"""run.json: what was changed after it was written is refused with one sentence; an older file without digest is read."""

import json

import pytest

from encoders.runtime.errors import InputError
from pretrain.run.rundir import RunDir

INFO = {
    "id": "abc", "asked": "r", "status": "stopped", "steps": 100, "fingerprint": "f" * 64, "images": 40, "sessions": [{"from_step": 0}],
    "untrained": {"watch/cosine": 0.9}, "best": 40, "seconds": 1.5, "wandb": None,
}  # fmt: skip


@pytest.fixture
def run(tmp_path):
    where = RunDir(tmp_path)
    where.update(**INFO)
    return where


def test_run_json_is_read_as_it_was_written_and_updates_keep_the_rest(run):
    assert run.read() == INFO
    run.update(status="running")
    assert run.read() == INFO | {"status": "running"}


@pytest.mark.parametrize(
    ("name", "value"), [("best", 60), ("steps", 10), ("untrained", {"watch/cosine": 0.1}), ("status", "finished"), ("new", 1)]
)
def test_a_changed_number_is_not_believed(run, name, value):
    content = json.loads(run.info.read_text())
    run.info.write_text(json.dumps(content | {name: value}))
    with pytest.raises(InputError, match=r"run\.json was changed after it was written \(its digest does not match\)"):
        run.read()


def test_a_digest_that_lost_its_name_is_not_taken_for_an_older_file(run):
    run.info.write_text(run.info.read_text().replace('"digest"', '"digmst"').replace('"best": 40', '"best": 60'))
    with pytest.raises(InputError, match=r"run\.json was changed after it was written"):
        run.read()


@pytest.mark.parametrize("digest", [None, "", 0, False, [], {}, "0" * 32])
def test_a_digest_that_is_none_is_not_taken_for_an_older_file(run, digest):
    run.info.write_text(json.dumps({**INFO, "digest": digest}))
    with pytest.raises(InputError, match=r"run\.json was changed after it was written"):
        run.read()


def test_an_older_file_without_digest_is_read_and_its_types_are_checked(run):
    run.info.write_text(json.dumps(INFO))
    assert run.read() == INFO
    for wrong in ({"steps": "100"}, {"steps": True}, {"sessions": [1]}, {"status": None}, {"untrained": []}):
        run.info.write_text(json.dumps(INFO | wrong))
        with pytest.raises(InputError, match=rf"run\.json has {next(iter(wrong))} of another type"):
            run.read()
    run.info.write_text(json.dumps({name: value for name, value in INFO.items() if name != "id"}))
    with pytest.raises(InputError, match=r"run\.json lacks 'id'; restore"):
        run.read()["id"]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"\xff", b"{", b"[" * 100_000, b'{"steps": 1' + b"0" * 5000 + b"}", b'{"steps": NaN, "digest": "a"}']
)
def test_other_content_is_refused_with_the_path(run, content):
    run.info.write_bytes(content)
    with pytest.raises(InputError, match=str(run.info)) as error:
        run.read()
    assert "\n" not in str(error.value)
