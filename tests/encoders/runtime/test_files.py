"""Writes are atomic."""

import hashlib
import io
import os

import pytest

from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, read_at_most, read_json, sha256_file, write_json


def test_a_failure_leaves_the_old_file_and_no_litter(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_write(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_success_replaces_the_file_and_leaves_no_litter(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic_write(path) as part:
        part.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_folder_that_cannot_be_made_is_the_users_error(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot write"), atomic_write(tmp_path / "file" / "a.txt"):
        pass


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_the_users_error(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot write"), atomic_write(tmp_path / "a.txt"):
        pass


def test_json_round_trip_and_refusals(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, 2.5, None]})
    assert read_json(tmp_path / "a.json") == {"b": [1, 2.5, None]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "nan.json", float("nan"))
    (tmp_path / "incomplete.json").write_text('{"b": [1,')
    with pytest.raises(InputError, match="not JSON"):
        read_json(tmp_path / "incomplete.json")
    with pytest.raises(InputError, match="does not exist"):
        read_json(tmp_path / "none.json")


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc" * 1000)
    assert sha256_file(tmp_path / "a") == hashlib.sha256(b"abc" * 1000).hexdigest()


def test_two_hosts_with_one_process_id_share_no_temporary(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "one")
    with atomic_write(tmp_path / "a.txt") as first:
        first.write_text("first")
        monkeypatch.setattr("socket.gethostname", lambda: "two")
        with atomic_write(tmp_path / "a.txt") as second:
            second.write_text("second")
        assert first != second
        assert (tmp_path / "a.txt").read_text() == "second"
    assert (tmp_path / "a.txt").read_text() == "first"


def test_a_small_packed_file_is_unpacked_without_the_memory_of_its_limit():
    asked = []

    class Packed(io.BytesIO):
        def read(self, size=-1, /):
            asked.append(size)
            return super().read(size)

    content = bytes(range(256)) * 20_000
    assert read_at_most(Packed(content), 1 << 40) == content
    assert read_at_most(Packed(content), 1_500_000) == content[:1_500_000]
    assert read_at_most(Packed(b""), 5) == read_at_most(Packed(content), 0) == b""
    assert 0 < max(asked) <= 1 << 20
