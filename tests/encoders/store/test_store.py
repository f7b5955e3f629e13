"""The store reads back what was written, under every start method of workers, and its errors name what is wrong with a file."""

import io
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from encoders.runtime.errors import InputError
from encoders.store.part import decode_jpeg
from encoders.store.store import Store
from encoders.store.write import TextValues, encode_labels, pixel_fingerprint, save_store, to_typed_column, write_jpeg_store


def pictures(n=40, dtype=np.uint8, channels=1, seed=0, size=16):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (n, size, size + 2, channels), dtype=dtype)


def test_pixels_before_jpeg_and_after_it_have_two_fingerprints(tmp_path):
    """Features, records and runs identify a store by its fingerprint: that of JPEGs differs from that of the encoded pixels."""
    raw = Store.open(save_store(tmp_path / "r.h5", pictures(4)))
    with h5py.File(tmp_path / "r.h5") as file:
        index = {name: file["index"][name].asstr()[:] for name in ("key", "patient", "sha256")}
        attrs = raw.attrs | {"codec": "jpeg"}
    from PIL import Image

    blobs = []
    for image in pictures(4):
        out = io.BytesIO()
        Image.fromarray(image[..., 0]).save(out, "JPEG")
        blobs.append(out.getvalue())
    write_jpeg_store(tmp_path / "j.h5", blobs, [len(b) for b in blobs], attrs, index)
    jpeg = Store.open(tmp_path / "j.h5")
    assert jpeg.attrs["fingerprint"] == raw.attrs["fingerprint"] == raw.fingerprint
    assert jpeg.fingerprint != raw.fingerprint
    assert jpeg.datasets.tolist() == raw.datasets.tolist() == ["arrays"] * 4


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_come_back_as_they_went_in_and_as_hdf5_itself_reads_them(tmp_path, dtype, channels):
    images = pictures(dtype=dtype, channels=channels)
    store = Store.open(save_store(tmp_path / "a.h5", images))
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["images"][:], images)
        assert file["images"].chunks == (1, *images.shape[1:])
        assert file["images"].compression is None
    order = [7, 0, 39, 7]
    np.testing.assert_array_equal(store.images(order), images[order])
    np.testing.assert_array_equal(store.image(5), images[5])
    assert store.shape == images.shape[1:]
    assert store.dtype == dtype
    np.testing.assert_allclose(store.unit_images(order), images[order] / np.iinfo(dtype).max, atol=1e-7)
    np.testing.assert_array_equal(store.to_unit(store.images(order)), store.unit_images(order))


def test_the_same_content_gives_the_same_bytes(tmp_path):
    for name in "ab":
        save_store(tmp_path / name, pictures(), labels={"x": [0, 1] * 20}, meta={"site": ["ü", "abc"] * 20})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_columns_and_labels_keep_numbers_text_and_unknown_values(tmp_path):
    labels = {"code": ["sick", "well", "", "nan"], "grade": [2, None, 0.5, float("nan")], "never": ["", "", "", ""]}
    meta = {"age": ["40", "", "7.5", "61"], "site": ["007", "12", "", "é"]}
    store = Store.open(save_store(tmp_path / "a.h5", pictures(4), patient=["p", "q", "p", "r"], labels=labels, meta=meta))
    np.testing.assert_array_equal(store.labels("code"), np.float32([0, 1, np.nan, np.nan]))
    assert store.classes("code") == ["sick", "well"]
    np.testing.assert_array_equal(store.labels("grade"), np.float32([2, np.nan, 0.5, np.nan]))
    assert store.classes("grade") is None
    assert np.isnan(store.labels("never")).all()
    np.testing.assert_array_equal(store.column("age"), [40, np.nan, 7.5, 61])
    assert store.column("site").tolist() == ["007", "12", "", "é"]  # a leading zero is part of a name
    assert store.column("patient").tolist() == ["p", "q", "p", "r"]
    assert store.column("phash").shape == (4, 32)


def test_a_column_is_numeric_only_if_every_known_value_is_a_number():
    assert to_typed_column(["1", "2", ""]).dtype.kind == "f"
    assert to_typed_column(["1", "x", ""]).tolist() == ["1", "x", ""]
    assert to_typed_column(TextValues(["1", "2"])).tolist() == ["1", "2"]
    assert to_typed_column(["01", "2"]).tolist() == ["01", "2"]
    assert to_typed_column([".", "-"]).dtype.kind == "U"
    assert encode_labels(["True", "False"])[1] == ["False", "True"]


