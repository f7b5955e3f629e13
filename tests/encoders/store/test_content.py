"""Changed pixels, labels and columns are found before a number is computed from them, and what was verified is not read again."""

import os
from itertools import pairwise

import h5py
import numpy as np
import pytest

from encoders.cli.verify import verify_store
from encoders.doctor.checks import examine_store
from encoders.runtime.errors import InputError
from encoders.store import verified
from encoders.store.content import count_without_hash, find_damaged_images
from encoders.store.store import Store
from encoders.store.verified import require_intact
from encoders.store.write import PieceHasher
from tests.encoders.store.test_layout import IMAGES, jpeg, raw  # noqa: F401, fixtures


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOGRAFT_CACHE", str(tmp_path / "cache"))


def change_pixel(path, image):
    """Changes one bit of an image in the file, as a bad disk does; size, columns and attributes stay."""
    store = Store.open(path)
    part = store.parts[0]
    at = int(part.offsets[image]) + 150 if part.codec == "raw" else int(part.offsets[image + 1]) - 20  # of a JPEG: behind its header
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 4]))


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
def test_one_changed_bit_is_found_and_named(kind, request, capsys):
    path = request.getfixturevalue(kind)
    assert verify_store(path, False)
    assert require_intact(Store.open(path)) == 0, "verified by the command"
    change_pixel(path, 3)
    store = Store.open(path)
    assert [found.key for found in find_damaged_images(store, range(6)) if found] == ["000003"]
    with pytest.raises(InputError, match=f"{path}: the image 000003 was changed.*encoders verify"):
        require_intact(store)
    assert not verify_store(path, False)
    assert "000003: FAILED" in capsys.readouterr().out
    report = examine_store(store, near=False, seconds=0, floor=False)
    assert report["content"]["damaged"] == ["000003"]
    assert "changed images" in {finding["finding"] for finding in report["findings"]}


@pytest.mark.parametrize("what", ["label", "patient", "unit", "class names", "age"])
def test_changed_columns_are_found_unless_they_are_accepted(raw, what):  # noqa: F811
    assert require_intact(Store.open(raw)) == 6
    with h5py.File(raw, "r+") as file:
        if what == "label":
            file["labels/y"][0] = 1
        elif what == "patient":
            file["index/patient"][0] = b"000001"
        elif what == "age":
            file["meta/age"][5] = 70
        elif what == "unit":
            file.attrs["unit"] = file.attrs["unit"].replace("255.0", "254.0")
        else:
            file["labels/y"].attrs["classes"] = '["a", "b"]'
    with pytest.raises(InputError, match="not those that were written.*--accept-columns"):
        require_intact(Store.open(raw))
    assert not verify_store(raw, False)
    assert verify_store(raw, True)
    assert require_intact(Store.open(raw)) == 0


def test_what_was_verified_is_read_once_per_version_of_the_file(raw, monkeypatch):  # noqa: F811
    monkeypatch.setattr(verified, "VERIFIED_IMAGES", 2)
    store = Store.open(raw)
    assert require_intact(store) == 2
    assert require_intact(store) == 0
    assert 1 <= require_intact(store, range(3)) <= 3
    assert require_intact(store, range(3)) == 0
    assert require_intact(store, range(6)) + 3 <= 6
    os.utime(raw, ns=(1, 1))  # touched: it may be another file
    assert require_intact(Store.open(raw), range(6)) == 6


def test_a_store_replaced_under_its_name_has_features_of_its_own(raw):  # noqa: F811
    before, facts = Store.open(raw).fingerprint, raw.stat()
    from encoders.store.write import save_store

    save_store(raw, IMAGES[::-1], labels={"y": [0, 1, 0, 1, 0, 1]}, meta={"age": [1, 2, 3, 4, 5, None]})
    os.utime(raw, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert Store.open(raw).fingerprint != before
    assert require_intact(Store.open(raw)) == 6


def test_jpegs_of_another_quality_are_other_pixels(jpeg, tmp_path):  # noqa: F811
    import io

    from PIL import Image

    from encoders.store.write import write_jpeg_store

    store, blobs = Store.open(jpeg), []
    for image in IMAGES:
        out = io.BytesIO()
        Image.fromarray(image[..., 0]).save(out, "JPEG", quality=30)
        blobs.append(out.getvalue())
    index = {name: store.column(name) for name in ("key", "patient", "sha256")}
    write_jpeg_store(tmp_path / "b.h5", blobs, [len(b) for b in blobs], store.attrs, index)
    assert Store.open(tmp_path / "b.h5").fingerprint != store.fingerprint
    assert Store.open(tmp_path / "b.h5").attrs["fingerprint"] == store.attrs["fingerprint"]


def test_stores_of_earlier_versions_are_read_and_said_to_have_no_hashes(jpeg, raw, capsys):  # noqa: F811
    import hashlib

    fingerprint = Store.open(jpeg).attrs["fingerprint"]
    with h5py.File(jpeg, "r+") as file:
        del file["encoded_sha256"], file.attrs["encoded_fingerprint"], file.attrs["metadata_sha256"]
    with h5py.File(raw, "r+") as file:
        del file.attrs["metadata_sha256"]
    store = Store.open(jpeg)
    assert store.fingerprint == hashlib.sha256(f"{fingerprint} jpeg".encode()).hexdigest(), "as earlier versions computed it"
    assert count_without_hash(store) == 6
    assert verify_store(jpeg, False)
    assert verify_store(raw, False)
    out = capsys.readouterr().out
    assert "6 JPEGs of an earlier version were only decoded" in out
    assert "no digest" in out
    with jpeg.open("r+b") as file:
        file.seek(int(store.parts[0].offsets[2]))
        file.write(b"not a JPEG")
    with pytest.raises(InputError, match="000002 was changed: its JPEG cannot be decoded"):
        require_intact(Store.open(jpeg))
    with pytest.raises(InputError, match="the JPEG of 000002 cannot be decoded"):
        Store.open(jpeg).image(2)


@pytest.mark.parametrize("parts", [[1], [3, 50, 1], [1000], [7, 7]])
def test_pieces_of_a_stream_are_hashed_wherever_its_parts_end(parts):
    import hashlib

    sizes, data = [1, 4, 30, 2], bytes(range(37))
    hasher, at, i = PieceHasher(sizes), 0, 0
    while at < len(data):
        step = parts[i % len(parts)]
        hasher.update(data[at : at + step])
        at, i = at + step, i + 1
    ends = np.cumsum([0, *sizes])
    assert hasher.digests == [hashlib.sha256(data[a:b]).digest() for a, b in pairwise(ends)]
