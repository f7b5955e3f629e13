"""Arrays are read when they are used, and trusted without being read only while their file is in the state that was verified."""

import os
import shutil

import numpy as np
import pytest

from encoders.runtime.errors import InputError
from tests.transfer.records.test_record import made
from transfer.records import stored_arrays
from transfer.records.record import read_record, write_record
from transfer.records.statistics_file import save_results


@pytest.fixture
def reads(monkeypatch):
    """The names of the arrays that are read from files, in order. Files count as settled at once."""
    names = []
    original = stored_arrays.read_members
    monkeypatch.setattr(stored_arrays, "SETTLED_SECONDS", -1.0)

    def counted(raw, choose):
        arrays = original(raw, choose)
        names.extend(arrays)
        return arrays

    monkeypatch.setattr(stored_arrays, "read_members", counted)
    return names


def verified(**fields):
    """The path of a record that was read before."""
    path = write_record(made(**fields))
    read_record(path)
    save_results()
    return path


def test_an_unchanged_record_is_read_without_its_arrays(reads):
    path = verified()
    reads.clear()
    back = read_record(path)
    assert list(back.arrays)
    assert reads == []
    np.testing.assert_array_equal(back.arrays["test_scores"], made().arrays["test_scores"])
    assert back.arrays["test_scores"] is back.arrays["test_scores"]
    assert reads == ["test_scores"]
    assert "nothing" not in back.arrays
    with pytest.raises(KeyError):
        back.arrays["nothing"]


def rewrite(npz, change):
    with np.load(npz) as file:
        arrays = {name: file[name] for name in file.files}
    change(arrays)
    np.savez_compressed(npz, **arrays)


def raise_scores(arrays):
    arrays["test_scores"] = arrays["test_scores"] + 0.5


def replace_file(npz):
    other = npz.with_name("other.npz")
    shutil.copy(npz, other)
    rewrite(other, raise_scores)
    os.replace(other, npz)


def same_size_and_times(npz):
    """Changes one byte of a stored score in place, and sets size, access and modification times back."""
    before = npz.stat()
    with np.load(npz) as file:
        arrays = {name: file[name] for name in file.files}
    np.savez(npz, **arrays)
    size = npz.stat().st_size
    arrays["test_scores"] = np.nextafter(arrays["test_scores"], 1)
    np.savez(npz, **arrays)
    assert npz.stat().st_size == size
    os.utime(npz, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("edit", [lambda npz: rewrite(npz, raise_scores), replace_file, same_size_and_times])
def test_an_edited_file_is_refused_although_it_was_verified_before(reads, edit):
    path = verified()
    edit(path.with_suffix(".npz"))
    with pytest.raises(InputError, match="changed after it was written"):
        read_record(path)


def test_an_edit_that_keeps_size_modification_time_and_inode_is_noticed(reads):
    npz = write_record(made()).with_suffix(".npz")
    with np.load(npz) as file:
        np.savez(npz, **{name: file[name] for name in file.files})  # without compression, so that one byte can change
    read_record(npz.with_suffix(".json"))
    save_results()
    before, place = npz.stat(), npz.read_bytes().index(made().arrays["test_scores"].tobytes())
    with open(npz, "r+b") as raw:
        raw.seek(place)
        raw.write(b"\x01")
    os.utime(npz, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = npz.stat()
    assert (before.st_size, before.st_mtime_ns, before.st_ino) == (after.st_size, after.st_mtime_ns, after.st_ino)
    with pytest.raises(InputError):
        read_record(npz.with_suffix(".json"))


def test_a_file_that_was_only_touched_or_copied_is_verified_again(reads, tmp_path):
    path = verified()
    os.utime(path.with_suffix(".npz"))
    reads.clear()
    read_record(path)
    assert "test_scores" in reads
    save_results()
    copy = shutil.copytree(path.parent, tmp_path / "copy")
    reads.clear()
    read_record(copy / path.name)
    assert "test_scores" in reads


def test_a_file_that_changed_a_moment_ago_is_not_trusted(monkeypatch, reads):
    monkeypatch.setattr(stored_arrays, "SETTLED_SECONDS", 60.0)
    path = verified()
    reads.clear()
    read_record(path)
    assert "test_scores" in reads


def test_a_file_that_changes_while_it_is_in_use_is_an_error(reads):
    path = verified()
    lazy = read_record(path)
    rewrite(path.with_suffix(".npz"), raise_scores)
    with pytest.raises(InputError, match="changed while they were in use"):
        lazy.arrays["test_scores"]
    path.with_suffix(".npz").unlink()
    with pytest.raises(InputError, match="can no longer be read"):
        lazy.arrays["test_scores"]


@pytest.mark.parametrize("damage", [lambda b: b[:-30], lambda b: b[:200] + bytes(40) + b[240:], lambda b: b""])
def test_a_damaged_file_is_a_user_error(reads, damage):
    path = write_record(made())
    npz = path.with_suffix(".npz")
    npz.write_bytes(damage(npz.read_bytes()))
    with pytest.raises(InputError):
        read_record(path)


def test_records_of_one_split_share_equal_arrays_which_are_read_only():
    one, other = (read_record(write_record(made(encoder=name))) for name in ("a", "b"))
    assert one.arrays["test_key"] is other.arrays["test_key"]
    moved = made(encoder="c")
    key = moved.arrays["test_key"][::-1]
    third = read_record(write_record(type(moved)(moved.meta, {**moved.arrays, "test_key": key})))
    assert third.arrays["test_key"].tolist() == key.tolist() != one.arrays["test_key"].tolist()
    with pytest.raises(ValueError, match="read-only"):
        one.arrays["test_scores"][0] = 1