def test_several_files_are_one_store_and_each_keeps_its_own_unit(tmp_path):
    a, b = pictures(30, seed=1), pictures(20, np.uint16, seed=2)
    save_store(tmp_path / "a.h5", a, labels={"x": ["b", "c"] * 15}, dataset="one")
    save_store(
        tmp_path / "b.h5",
        b,
        labels={"x": ["a", "c"] * 10, "y": [1] * 20},
        dataset="two",
        unit={"scale": 4095.0, "offset": 5.0, "meaning": ""},
    )
    store = Store.open(str(tmp_path / "*.h5"))
    assert len(store) == 50
    assert store.dataset == "one+two"
    np.testing.assert_allclose(store.unit_images([3, 45]), [a[3] / 255, (b[15] - 5.0) / 4095], rtol=1e-6)
    np.testing.assert_array_equal(store.images([31, 49]), b[[1, 19]])
    with pytest.raises(InputError, match="uint16.*uint8"):
        store.images([0, 40])
    with pytest.raises(InputError, match="unit_images"):
        store.to_unit(a)
    assert store.classes("x") == ["a", "b", "c"]
    np.testing.assert_array_equal(store.labels("x")[[0, 1, 30, 31]], [1, 2, 0, 2])
    assert np.isnan(store.labels("y")[:30]).all()
    assert (store.labels("y")[30:] == 1).all()
    assert store.fingerprint != Store.open(tmp_path / "a.h5").fingerprint
    assert Store.open([tmp_path / "b.h5", tmp_path / "a.h5"]).fingerprint != store.fingerprint  # order is part of it


def test_gray_and_colour_files_together_have_three_channels(tmp_path):
    gray, colour = pictures(3), pictures(3, channels=3)
    store = Store.open([save_store(tmp_path / "a.h5", gray), save_store(tmp_path / "b.h5", colour)])
    assert store.shape is None
    np.testing.assert_array_equal(store.unit_images([1, 4]), np.float32([gray[1].repeat(3, axis=2), colour[1]]) / np.float32(255))


def test_a_jpeg_store_gives_pictures_of_any_size(tmp_path):
    from PIL import Image

    blobs = []
    for k, size in enumerate([(20, 30), (16, 16)]):
        Image.fromarray(np.full((*size, 3), 60 * k + 50, np.uint8)).save(tmp_path / "x.jpg", quality=90, subsampling=0)
        blobs.append((tmp_path / "x.jpg").read_bytes())
    index = {"key": ["a", "b"], "patient": ["a", "b"], "sha256": ["0" * 64] * 2, "phash": np.zeros((2, 32), np.uint8)}
    attrs = {"modality": "histology", "codec": "jpeg", "channels": 3, "dataset": "d", "geometry": {}, "recipe": {}}
    attrs["fingerprint"] = pixel_fingerprint(index["sha256"])
    attrs["unit"] = {"scale": 255.0, "offset": 0.0, "meaning": ""}
    write_jpeg_store(tmp_path / "a.h5", blobs, [len(b) for b in blobs], attrs, index)
    store = pickle.loads(pickle.dumps(Store.open(tmp_path / "a.h5")))
    assert [store.image(i).shape for i in (0, 1)] == [(20, 30, 3), (16, 16, 3)]
    np.testing.assert_allclose(store.image(1), 110, atol=1)
    np.testing.assert_allclose(store.unit_images([0]), 50 / 255, atol=0.005)
    with pytest.raises(InputError, match="differ in size"):
        store.unit_images([0, 1])


@pytest.mark.parametrize("subsampling", [0, 2])  # 4:4:4 is what we write
@pytest.mark.parametrize("channels", [1, 3])
def test_decoded_pixels_are_those_of_pillow(channels, subsampling):
    from PIL import Image

    image = Image.fromarray(pictures(1, channels=channels, size=48)[0].squeeze()).resize((250, 131))
    blob = io.BytesIO()
    image.save(blob, "JPEG", quality=90, subsampling=subsampling)
    want = Image.open(blob)
    np.testing.assert_array_equal(decode_jpeg(blob.getvalue(), 3), np.asarray(want.convert("RGB")))
    if channels == 1:
        np.testing.assert_array_equal(decode_jpeg(blob.getvalue(), 1), np.asarray(want)[..., None])


class Rows(Dataset):
    def __init__(self, store):
        self.store = store

    def __len__(self):
        return len(self.store)

    def __getitem__(self, i):
        return i, torch.from_numpy(self.store.unit_images([i])[0]), torch.utils.data.get_worker_info().id


