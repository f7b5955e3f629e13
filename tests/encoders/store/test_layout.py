"""A store file is read as it is or refused: every change of storage, attributes and columns that the reader relies on is found."""

import io

import h5py
import numpy as np
import pytest
from PIL import Image

from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.store.write import save_store, write_jpeg_store

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 16, 18, 1), dtype=np.uint8)
SHAPE = IMAGES.shape


@pytest.fixture
def raw(tmp_path):
    return save_store(tmp_path / "raw.h5", IMAGES, labels={"y": [0, 1, 0, 1, 0, 1]}, meta={"age": [1, 2, 3, 4, 5, None]})


@pytest.fixture
def jpeg(tmp_path, raw):
    store, blobs = Store.open(raw), []
    for image in IMAGES:
        out = io.BytesIO()
        Image.fromarray(image[..., 0]).save(out, "JPEG")
        blobs.append(out.getvalue())
    index = {name: store.column(name) for name in ("key", "patient", "sha256", "phash")}
    write_jpeg_store(tmp_path / "jpeg.h5", blobs, [len(b) for b in blobs], store.attrs | {"codec": "jpeg"}, index)
    return tmp_path / "jpeg.h5"


def replace(path, name, data=None, **how):
    """Stores a dataset again in another way."""
    with h5py.File(path, "r+") as file:
        values = file[name][:] if data is None else data
        del file[name]
        file.create_dataset(name, data=values, **how)


def refusal(path):
    with pytest.raises(InputError) as error:
        Store.open(path)
    assert str(path) in str(error.value)
    return str(error.value)


ONE = (1, *SHAPE[1:])


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"chunks": ONE, "compression": "gzip"}, "gzip.*h5repack -f images:NONE"),
        ({"chunks": ONE, "compression": "lzf"}, "lzf"),
        ({"chunks": ONE, "shuffle": True}, "shuffle"),
        ({"chunks": ONE, "fletcher32": True}, "fletcher32"),
        ({"chunks": ONE, "scaleoffset": 0}, "scaleoffset"),
        ({"chunks": ONE, "compression": "gzip", "shuffle": True}, "shuffle, gzip"),
        ({"chunks": (2, *SHAPE[1:])}, r"chunks of \(2, 16, 18, 1\)"),
        ({"chunks": (1, 8, 18, 1)}, "one image per chunk"),
        ({}, "one piece"),
        ({"data": IMAGES[..., 0], "chunks": (1, 16, 18)}, r"\(6, 16, 18\) of uint8"),
        ({"data": IMAGES.astype(np.int32), "chunks": ONE}, "of int32"),
        ({"data": IMAGES.astype(np.float64), "chunks": ONE}, "of float64"),
        ({"data": np.repeat(IMAGES, 3, axis=3), "chunks": (1, 16, 18, 3)}, "channels is 1 and its images have 3"),
        ({"data": IMAGES[:5], "chunks": ONE}, "5 images and 6 keys"),
        ({"data": IMAGES[:0], "chunks": ONE, "maxshape": (None, 16, 18, 1)}, "0 images and 6 keys"),
    ],
)
def test_pixels_that_are_stored_otherwise_are_refused(raw, how, words):
    replace(raw, "images", **how)
    import re

    assert re.search(words, refusal(raw))


def test_pixels_that_were_never_written_or_lie_elsewhere_are_refused(raw, tmp_path):
    with h5py.File(raw, "r+") as file:
        del file["images"]
        file.create_dataset("images", SHAPE, np.uint8, chunks=ONE)[:4] = IMAGES[:4]
    assert "lacks the pixels of 2 images" in refusal(raw)
    save_store(tmp_path / "source.h5", IMAGES)
    with h5py.File(raw, "r+") as file:
        del file["images"]
        layout = h5py.VirtualLayout(SHAPE, np.uint8)
        layout[:] = h5py.VirtualSource(tmp_path / "source.h5", "images", SHAPE)
        file.create_virtual_dataset("images", layout)
    assert "virtual" in refusal(raw)


def test_pixels_of_the_other_byte_order_are_read_right(tmp_path):
    wide = IMAGES.astype(np.uint16) * 200
    path = save_store(tmp_path / "wide.h5", wide)
    replace(path, "images", wide.astype(">u2"), chunks=ONE)
    np.testing.assert_array_equal(Store.open(path).images(range(6)), wide)


