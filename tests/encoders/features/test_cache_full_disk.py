"""A disk that becomes full while features are cached: one sentence, not a signal."""

import numpy as np
import pytest

from encoders.features.embed import _fill_file
from encoders.runtime.files import atomic_write
from encoders.runtime.storage_errors import StorageError
from tests.full_disk import fill, small_disk


def _batches(rows):
    rng = np.random.default_rng(0)
    for start in range(0, rows, 64):
        yield rng.random((min(64, rows - start), 100), np.float32)


def test_a_cache_that_does_not_fit_is_one_sentence_and_leaves_no_file(tmp_path):
    with small_disk(tmp_path / "disk", 256) as disk:
        fill(disk, leave_kib=100)
        with (
            pytest.raises(StorageError, match=f"no space left on {disk}: features.npy was not saved"),
            atomic_write(disk / "features.npy") as part,
        ):
            _fill_file(part, _batches(500), 500)
        assert sorted(path.name for path in disk.iterdir()) == ["filler"]


def test_a_cache_file_is_that_of_numpy(tmp_path):
    _fill_file(tmp_path / "features.npy", _batches(150), 150)
    want = np.concatenate(list(_batches(150)))
    assert np.array_equal(np.load(tmp_path / "features.npy"), want)
    np.save(tmp_path / "want.npy", want)
    assert (tmp_path / "features.npy").read_bytes() == (tmp_path / "want.npy").read_bytes()
