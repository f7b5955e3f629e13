"""Arrays in HDF5 become a store with the same images, read one at a time."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from encoders.ingest.hdf5 import Hdf5Source, chunk_cache_bytes, guess_layout
from encoders.ingest.shards import ingest
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from tests.encoders.ingest.array_files import random_images, write_clam, write_pcam


def ingest_arrays(tmp_path, *paths, **options):
    ingest(Hdf5Source(paths, **options), tmp_path / "out" / "store.h5")
    return Store.open(tmp_path / "out" / "store.h5")


def write_arrays(path, **arrays):
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


def test_pcam_keeps_images_and_labels(tmp_path):
    x_file, y_file, x, y = write_pcam(tmp_path)
    store = ingest_arrays(tmp_path, x_file, images="x", labels="y", labels_path=y_file, dataset="pcam")
    np.testing.assert_array_equal(store.images(np.arange(40)), x)
    np.testing.assert_array_equal(store.labels("y"), y)
    assert (store.dataset, store.modality, store.dtype) == ("pcam", "histology", np.uint8)


def test_clam_slides_keep_their_positions(tmp_path):
    one, places = write_clam(tmp_path / "patches" / "slide_1.h5", seed=1)
    two, _ = write_clam(tmp_path / "patches" / "slide_2.h5", n=4, seed=2)
    store = ingest_arrays(tmp_path, *sorted((tmp_path / "patches").glob("*.h5")), images="imgs", coords="coords")
    np.testing.assert_array_equal(store.images(np.arange(13)), np.concatenate([one, two]))
    assert store.column("slide").tolist() == store.column("patient").tolist() == ["slide_1"] * 9 + ["slide_2"] * 4
    np.testing.assert_array_equal(store.column("x")[:9], places[:, 0])
    assert store.dataset == "patches"


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, ">u2", np.float32])
@pytest.mark.parametrize("channels", [0, 1, 3])
def test_every_shape_and_depth_keeps_its_values(tmp_path, dtype, channels):
    values = random_images(6, 20, channels, np.dtype(dtype).newbyteorder("="), seed=3)
    path = write_arrays(tmp_path / "a.h5", images=values.astype(dtype))
    store = ingest_arrays(tmp_path, path, images="images")
    want = values.reshape(6, 20, 20, channels or 1)
    full = {"u": np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1, "f": 1}[values.dtype.kind]
    np.testing.assert_allclose(store.to_unit(store.images(np.arange(6))), want / full, atol=1e-5)


def test_channels_first_is_detected_and_transposed(tmp_path):
    values = random_images(5, 24, 3)
    path = write_arrays(tmp_path / "a.h5", images=values.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(ingest_arrays(tmp_path, path, images="images").images(np.arange(5)), values)
    assert guess_layout((5, 1, 24, 24), "x") == "NCHW"


@pytest.mark.parametrize("shape", [(5, 3, 24, 3), (5, 7, 24, 24)])
def test_an_ambiguous_layout_raises(tmp_path, shape):
    path = write_arrays(tmp_path / "a.h5", images=np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match="--layout"):
        Hdf5Source([path], "images")
    if shape[3] == 3:
        assert Hdf5Source([path], "images", layout="NHWC").lengths == [5]


def test_numbers_text_and_several_columns_become_labels(tmp_path):
    values = random_images(4, 20, 1)
    names = np.array([b"tumor", b"normal", b"tumor", b"stroma"])
    many = np.array([[0, 1], [1, 0], [np.nan, 1], [0, 0]], np.float32)
    path = write_arrays(tmp_path / "a.h5", images=values, names=names, many=many, who=np.array([b"p1", b"p1", b"p2", b"p3"]))
    store = ingest_arrays(tmp_path, path, images="images", labels="many", label_names=("mass", "fluid"), patients="who")
    np.testing.assert_array_equal(store.labels("mass"), many[:, 0])
    assert store.column("patient").tolist() == ["p1", "p1", "p2", "p3"]
    text = ingest_arrays(tmp_path / "b", path, images="images", labels="names")
    assert np.array(text.classes("names"))[text.labels("names").astype(int)].tolist() == [n.decode() for n in names]


def test_floats_outside_the_unit_range_are_quarantined_without_a_range(tmp_path):
    values = random_images(4, 20, 1, np.float32)
    values[2] *= 300
    path = write_arrays(tmp_path / "a.h5", images=values)
    summary = ingest(Hdf5Source([path], "images"), tmp_path / "a_store.h5")
    assert [(name, "--range" in why) for name, why in summary.quarantined] == [("a/000002", True)]
    wide = ingest_arrays(tmp_path, path, images="images", limits=(0.0, 300.0))
    np.testing.assert_allclose(wide.to_unit(wide.images([2]))[0], values[2] / 300, atol=1e-5)


def test_wide_integers_need_a_range(tmp_path):
    path = write_arrays(tmp_path / "a.h5", images=np.linspace(-1000, 2000, 800).astype(np.int32).reshape(2, 20, 20))
    with pytest.raises(InputError, match="--range"):
        Hdf5Source([path], "images")
    store = ingest_arrays(tmp_path, path, images="images", limits=(-1000.0, 1000.0))
    assert store.images([0]).min() == 0
    assert "-1000" in store.attrs["unit"]["meaning"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": "image"}, "did you mean images"),
        ({"images": "images", "labels": "short"}, "has 3 rows"),
        ({"images": "flat"}, "has shape"),
        ({"images": "images", "labels": "many", "label_names": ("one",)}, "2 columns"),
    ],
)
def test_wrong_keys_and_lengths_raise(tmp_path, options, message):
    path = write_arrays(tmp_path / "a.h5", images=random_images(4, 20, 1), short=np.zeros(3), flat=np.zeros((4, 9)), many=np.zeros((4, 2)))
    with pytest.raises(InputError, match=message):
        Hdf5Source([path], **options)


def test_a_missing_or_unreadable_file_raises(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        Hdf5Source([tmp_path / "a.h5"], "images")
    (tmp_path / "a.h5").write_bytes(b"gzip, not hdf5" * 100)
    with pytest.raises(InputError, match="not a readable HDF5"):
        Hdf5Source([tmp_path / "a.h5"], "images")


def test_the_cache_holds_the_chunks_of_one_image(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        tall = file.create_dataset("tall", (100, 64, 64, 3), np.uint8, chunks=(50, 16, 64, 3))
        plain = file.create_dataset("plain", (100, 64, 64, 3), np.uint8)
        assert chunk_cache_bytes(tall) >= 4 * 50 * 16 * 64 * 3
        assert chunk_cache_bytes(plain) == 1 << 20


def test_memory_stays_far_below_the_size_of_the_array(tmp_path):
    """A compressed array of 240 MB is read image by image in a fresh process, which must not grow by a quarter of that."""
    path = tmp_path / "big.h5"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("x", (20_000, 64, 64, 3), np.uint8, chunks=(100, 64, 64, 3), compression="gzip", compression_opts=1)
        data[:100] = random_images(100, 64)
    code = f"""
import resource
from encoders.ingest.hdf5 import Hdf5Source
source = Hdf5Source([{str(path)!r}], "x")
source.read((0, 0))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
total = sum(int(source.read(item).image[0, 0, 0]) for item in source.items())
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    grown = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    assert grown < 60
