"""A damaged heap of texts is refused before HDF5, which would read it without an end; a sound one is read as ever."""

import struct

import h5py
import numpy as np
import pytest

from encoders.ingest.hdf5 import Hdf5Source
from encoders.runtime import hdf5_heaps
from encoders.runtime.errors import InputError
from encoders.runtime.hdf5_heaps import HEAP_MAGIC, check_global_heaps, list_gaps
from encoders.store.store import Store
from encoders.store.tile_coordinates import read_coordinate_file
from encoders.store.write import save_store
from encoders.zoo.feature_file import read_feature_file


def stop_free_space(path, length=0, index=0):
    """Gives the first object of every heap in a file another number and length; the library stops at it without a step."""
    data, at = bytearray(path.read_bytes()), -1
    count = 0
    while (at := data.find(HEAP_MAGIC, at + 1)) >= 0:
        struct.pack_into("<HHIQ", data, at + 16, index, 0, 0, length)
        count += 1
    path.write_bytes(data)
    assert count


@pytest.mark.parametrize(("index", "length"), [(0, 0), (1, 2**64 - 16), (7, 2**64 - 17)])
def test_an_object_without_a_length_is_refused(tmp_path, index, length):
    path = save_store(tmp_path / "a.h5", np.zeros((3, 8, 8, 1), np.uint8) + np.arange(3, dtype=np.uint8)[:, None, None, None])
    Store.open(path)
    stop_free_space(path, length, index)
    with pytest.raises(
        InputError, match=r"a\.h5 is not a readable store: damaged \(ValueError: the heap of texts at byte [\d,]+ is damaged\)"
    ):
        Store.open(path)


def test_every_reader_of_texts_refuses_it(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"] = np.zeros((2, 8, 8), np.uint8)
        file["features"] = np.zeros((2, 4), np.float32)
        file["coords"] = np.zeros((2, 2), np.int64)
        file["y"] = np.array(["a", "b"], h5py.string_dtype())
        file.attrs["encoder"] = "mine"
    assert read_feature_file(tmp_path / "a.h5").extractor == "mine"
    stop_free_space(tmp_path / "a.h5")
    for read in (
        lambda path: Hdf5Source([path], "x", labels="y"),
        read_feature_file,
        read_coordinate_file,
    ):
        with pytest.raises(InputError, match=r"the heap of texts at byte [\d,]+ is damaged"):
            read(tmp_path / "a.h5")


def test_values_that_look_like_a_heap_are_none_and_large_ones_are_not_searched(tmp_path, monkeypatch):
    fake = HEAP_MAGIC.ljust(16, b"\xff") + bytes(4080)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["large"] = np.frombuffer(fake * 600, np.uint8)
        file.create_dataset("chunked", data=np.frombuffer(fake * 600, np.uint8), chunks=(len(fake) * 100,))
        file.attrs["text"] = "ü"
    with h5py.File(tmp_path / "a.h5") as file:
        with pytest.raises(ValueError, match="is damaged"):
            check_global_heaps(file, tmp_path / "a.h5")
        monkeypatch.setattr(hdf5_heaps, "SMALL_FILE", 0)
        check_global_heaps(file, tmp_path / "a.h5")
        data, size = (tmp_path / "a.h5").read_bytes(), (tmp_path / "a.h5").stat().st_size
        gaps = list(list_gaps(file, size))
        assert sum(end - start for start, end in gaps) < size - 2 * 600 * len(fake) + 64
        assert any(data.find(b"GCOL\x01\0\0\0", start, end) >= 0 for start, end in gaps)
    stop = data.rfind(b"GCOL\x01\0\0\0")
    (tmp_path / "b.h5").write_bytes(data[: stop + 16] + bytes(16) + data[stop + 32 :])
    with h5py.File(tmp_path / "b.h5") as file, pytest.raises(ValueError, match=f"at byte {stop:,} is damaged"):
        check_global_heaps(file, tmp_path / "b.h5")