@pytest.mark.parametrize(
    ("name", "data", "how", "words"),
    [
        ("blob", None, {"chunks": (64,)}, "one piece"),
        ("blob", None, {"chunks": (64,), "compression": "gzip"}, "gzip"),
        ("blob", np.zeros(10, np.int32), {}, "int32"),
        ("offsets", lambda o: o[:-1], {}, "does not rise"),
        ("offsets", lambda o: o + 3, {}, "does not rise"),
        ("offsets", lambda o: np.r_[o[:2], o[1], o[3:]], {}, "does not rise"),
        ("offsets", lambda o: np.r_[o[:3], o[2] - 9, o[4:]], {}, "does not rise"),
        ("offsets", lambda o: o.astype(np.float64), {}, "integers"),
        ("offsets", lambda o: np.r_[o, o[-1]], {}, "does not rise"),
        ("offsets", lambda o: np.r_[o[:3], o[4:]], {}, "5 images and 6 keys"),
        ("encoded_sha256", lambda d: d[::-1], {}, "encoded_fingerprint"),
        ("encoded_sha256", lambda d: d[:-1], {}, "encoded_fingerprint"),
    ],
)
def test_jpegs_that_are_stored_otherwise_are_refused(jpeg, name, data, how, words):
    if callable(data):
        with h5py.File(jpeg) as file:
            data = data(file[name][:])
    replace(jpeg, name, data, **how)
    assert words in refusal(jpeg)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("codec", "png"),
        ("channels", 2),
        ("channels", "1"),
        ("modality", 3),
        ("dataset", np.zeros(2)),
        ("fingerprint", "0" * 63),
        ("fingerprint", "g" * 64),
        ("unit", '{"scale": 0.0, "offset": 0.0}'),
        ("unit", '{"scale": NaN, "offset": 0.0}'),
        ("unit", '{"scale": "255", "offset": 0.0}'),
        ("unit", '{"offset": 0.0}'),
        ("unit", "[1, 2]"),
        ("unit", '{"scale": 255.0,'),
        ("geometry", "[]x"),
        ("geometry", '"none"'),
        ("version", 2),
        ("format", "other"),
    ],
)
def test_attributes_that_no_store_has_are_refused(raw, name, value):
    with h5py.File(raw, "r+") as file:
        file.attrs[name] = value
    refusal(raw)


@pytest.mark.parametrize("name", ["codec", "channels", "modality", "dataset", "fingerprint", "unit"])
def test_a_missing_attribute_is_named(raw, name):
    with h5py.File(raw, "r+") as file:
        del file.attrs[name]
    assert name in refusal(raw)


@pytest.mark.parametrize("name", ["index/key", "index/patient", "index/sha256", "index/phash", "meta/age", "labels/y"])
def test_a_column_of_another_length_is_refused(raw, name):
    with h5py.File(raw, "r+") as file:
        values = file[name][:]
        del file[name]
        file[name] = values[:-1]
    assert "for 6 images" in refusal(raw) or "for 5 images" in refusal(raw) or "6 images and 5 keys" in refusal(raw)


def test_a_changed_hash_and_a_changed_fingerprint_are_found(raw):
    with h5py.File(raw, "r+") as file:
        first, fingerprint = file["index/sha256"][0], file.attrs["fingerprint"]
        file["index/sha256"][0] = b"0" * 64
    assert "fingerprint" in refusal(raw)
    with h5py.File(raw, "r+") as file:
        file["index/sha256"][0] = first
        file.attrs["fingerprint"] = fingerprint[::-1]
    assert "fingerprint" in refusal(raw)


def test_text_that_is_not_utf8_is_one_sentence(raw):
    with h5py.File(raw, "r+") as file:
        file["index/key"][2] = b"\xff\xfe"
    store = Store.open(raw)
    with pytest.raises(InputError, match=r"raw\.h5 is not a readable store: damaged \(UnicodeDecodeError.*index/key"):
        store.column("key")


@pytest.mark.parametrize("name", ["codec", "version", "fingerprint", "unit"])
def test_a_long_value_makes_no_long_sentence(raw, name):
    with h5py.File(raw, "r+") as file:
        file.attrs[name] = '"' + "x" * 9000 + '"'
    with pytest.raises(InputError, match=r"raw\.h5") as wrong:
        Store.open(raw)
    assert len(str(wrong.value)) < 500


@pytest.mark.parametrize("value", ["7", "true", "-1e999", "[1]", '"a"', '{"a": 1.5}', '{"a": true}', '{"a": -1}', '{"a": []}', "{", 3])
@pytest.mark.parametrize("column", ["index/patient", "meta/age", "labels/y"])
def test_counts_of_unknown_texts_that_are_none_are_one_sentence(raw, column, value):
    with h5py.File(raw, "r+") as file:
        file[column].attrs["unknown"] = value
    group, name = column.split("/")
    with pytest.raises(InputError, match=rf"raw\.h5 is not a readable store: .* in {column}; copy it again"):
        Store.open(raw).unknown_texts(name, [group])


def test_a_file_that_shrinks_after_opening_is_an_error_and_no_crash(raw):
    store = Store.open(raw)
    raw.write_bytes(raw.read_bytes()[:3000])
    with pytest.raises(InputError, match="cut off"):
        store.image(5)
    raw.unlink()
    with pytest.raises(InputError, match="cannot read"):
        Store.image(store, 5)
