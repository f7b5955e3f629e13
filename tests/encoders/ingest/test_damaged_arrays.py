"""Images of an array whose checksum is wrong are quarantined, those of the other arrays stored; on request all are, and counted."""

import zipfile

import h5py
import numpy as np
import pytest

from encoders.ingest.hdf5 import Hdf5Source
from encoders.ingest.medmnist.source import MedMNISTSource
from encoders.ingest.shards import ingest
from encoders.store.store import Store

N = 12  # an archive's members of less than 4 kB are verified with their header
IMAGES = np.random.default_rng(0).integers(0, 256, (N, 28, 28), np.uint8)


def write_archive(path, packed, findings=1):
    arrays = {}
    for k, split in enumerate(("train", "val", "test")):
        arrays |= {f"{split}_images": IMAGES + np.uint8(k), f"{split}_labels": np.arange(N * findings).reshape(N, findings) % 2}
    (np.savez_compressed if packed else np.savez)(path, **arrays)
    return path


def damage_member(path, member, share):
    """Flips a bit of a member's content, at this share of it."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    data = bytearray(path.read_bytes())
    data[info.header_offset + 60 + len(member) + int(share * info.compress_size)] ^= 4
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("packed", [False, True])
def test_images_of_a_damaged_member_are_quarantined_or_accepted(tmp_path, packed):
    path = write_archive(tmp_path / "pneumoniamnist.npz", packed)
    damage_member(path, "val_images.npy", 0.6)
    summary = ingest(MedMNISTSource(path, tmp_path / "spool"), tmp_path / "a.h5")
    assert [key for key, _ in summary.quarantined] == [f"val/{i:06d}" for i in range(N)]
    assert all("the array val_images is damaged: " in why and "--accept-damaged" in why for _, why in summary.quarantined)
    assert packed or all("Bad CRC-32 for file 'val_images.npy'" in why for _, why in summary.quarantined)
    np.testing.assert_array_equal(Store.open(tmp_path / "a.h5").images(range(N, 2 * N))[..., 0], IMAGES + np.uint8(2))

    accepted = ingest(MedMNISTSource(path, tmp_path / "spool2", accept_damaged=True), tmp_path / "b.h5")
    store = Store.open(tmp_path / "b.h5")
    assert accepted.rows + len(accepted.quarantined) == 3 * N  # an image after the damage may be black
    damaged = store.column("damage") != ""
    np.testing.assert_array_equal(damaged, store.column("split") == "val")
    assert any(f"{damaged.sum()} images: damaged, and stored as decoded" in note for note in accepted.notes)
    np.testing.assert_array_equal(store.images([N])[0, ..., 0], IMAGES[0] + np.uint8(1))  # the first stands before the damage


def test_damaged_labels_are_never_accepted(tmp_path):
    path = write_archive(tmp_path / "other.npz", False, findings=60)
    damage_member(path, "train_labels.npy", 0.5)
    summary = ingest(MedMNISTSource(path, tmp_path / "spool", modality="cxr", accept_damaged=True), tmp_path / "a.h5")
    assert [key for key, _ in summary.quarantined] == [f"train/{i:06d}" for i in range(N)]
    assert summary.rows == 2 * N


@pytest.mark.parametrize(
    "filters", [{"fletcher32": True}, {"compression": "gzip"}, {"compression": "gzip", "shuffle": True, "fletcher32": True}]
)
def test_images_of_a_damaged_chunk_are_quarantined_or_accepted(tmp_path, filters):
    deep = IMAGES.astype(np.uint16) * 3 + 1
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=deep, chunks=(1, 20, 28), **filters)
        chunk = file["x"].id.get_chunk_info_by_coord((2, 20, 0))
    data = bytearray((tmp_path / "a.h5").read_bytes())
    data[chunk.byte_offset + chunk.size // 4] ^= 16
    (tmp_path / "a.h5").write_bytes(bytes(data))
    summary = ingest(Hdf5Source([tmp_path / "a.h5"], "x"), tmp_path / "o.h5")
    assert [key for key, _ in summary.quarantined] == ["a/000002"]
    assert "'x' cannot be read" in summary.quarantined[0][1]
    accepted = ingest(Hdf5Source([tmp_path / "a.h5"], "x", accept_damaged=True), tmp_path / "p.h5")
    assert (accepted.rows, accepted.quarantined) == (N, [])
    images, damage = Store.open(tmp_path / "p.h5").images(range(N))[..., 0], Store.open(tmp_path / "p.h5").column("damage")
    assert np.flatnonzero(damage != "").tolist() == [2]
    np.testing.assert_array_equal(np.delete(images, 2, 0), np.delete(deep, 2, 0))
    np.testing.assert_array_equal(images[2, :20], deep[2, :20])  # of a whole chunk
    same = (images[2, 20:] == deep[2, 20:]).mean()
    assert 0.05 < same < 1
