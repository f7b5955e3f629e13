"""Features of other tools: the rows of each file reach the tiles at their coordinates, whatever the layout and order of the file."""

import pickle

import h5py
import numpy as np
import pytest
import torch

import encoders
from encoders.features.embed import extract_features
from encoders.runtime.errors import InputError
from encoders.similarity.perceptual_hash import pixel_sha256
from encoders.store.store import Store
from encoders.store.write import pixel_fingerprint, write_store
from encoders.zoo.feature_file import read_feature_file
from tests.store_edits import edit_store

SLIDES, TILES, WIDTH = ("s1", "s2"), 5, 4
MPP = 0.25


@pytest.fixture
def case(tmp_path):
    """A store of two slides of 5 tiles, and the feature that every tile should get: (store, {slide: (x, corners)})."""
    rng = np.random.default_rng(0)
    parts = {}
    for name in SLIDES:
        corners = rng.permutation(50)[: 2 * TILES].reshape(TILES, 2) * 224 + 3
        parts[name] = (rng.normal(size=(TILES, WIDTH)).astype(np.float32), corners)
        images = rng.integers(0, 255, (TILES, 8, 8, 3), np.uint8)
        attrs = {"codec": "raw", "channels": 3, "unit": {"scale": 255.0, "offset": 0.0, "meaning": "0 to 1"}, "modality": "histology",
                 "dataset": "d", "slide": {"mpp": [MPP, MPP]}, "geometry": {}, "recipe": {}}  # fmt: skip
        index = {
            "key": [f"{name}/{x}_{y}" for x, y in corners], "patient": [name] * TILES, "slide": [name] * TILES,
            "x": corners[:, 0].astype(float), "y": corners[:, 1].astype(float), "sha256": [pixel_sha256(image) for image in images],
        }  # fmt: skip
        attrs["fingerprint"] = pixel_fingerprint(index["sha256"])
        write_store(tmp_path / "tiles" / f"{name}.h5", images, (8, 8, 3), np.uint8, attrs, index)
    return Store.open(f"{tmp_path}/tiles/*.h5"), parts


def write_h5(path, x, coords=None, name="features", keys=None, file=None, coordinate_type=np.int64, **attributes):
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as out:
        if x is not None:
            out[name] = x
        if coords is not None:
            out["coords"] = np.asarray(coords).astype(coordinate_type)
            out["coords"].attrs.update(attributes)
        if keys is not None:
            out.create_dataset("key", data=keys, dtype=h5py.string_dtype())
        out.attrs.update(file or {})


def write_layout(folder, layout, parts):
    """The features of all slides in the layout of a tool, in another order than that of the store."""
    for name, (x, corners) in parts.items():
        order = np.random.default_rng(1).permutation(len(x))
        x, corners = x[order], corners[order]
        if layout == "ours":
            write_h5(folder / f"{name}.h5", x, corners, keys=[f"{name}/{a}_{b}" for a, b in corners])
        elif layout == "trident":
            write_h5(folder / f"{name}.h5", x[None], corners, patch_size_level0=512, patch_size=256)
        elif layout == "stamp":
            unit = {"unit": "um", "tile_size_um": 256.0, "extractor": "ctp"}
            write_h5(folder / f"{name}.h5", x.astype(np.float64), corners * MPP, "feats", file=unit, coordinate_type=np.float32)
        elif layout == "dictionary":
            folder.mkdir(exist_ok=True)
            torch.save({"feats": torch.from_numpy(x), "coords": torch.from_numpy(corners.astype(np.int32))}, folder / f"{name}.pt")
        else:
            (folder / "pt_files").mkdir(parents=True, exist_ok=True)
            torch.save(torch.from_numpy(x), folder / "pt_files" / f"{name}.pt")
            if layout == "clam":
                write_h5(folder / "h5_files" / f"{name}.h5", x, corners)
            else:
                write_h5(folder / "patches" / f"{name}.h5", None, corners, patch_level=0, patch_size=256)
    return folder if layout not in ("clam", "patches") else folder / "pt_files"


@pytest.mark.parametrize("layout", ["ours", "trident", "stamp", "dictionary", "clam", "patches"])
def test_every_tile_gets_its_own_features(case, tmp_path, layout):
    store, parts = case
    encoder = encoders.load(f"features:{write_layout(tmp_path / 'f', layout, parts)}")
    want = np.concatenate([parts[name][0] for name in SLIDES])
    np.testing.assert_array_equal(extract_features(encoder, store), want)
    rows = np.array([7, 0, 9, 3])
    np.testing.assert_array_equal(extract_features(encoder, store, index=rows), want[rows])
    assert encoder.card.dim == WIDTH


