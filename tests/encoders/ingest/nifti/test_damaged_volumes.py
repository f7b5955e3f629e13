"""A volume whose compressed data are damaged or end early is quarantined, or on request stored with what can be read."""

import csv
import gzip

import numpy as np
import pytest

from encoders.ingest.nifti.source import NiftiSource
from encoders.ingest.nifti.volume import DamagedVolume, read_voxels
from encoders.ingest.shards import ingest
from encoders.ingest.source import Unreadable
from encoders.store.store import Store
from tests.encoders.ingest.nifti.volume_files import head, save_volume


def test_a_wrong_checksum_is_found_although_every_voxel_was_read(tmp_path):
    path = save_volume(tmp_path / "v.nii.gz", head())
    data = path.read_bytes()
    whole = read_voxels(path)
    for wrong in (data[:-8] + bytes([data[-8] ^ 1]) + data[-7:], data[:-1] + b"\xff", data[:-4], data[:-8], data + b"garbage"):
        path.write_bytes(wrong)
        with pytest.raises(DamagedVolume, match="CRC|length|too early|gzip"):
            read_voxels(path)
        np.testing.assert_array_equal(read_voxels(path, repaired=True), whole)
    path.write_bytes(data + bytes(100))  # padding
    np.testing.assert_array_equal(read_voxels(path), whole)


def test_a_changed_byte_of_the_compressed_data_is_never_accepted(tmp_path):
    path = save_volume(tmp_path / "v.nii.gz", head())
    data, whole, rng = path.read_bytes(), read_voxels(path), np.random.default_rng(0)
    refused = 0
    for at in rng.integers(10, len(data), 60):
        changed = bytearray(data)
        changed[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(changed))
        try:
            np.testing.assert_array_equal(read_voxels(path), whole)
        except Unreadable:
            refused += 1
    assert refused > 55


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_a_truncated_volume_is_stored_on_request_with_zeros(tmp_path, name):
    values = head()
    for k in (0, 1):
        save_volume(tmp_path / "in" / f"{k}{name}", values)
    path = tmp_path / "in" / f"1{name}"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    summary = ingest(NiftiSource(tmp_path / "in", size=0), tmp_path / "a.h5")
    assert [item for item, _ in summary.quarantined] == [f"1{name}"]
    with (tmp_path / "a.h5.quarantine.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert "--accept-damaged" in row["reason"]
    assert "truncated" in row["reason"]
    assert row["traceback"] == ""
    accepted = ingest(NiftiSource(tmp_path / "in", size=0, accept_damaged=True), tmp_path / "b.h5")
    assert not accepted.quarantined
    store = Store.open(tmp_path / "b.h5")
    damage, volume = store.column("damage"), store.column("volume")
    np.testing.assert_array_equal(damage != "", volume == f"1{name}")
    assert any("damaged, and stored as decoded" in note for note in accepted.notes)
    voxels, want = read_voxels(path, repaired=True)[..., 0], read_voxels(tmp_path / "in" / f"0{name}")[..., 0]
    kept = voxels == want
    assert (voxels[~kept] != 0).sum() <= 1  # the last one may have lost some of its bytes
    assert 0.5 < kept.mean() < 1


def test_hardly_any_voxel_is_not_a_volume(tmp_path):
    path = save_volume(tmp_path / "v.nii.gz", head())
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:360]))
    with pytest.raises(Unreadable, match="8 of the 6,720 bytes"):
        read_voxels(path, repaired=True)
