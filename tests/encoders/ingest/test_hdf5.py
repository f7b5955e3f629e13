"""Arrays in HDF5 become a store with the same images, read one at a time."""

import subprocess
import sys

import h5py
import numpy as np
import pytest

from encoders.ingest.hdf5 import Hdf5Source, guess_layout
from encoders.ingest.hdf5_fields import TableOptions
from encoders.ingest.hdf5_reading import chunk_cache_bytes, find_dataset
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
        for first in range(100, len(data), 100):
            data[first] = 0  # writes its chunk
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


# --- patients and slides from paths and tables


def write_bag(path, level_of_coords=None, level_of_images=None, seed=0, side=64):
    """A file of CLAM of 3 tiles, with the attributes of its coordinates or of its images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        file["imgs"] = random_images(3, side, seed=seed)
        file["coords"] = np.array([(0, 0), (64, 0), (128, 64)])
        for name, level in (("coords", level_of_coords), ("imgs", level_of_images)):
            if level is not None:
                file[name].attrs.update({"patch_level": level, "downsample": (4.0**level,) * 2})
    return path


@pytest.mark.parametrize(("bag", "side", "factor"), [
    ({"level_of_coords": 1}, 256, 1), ({"level_of_images": 1}, 256, 4), ({"level_of_coords": 0}, 64, 1), ({}, None, 1),
])  # fmt: skip
def test_the_side_of_tiles_of_clam_at_level_0_is_right_or_absent(tmp_path, bag, side, factor):
    import encoders
    from encoders.features.embed_slides import write_all_slide_features

    store = ingest_arrays(tmp_path, write_bag(tmp_path / "p" / "s.h5", **bag), images="imgs", coords="coords", size=32)
    assert list(zip(store.column("x"), store.column("y"), strict=True)) == [(0, 0), (64 * factor, 0), (128 * factor, 64 * factor)]
    write_all_slide_features(encoders.load("random_resnet10t:size=32"), store, tmp_path / "f")
    with h5py.File(tmp_path / "f" / "s.h5") as file:
        assert file.attrs.get("patch_size_level0") == file["coords"].attrs.get("patch_size_level0") == side
        assert file.attrs["patch_size"] == 32


def test_bags_of_several_levels_keep_the_side_of_each(tmp_path):
    files = [write_bag(tmp_path / "p" / f"{name}.h5", seed=k, **bag) for k, (name, bag) in enumerate(
        {"a": {"level_of_coords": 1}, "b": {"level_of_coords": 0}, "c": {}}.items())]  # fmt: skip
    store = ingest_arrays(tmp_path, *files, images="imgs", coords="coords")
    sides = dict(zip(store.column("slide"), store.column("patch_size_level0"), strict=True))
    assert (sides["a"], sides["b"]) == (256, 64)
    assert np.isnan(sides["c"])


def clam_files(tmp_path, names=("TCGA-AA-0001-01Z", "TCGA-AA-0001-02Z", "TCGA-BB-0002-01Z")):
    for k, name in enumerate(names):
        write_clam(tmp_path / "patches" / f"{name}.h5", n=3, seed=k)
    return sorted((tmp_path / "patches").glob("*.h5"))


def test_a_pattern_names_the_patient_of_every_slide(tmp_path):
    options = TableOptions(pattern=r"(?P<patient>TCGA-..-....)")
    store = ingest_arrays(tmp_path, *clam_files(tmp_path), images="imgs", coords="coords", table=options)
    assert store.column("patient").tolist() == ["TCGA-AA-0001"] * 6 + ["TCGA-BB-0002"] * 3
    assert store.column("slide").tolist()[::3] == ["TCGA-AA-0001-01Z", "TCGA-AA-0001-02Z", "TCGA-BB-0002-01Z"]
    assert store.attrs["recipe"]["pattern"] == options.pattern
    source = Hdf5Source(clam_files(tmp_path), "imgs", table=TableOptions(pattern=r"(?P<patient>TCGA-AA-....)"))
    assert len(source.items()) == 6
    assert source.left_out == {"no match of --pattern": 3}


@pytest.mark.parametrize("spelling", ["{}", "{}.h5", "{}.svs", "patches/{}.h5"])
def test_a_table_with_a_row_per_file_names_patient_slide_and_label(tmp_path, spelling):
    files = clam_files(tmp_path, ("s1", "s2", "s3", "s4"))
    rows = [("s1", "pA", "tumor"), ("s2", "pA", "normal"), ("s3", "N/A", "tumor")]
    lines = [f"{spelling.format(slide)},{case},{label},9" for slide, case, label in rows]
    (tmp_path / "t.csv").write_text("\n".join(["slide_id,case_id,label,age", *lines, "s9,pC,normal,1"]))
    source = Hdf5Source(files, "imgs", coords="coords", table=TableOptions(tmp_path / "t.csv"))
    ingest(source, tmp_path / "o.h5")
    store = Store.open(tmp_path / "o.h5")
    assert store.column("patient").tolist()[::3] == ["pA", "pA", "s3"]  # the slide stands for an unknown patient
    assert store.column("slide").tolist()[::3] == ["s1", "s2", "s3"]
    assert [store.classes("label")[int(v)] for v in store.labels("label")[::3]] == ["tumor", "normal", "tumor"]
    assert store.column("age").tolist() == [9] * 9
    assert source.left_out == {"no row in the table": 3}
    assert any("4 rows, 1 of them without a file" in note for note in source.notes)


def test_a_table_with_a_row_per_image_names_the_slide_of_every_image(tmp_path):
    x_file, y_file, _, y = write_pcam(tmp_path)
    lines = [f"{i},{bool(i % 2)},camelyon_{i // 8}" for i in range(40)]
    (tmp_path / "meta.csv").write_text("\n".join([",center_tumor_patch,wsi", *lines]))
    source = Hdf5Source([x_file], "x", "y", labels_path=y_file, table=TableOptions(tmp_path / "meta.csv"))
    ingest(source, tmp_path / "o.h5")
    store = Store.open(tmp_path / "o.h5")
    assert store.column("slide").tolist() == store.column("patient").tolist() == [f"camelyon_{i // 8}" for i in range(40)]
    np.testing.assert_array_equal(store.labels("y"), y)
    assert any("a row for each of the 40 images" in note for note in source.notes)


def test_wrong_tables_and_patterns_raise(tmp_path):
    files = clam_files(tmp_path)
    (tmp_path / "t.csv").write_text("slide_id,patient\nother,p\n")
    with pytest.raises(InputError, match="none of the 1 values"):
        Hdf5Source(files, "imgs", table=TableOptions(tmp_path / "t.csv"))
    (tmp_path / "t.csv").write_text("slide_id,patient\nTCGA-AA-0001-01Z,p\n")
    with pytest.raises(InputError, match="patient is in --pattern and in a column"):
        Hdf5Source(files, "imgs", table=TableOptions(tmp_path / "t.csv", pattern="(?P<patient>TCGA-..-....)"))
    (tmp_path / "l.csv").write_text("slide_id,label\nTCGA-AA-0001-01Z,a\n")
    with pytest.raises(InputError, match="label is in --pattern and in a column"):
        Hdf5Source(files, "imgs", table=TableOptions(tmp_path / "l.csv", pattern="(?P<label>TCGA)"))
    with pytest.raises(InputError, match="matches none of the 3 files"):
        Hdf5Source(files, "imgs", table=TableOptions(pattern="(?P<patient>GTEX.*)"))
    with pytest.raises(InputError, match="did you mean slide_id"):
        Hdf5Source(files, "imgs", table=TableOptions(tmp_path / "t.csv", {"slide": "slideid"}))


def test_the_command_takes_pattern_and_table(tmp_path):
    from typer.testing import CliRunner

    from encoders.cli.main import app

    clam_files(tmp_path)
    (tmp_path / "t.csv").write_text("slide,split,mutation\nTCGA-AA-0001-01Z,train,1\nTCGA-AA-0001-02Z,train,0\nTCGA-BB-0002-01Z,test,1\n")
    arguments = ["ingest", "hdf5", str(tmp_path / "patches" / "*.h5"), str(tmp_path / "o.h5"), "--images", "imgs", "--coords", "coords"]
    arguments += ["--pattern", "(?P<patient>TCGA-..-....)", "--table", str(tmp_path / "t.csv"), "--label-column", "mutation"]
    result = CliRunner().invoke(app, [*arguments, "--workers", "1"])
    assert result.exit_code == 0, result.output
    store = Store.open(tmp_path / "o.h5")
    assert store.column("patient").tolist()[::3] == ["TCGA-AA-0001", "TCGA-AA-0001", "TCGA-BB-0002"]
    assert store.column("split").tolist()[::3] == ["train", "train", "test"]
    assert store.labels("mutation").tolist()[::3] == [1, 0, 1]


def test_a_name_that_is_no_utf_8_is_listed_beside_the_others(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["images"], file[b"caf\xe9"] = np.zeros((2, 4, 4)), np.zeros(2)
        with pytest.raises(InputError, match=r"known: caf\\xe9, images"):
            find_dataset(file, "quantities", tmp_path / "x.h5")


def test_a_piece_that_is_shorter_than_its_values_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=np.arange(24 * 16, dtype=np.uint8).reshape(24, 4, 4), chunks=(8, 4, 4))
    entry = (128).to_bytes(4, "little") + bytes(4)  # of the index of chunks: size, and no filter that was left out
    assert path.read_bytes().count(entry) >= 3
    with h5py.File(path) as file:
        assert find_dataset(file, "images", path).shape == (24, 4, 4)
    path.write_bytes(path.read_bytes().replace(entry, (40).to_bytes(4, "little") + bytes(4)))
    with h5py.File(path) as file, pytest.raises(InputError, match="the first has 40 bytes, of 128"):
        find_dataset(file, "images", path)