def test_the_folder_of_clam_has_two_files_per_slide_and_the_hdf5_is_read(case, tmp_path):
    store, parts = case
    write_layout(tmp_path / "f", "clam", parts)
    encoder = encoders.load(f"features:{tmp_path / 'f'}")
    np.testing.assert_array_equal(extract_features(encoder, store), np.concatenate([parts[name][0] for name in SLIDES]))


def test_the_hash_is_that_of_the_contents(case, tmp_path):
    _, parts = case
    one, other = (write_layout(tmp_path / name, "ours", parts) for name in "ab")
    assert encoders.load(f"features:{one}").sha256 == encoders.load(f"features:{other}").sha256
    with edit_store(other / "s2.h5") as file:
        file["features"][0, 0] += 1
    assert encoders.load(f"features:{one}").sha256 != encoders.load(f"features:{other}").sha256


def test_tiles_without_features_are_counted_with_an_example(case, tmp_path):
    store, parts = case
    folder = write_layout(tmp_path / "f", "trident", parts)
    (folder / "s2.h5").unlink()
    x, corners = parts["s1"]
    write_h5(folder / "s1.h5", x[1:], corners[1:])
    with pytest.raises(
        InputError, match=r"6 of 10 tiles have no features in .*\(first: s1/\d+_\d+ of s1\.h5\); tile the slides .* --coords"
    ):
        extract_features(encoders.load(f"features:{folder}"), store)


def bad_number(x):
    return np.where(np.arange(x.size).reshape(x.shape) == 2, np.nan, x)


@pytest.mark.parametrize(("write", "message"), [
    (lambda f, x, c: torch.save(torch.from_numpy(x), f / "s1.pt"), r"s1\.pt holds no coordinates, which tell .*h5_files"),
    (lambda f, x, c: write_h5(f / "s1.h5", x, c[1:]), "has 5 features and 4 coordinates"),
    (lambda f, x, c: write_h5(f / "s1.h5", x[:, 0], c), r"features has shape \(5,\)"),
    (lambda f, x, c: write_h5(f / "s1.h5", x, c, "embeddings"), "has no features: expected features or feats, found coords, embeddings"),
    (lambda f, x, c: write_h5(f / "s1.h5", bad_number(x), c), "1 of 5 tiles have features that are NaN or infinite"),
    (lambda f, x, c: (f / "s1.pt").write_bytes(pickle.dumps(print)), "s1.pt: (holds other objects|is not a readable file)"),
    (lambda f, x, c: torch.save({"features": torch.from_numpy(x), "hook": print}, f / "s1.pt"), "holds other objects than tensors"),
    (lambda f, x, c: (f / "s1.h5").write_text("no HDF5"), "is not a readable HDF5 file"),
    (lambda f, x, c: (f / "s1.csv").write_text("x"), "holds no file of features"),
    (lambda f, x, c: [write_h5(f / k / "s1.h5", x, c) for k in "ab"], "two files hold features of one slide"),
])  # fmt: skip
def test_files_that_are_no_features_are_refused(case, tmp_path, write, message):
    store, parts = case
    (tmp_path / "f").mkdir()
    write(tmp_path / "f", *parts["s1"])
    with pytest.raises(InputError, match=message):
        extract_features(encoders.load(f"features:{tmp_path / 'f'}"), store, index=np.arange(TILES))


def test_a_file_of_torch_runs_no_code(tmp_path):
    class Harmful:
        def __reduce__(self):
            return (open, (str(tmp_path / "written"), "w"))

    torch.save(Harmful(), tmp_path / "s.pt")
    with pytest.raises(InputError, match="holds other objects than tensors, which are not loaded"):
        read_feature_file(tmp_path / "s.pt")
    assert not (tmp_path / "written").exists()


def test_images_cannot_be_embedded(case, tmp_path):
    _, parts = case
    encoder = encoders.load(f"features:{write_layout(tmp_path / 'f', 'ours', parts)}")
    with pytest.raises(InputError, match="has features of tiles and no network"):
        encoder.encode(np.zeros((2, 8, 8, 3), np.uint8))
    with pytest.raises(InputError, match="there is no such folder"):
        encoders.load("features:nowhere")