@pytest.mark.parametrize(("workers", "context"), [(4, "fork"), pytest.param(2, "spawn", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker:UserWarning")
def test_the_right_pixels_arrive_through_several_workers(tmp_path, workers, context):
    images = pictures(64, np.uint16, size=8)
    save_store(tmp_path / "a.h5", images[:40])
    save_store(tmp_path / "b.h5", images[40:])
    store = Store.open([tmp_path / "a.h5", tmp_path / "b.h5"])
    store.image(0)  # the parent has mapped the file already: the difficult case for fork
    seen, used = {}, set()
    for index, batch, worker in DataLoader(Rows(store), 4, shuffle=True, num_workers=workers, multiprocessing_context=context):
        seen |= {int(i): row.numpy() for i, row in zip(index, batch, strict=True)}
        used |= set(worker.tolist())
    assert used == set(range(workers))
    assert sorted(seen) == list(range(64))
    np.testing.assert_array_equal(np.stack([seen[i] for i in range(64)]), images.astype(np.float32) / np.float32(65535))


def test_errors_name_what_is_wrong_with_a_file(tmp_path):
    good = save_store(tmp_path / "good.h5", pictures()).read_bytes()

    def message(where):
        with pytest.raises(InputError) as raised:
            Store.open(where)
        return str(raised.value)

    def changed(**attrs):
        path = tmp_path / "changed.h5"
        path.write_bytes(good)
        with h5py.File(path, "a") as file:
            file.attrs.update(attrs)
        return path

    def written(content):
        (tmp_path / "written.h5").write_bytes(content)
        return tmp_path / "written.h5"

    assert "no store at" in message(tmp_path / "none.h5")
    assert "no file matches" in message(tmp_path / "none*.h5")
    assert "cut off" in message(written(good[: len(good) // 2]))
    assert "not a readable store" in message(written(b"hello"))
    assert "not a readable store" in message(written(b""))
    assert "version '2'" in message(changed(version=2))
    assert "not a store" in message(changed(format="other"))
    assert "gzip" in message(changed(codec="gzip"))
    assert "twice" in message([tmp_path / "good.h5", tmp_path / "good.h5"])
    assert "folder" in message(tmp_path).lower() or "directory" in message(tmp_path).lower()
    store = Store.open(tmp_path / "good.h5")
    with pytest.raises(InputError, match="did you mean patient"):
        store.column("patientt")
    with pytest.raises(InputError, match="no label called"):
        store.labels("x")
    with pytest.raises(IndexError):
        store.image(40)
    with pytest.raises(IndexError):
        store.unit_images([-1])


def test_a_key_that_occurs_twice_is_refused_and_nothing_is_left(tmp_path):
    from encoders.store.write import write_store

    index = {"key": ["a", "a"], "patient": ["a", "b"], "sha256": ["0" * 64] * 2, "phash": np.zeros((2, 32), np.uint8)}
    with pytest.raises(InputError, match="'a' occurs twice"):
        write_store(tmp_path / "a.h5", iter(pictures(2)), (16, 18, 1), np.uint8, {}, index)
    assert not list(Path(tmp_path).iterdir())


@pytest.mark.parametrize("name", ["Nodule/Mass", "AP/PA", "a/b/c", "100%", "Frontal/Lateral view"])
def test_a_column_name_with_a_slash_is_one_column(tmp_path, name):
    images = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 1), dtype=np.uint8)
    path = save_store(
        tmp_path / "a.h5", images, labels={name: ["x", "y", "", "y"], "other": [1, 0, 1, 0]}, meta={name + " of": [1, 2, 3, 4]}
    )
    store = Store.open(path)
    assert store.label_names() == sorted([name, "other"])
    assert store.classes(name) == ["x", "y"]
    np.testing.assert_array_equal(store.labels(name), [0, 1, np.nan, 1])
    assert store.column(name + " of").tolist() == [1, 2, 3, 4]
    assert store.unknown_texts(name, ("labels",)) == {"": 1}


def test_a_store_of_an_earlier_version_with_nested_columns_is_read_under_the_same_names(tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (2, 8, 8, 1), dtype=np.uint8)
    path = save_store(tmp_path / "a.h5", images, labels={"other": [1, 0]})
    with h5py.File(path, "r+") as file:
        file["labels"]["Nodule/Mass"] = np.array([0, 1], np.float32)
    store = Store.open(path)
    assert store.label_names() == ["Nodule/Mass", "other"]
    assert store.labels("Nodule/Mass").tolist() == [0, 1]
