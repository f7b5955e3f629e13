"""A write that the storage refuses is one sentence, and what was there before is whole."""

import errno
import io
import json
import os
import pickle
import resource
import signal

import numpy as np
import pytest
import torch

from encoders.runtime import checkpoint, files
from encoders.runtime.cli import run_cli
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, ensure_writable, write_json
from encoders.runtime.hdf5_file import atomic_hdf5
from encoders.runtime.line_file import append_line
from encoders.runtime.metrics_log import METRICS_FILE, MetricsLog, read_metrics
from encoders.runtime.storage_errors import CAUSES, StorageError, explain_storage_errors, find_storage_error, name_lost
from encoders.store.write import save_store
from encoders.zoo.weights import write_state_dict
from tests.forked import run_forked
from tests.full_disk import fill, make_read_only, small_disk
from transfer.tables.render import write_table

BIG = 3 << 16  # bytes: more than every small disk below has left


def _noise():
    return np.random.default_rng(0).integers(0, 256, BIG, dtype=np.uint8)


def _save_hdf5(path):
    with atomic_hdf5(path) as file:
        file.create_dataset("features", data=_noise())


def _save_npz(path):
    with atomic_write(path) as part, part.open("wb") as file:
        np.savez(file, x=_noise())


def _save_npy(path):
    with atomic_write(path) as part, part.open("wb") as file:
        np.save(file, _noise())


def _save_picture(path):
    from PIL import Image

    with atomic_write(path) as part:
        Image.fromarray(_noise().reshape(256, -1)).save(part, "PNG")


