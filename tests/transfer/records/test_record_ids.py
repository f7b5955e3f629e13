"""Pseudonyms in records: made once, found again in the store, with a secret, and in place of the names of earlier versions."""

import hashlib
import stat
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from encoders.runtime.errors import InputError
from tests.transfer import toys
from tests.transfer.records.test_record import made
from transfer.cli.main import app
from transfer.records.record import find_records, read_record, write_record
from transfer.records.record_ids import hide_names, hide_record_ids, salt_digits, use_salt_file, write_as_in
from transfer.records.redactor import Redactor
from transfer.tasks.load import load_task
from transfer.tasks.task import read_task


@pytest.fixture(autouse=True)
def _no_salt():
    yield
    use_salt_file(None)


@pytest.fixture
def salt(tmp_path):
    (tmp_path / "salt").write_text("a secret of many letters\n")
    return tmp_path / "salt"


def call(*words):
    done = CliRunner().invoke(app, [str(word) for word in words])
    if isinstance(done.exception, InputError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done


def test_a_pseudonym_is_the_hash_of_its_name_and_unknown_names_stay(salt):
    names = np.array(["p1", "", "p2", "p1"], dtype=object)
    hidden = hide_names(names)
    assert hidden.tolist()[1] == ""
    assert hidden[0] == hidden[3] == hashlib.sha256(b"isograft record:p1").hexdigest()[:16]
    use_salt_file(salt)
    salted = hide_names(names)
    assert salted[0] == hashlib.sha256(b"a secret of many lettersisograft record:p1").hexdigest()[:16]
    assert not {*salted} & {*hidden} - {""}
    assert hide_names(names, "").tolist() == hidden.tolist()
    assert salt_digits() not in ("", hide_names(np.array([""]))[0])
    assert len(salt_digits()) == 8


def test_a_record_is_found_in_its_store_with_its_own_secret_only(salt, tmp_path):
    named = made()
    keys = named.arrays["test_key"]
    assert write_as_in(named, keys).tolist() == keys.astype(str).tolist()
    plain = hide_record_ids(named)
    assert write_as_in(plain, keys).tolist() == plain.arrays["test_key"].tolist()
    assert np.array_equal(plain.arrays["test_scores"], named.arrays["test_scores"])
    use_salt_file(salt)
    salted = hide_record_ids(named)
    assert write_as_in(salted, keys).tolist() == salted.arrays["test_key"].tolist()
    assert write_as_in(plain, keys).tolist() == plain.arrays["test_key"].tolist()
    for path, words in ((None, "none was given"), (tmp_path / "other", "names another one")):
        (tmp_path / "other").write_text("another secret of many letters")
        use_salt_file(path)
        with pytest.raises(InputError, match=rf"made with a secret, and .*{words}; pass --salt-file"):
            write_as_in(salted, keys)
    (tmp_path / "short").write_text("abc")
    with pytest.raises(InputError, match="3 characters, expected at least 16"):
        use_salt_file(tmp_path / "short")


def test_the_bench_replaces_names_of_earlier_records_and_keeps_their_scores(salt, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    call("tasks", "add", "sick", toys.store(tmp_path / "toy.h5", patients=20), "--label", "sick")
    bench = ["bench", "--encoder", "pixels", "--baseline", "none", "--protocol", "knn", "--device", "cpu"]
    call(*bench)
    (path,) = find_records()
    first, loaded = read_record(path), load_task(read_task("sick"))
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(path.with_suffix(".npz").stat().st_mode) == 0o600
    assert first.meta.ids == "pseudonyms"
    names = {column: dict(zip(hide_names(values).tolist(), values.tolist(), strict=True)) for column, values in
             (("key", loaded.key), ("patient", loaded.patient))}  # fmt: skip
    arrays = {
        n: np.array([names[n.split("_")[1]][v] for v in a.tolist()]) if n.endswith(("_key", "_patient")) else a
        for n, a in first.arrays.items()
    }
    write_record(replace(first, arrays=arrays, meta=first.meta.model_copy(update={"ids": "names"})))
    assert Redactor([read_record(path)])("warning: image 000003 of p1, e.g. 000004") == "warning: image (withheld) of (withheld)"
    assert "1 of 1 results from records" in call(*bench).stderr
    again = read_record(path)
    assert again.meta.ids == "pseudonyms"
    assert {n: a.tolist() for n, a in again.arrays.items()} == {n: a.tolist() for n, a in first.arrays.items()}
    assert "1 of 1 results from records" in call(*bench, "--salt-file", salt).stderr
    salted = read_record(path)
    assert (salted.meta.ids, salted.meta.salt) == ("salted", salt_digits())
    assert salted.arrays["test_scores"].tolist() == first.arrays["test_scores"].tolist()
    assert not {*salted.arrays["test_key"]} & {*first.arrays["test_key"]}
    assert "a secret" not in path.read_text()
    with pytest.raises(InputError, match="pass --salt-file"):
        call(*bench)
    call("report", "--store", tmp_path / "toy.h5", "--salt-file", salt, "--out", tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text().count("<figure><img") > 3  # the images of the records were found
