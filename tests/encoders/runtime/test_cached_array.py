"""Arrays in the cache: a changed file is not believed, an unchanged one is not read twice to verify it."""

import os
import shutil

import numpy as np
import pytest

from encoders.runtime import cached_array
from encoders.runtime.cached_array import read_cached_array, write_cached_array

X = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def file(tmp_path):
    write(tmp_path / "features" / "x.npy", X)
    return tmp_path / "features" / "x.npy"


def checksum(file):
    (found,) = (file.parents[1] / "checksums").iterdir()
    return found


def write(path, array):
    with write_cached_array(path) as part, part.open("wb") as opened:
        np.save(opened, array)


def hashes_nothing(monkeypatch):
    monkeypatch.setattr(cached_array, "sha256_file", None)


@pytest.mark.parametrize("mapped", [False, True])
def test_an_array_is_read_as_it_was_written_without_hashing_it_again(file, mapped, monkeypatch):
    hashes_nothing(monkeypatch)
    assert np.array_equal(read_cached_array(file, mapped), X)


def test_a_copy_is_verified_once(file, tmp_path, monkeypatch):
    shutil.copytree(tmp_path / "features", tmp_path / "moved" / "features", copy_function=shutil.copyfile)
    shutil.copytree(tmp_path / "checksums", tmp_path / "moved" / "checksums")
    copy = tmp_path / "moved" / "features" / "x.npy"
    assert np.array_equal(read_cached_array(copy), X)
    hashes_nothing(monkeypatch)
    assert np.array_equal(read_cached_array(copy), X)


@pytest.mark.parametrize("keeps_times", [False, True])
def test_one_flipped_bit_is_found(file, keeps_times):
    facts = file.stat()
    data = bytearray(file.read_bytes())
    data[-3] ^= 1
    file.write_bytes(data)
    if keeps_times:  # as a tool that copies times does; the time of the change itself cannot be set
        os.utime(file, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert read_cached_array(file) is None
    write(file, X)
    assert np.array_equal(read_cached_array(file), X)


@pytest.mark.parametrize("content", [b"", b"\xff", b"0" * 64, b"0" * 64 + b" 1 2 3 4\n"])
def test_a_damaged_hash_means_that_the_array_is_computed_again(file, content):
    checksum(file).write_bytes(content)
    assert read_cached_array(file) is None


def test_an_array_of_an_earlier_version_is_read_and_gets_its_hash(file):
    checksum(file).unlink()
    assert np.array_equal(read_cached_array(file), X)
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    assert read_cached_array(file) is None


def test_a_missing_file_is_none(tmp_path):
    assert read_cached_array(tmp_path / "none.npy") is None