WRITERS = {
    "checkpoint": lambda path: checkpoint.save_checkpoint(path, {"w": torch.from_numpy(_noise())}),
    "weights": lambda path: write_state_dict(path, {"w": torch.from_numpy(_noise())}),
    "store": lambda path: save_store(path, _noise().reshape(-1, 64, 64, 1)),
    "hdf5": _save_hdf5,
    "npz": _save_npz,
    "npy": _save_npy,
    "picture": _save_picture,
    "json": lambda path: write_json(path, _noise().tolist()),
    "page": lambda path: write_table(path, "x" * BIG),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_one_sentence_and_the_previous_file_is_whole(tmp_path, writer):
    with small_disk(tmp_path / "disk", 256) as disk:
        path = disk / "result.h5"
        path.write_bytes(b"the previous one")
        fill(disk, leave_kib=100)
        with pytest.raises(StorageError) as caught:
            WRITERS[writer](path)
        assert str(caught.value) == f"no space left on {disk}: result.h5 was not saved; the previous result.h5 is intact"
        assert path.read_bytes() == b"the previous one"
        assert sorted(os.listdir(disk)) == ["filler", "result.h5"]


def test_a_folder_that_cannot_be_made_on_a_full_or_read_only_disk(tmp_path):
    with small_disk(tmp_path / "disk", 64) as disk:
        write_json(disk / "a.json", 1)
        make_read_only(disk)
        for write in (lambda: write_json(disk / "a.json", 2), lambda: write_json(disk / "new" / "b.json", 2)):
            with pytest.raises(StorageError, match="the file system is read-only at"):
                write()
        with pytest.raises(StorageError, match="read-only"):
            ensure_writable(disk / "runs")
        assert json.loads((disk / "a.json").read_text()) == 1


@pytest.mark.parametrize("number", CAUSES)
def test_every_cause_is_named_whatever_part_of_the_write_fails(tmp_path, monkeypatch, number):
    def fail(*given):
        raise OSError(number, os.strerror(number))

    write_json(tmp_path / "a.json", 1)
    for function in ("fsync", "replace"):
        with monkeypatch.context() as patch, pytest.raises(StorageError) as caught:
            patch.setattr(files.os, function, fail)
            write_json(tmp_path / "a.json", 2)
        assert str(caught.value) == f"{CAUSES[number].format(tmp_path)}: a.json was not saved; the previous a.json is intact"
        assert os.listdir(tmp_path) == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == 1


def _write_beyond_limit(folder):
    """Under a limit on the size of files, each of the writers; prints what it raised."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 14, 1 << 14))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as in a new Python interpreter
    for name, write in WRITERS.items():
        try:
            write(folder / name)
        except StorageError as error:
            print(name, error, flush=True)


def test_a_limit_on_the_size_of_files_is_named(tmp_path):
    ended = run_forked(_write_beyond_limit, tmp_path, logs=tmp_path / "log")
    assert ended.status == 0, ended
    want = [f"{name} the limit on the size of a file (ulimit -f) is reached in {tmp_path}: {name} was not saved" for name in WRITERS]
    assert ended.printed.splitlines() == want
    assert ended.errors == ""


@pytest.mark.parametrize(
    "error",
    [
        InputError("a damaged image: [Errno 28]"),
        ValueError("the network has no such layer"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        PermissionError(errno.EACCES, "Permission denied"),
        RuntimeError("shapes do not match"),
    ],
)
def test_other_errors_pass_unchanged(tmp_path, error):
    with pytest.raises(type(error)) as caught, atomic_write(tmp_path / "a"):
        raise error
    assert caught.value is error
    assert os.listdir(tmp_path) == []


def test_an_input_error_that_comes_from_a_full_disk_of_the_input_stays_one(tmp_path):
    with pytest.raises(InputError, match="damaged"), explain_storage_errors(tmp_path / "out"):
        try:
            raise OSError(errno.EIO, "Input/output error")
        except OSError as error:
            raise InputError("x.png is damaged") from error


def test_the_caller_names_what_was_lost_and_the_error_survives_a_worker_process():
    error = StorageError(errno.EDQUOT, "/data", "00003.pixels")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "the disk quota is used up on /data: 00003.pixels was not saved"
    with pytest.raises(StorageError) as caught, name_lost("step 20", "the previous checkpoint is intact"):
        raise error
    assert str(caught.value) == "the disk quota is used up on /data: step 20 was not saved; the previous checkpoint is intact"
    assert caught.value.errno == errno.EDQUOT


def test_reasons_hidden_in_texts_are_found():
    texts = {
        "Can't write data (file write failed: errno = 28, error message = 'No space left on device')": errno.ENOSPC,
        "I/O error: Disk quota exceeded (os error 122)": errno.EDQUOT,
        "[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0": None,  # nothing is wrong with the disk
    }
    for text, number in texts.items():
        found = find_storage_error(RuntimeError(text), None)
        assert (found and found.number) == number


def test_a_line_of_metrics_is_written_whole_or_not_at_all(tmp_path):
    with small_disk(tmp_path / "disk", 64) as disk:
        log = MetricsLog(disk, mode="disabled")
        fill(disk, leave_kib=4)
        with pytest.raises(StorageError) as caught:
            for step in range(500):
                log.log(step, loss=1 / 3)
        step = int(str(caught.value).split("metrics line of step ")[1].split()[0])
        assert str(caught.value) == f"no space left on {disk}: the metrics line of step {step} was not saved; all earlier lines are intact"
        log.close()
        assert step > 20
        assert (disk / METRICS_FILE).read_bytes().endswith(b"\n")
        assert [line["step"] for line in read_metrics(disk)] == list(range(step))
        (disk / "filler").unlink()
        with MetricsLog(disk, mode="disabled") as log:
            log.log(step, loss=0.5)
        assert [line["step"] for line in read_metrics(disk)] == list(range(step + 1))


def test_a_line_that_is_written_in_parts_is_whole(tmp_path):
    class Slow(io.FileIO):
        def write(self, data):
            return super().write(bytes(data)[:3])

    with Slow(tmp_path / "lines", "ab") as file:
        append_line(file, '{"step": 1}', "the line")
    assert (tmp_path / "lines").read_text() == '{"step": 1}\n'


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (StorageError(errno.ENOSPC, "/data", "step 20", "the previous checkpoint is intact"), "step 20 was not saved; the previous"),
        (OSError(errno.ENOSPC, "No space left on device", "/data/list.txt"), "error: no space left on /data"),
        (OSError(errno.EROFS, "Read-only file system"), "the file system is read-only at"),
    ],
)
def test_commands_print_the_sentence_alone_and_exit_with_1(capsys, error, said):
    def command():
        raise error

    with pytest.raises(SystemExit) as left:
        run_cli(command)
    printed = capsys.readouterr()
    assert left.value.code == 1
    assert said in printed.err
    assert printed.err.startswith("error: ")
    assert printed.err.count("\n") == 1
