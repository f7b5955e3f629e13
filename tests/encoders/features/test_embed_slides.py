"""Features by slide, and heat maps, on synthetic slides ingested with `encoders ingest wsi`."""

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import encoders
from encoders.cli.main import app
from encoders.features.embed import extract_features
from encoders.features.embed_slides import level0_side, write_all_slide_features
from encoders.features.heatmap import write_heatmap
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.zoo.feature_file import read_feature_file
from tests.encoders.ingest.wsi.slide_files import draw_slide, write_slide
from tests.store_edits import edit_store

BOX = (512, 1024, 2048, 1024)  # top, left, height, width of the tissue, level-0 pixels


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    for k in range(2):
        write_slide(folder / "in" / f"s{k}.tiff", [draw_slide(4096, 4096, [BOX], seed=k)], mpp=0.25)
    command = ["ingest", "wsi", str(folder / "in"), str(folder / "tiles"), "--mpp", "0.5", "--tile", "256", "--workers", "1"]
    assert CliRunner().invoke(app, command).exit_code == 0
    return folder / "tiles"


@pytest.fixture(scope="module")
def encoder():
    return encoders.load("random_resnet10t:size=32")


def test_the_file_of_a_slide_holds_features_and_level_0_corners(tiles, encoder, tmp_path):
    store = Store.open(str(tiles / "*.h5"))
    assert write_all_slide_features(encoder, store, tmp_path) == (2, 0)
    whole = extract_features(encoder, store, cache=False)
    for name in ("s0", "s1"):
        mine = np.flatnonzero(store.column("slide") == name)
        with h5py.File(tmp_path / f"{name}.h5") as file:
            np.testing.assert_allclose(file["features"][:], whole[mine], atol=1e-5)
            np.testing.assert_array_equal(file["coords"][:, 0], store.column("x")[mine])
            np.testing.assert_array_equal(file["coords"][:, 1], store.column("y")[mine])
            assert file["coords"].dtype == np.int64
            assert file["coords"].attrs["patch_size_level0"] == 512  # 256 px at 0.5 um are 512 at 0.25
            inside = (file["coords"][:] >= [BOX[1], BOX[0]]) & (file["coords"][:] < [BOX[1] + BOX[3], BOX[0] + BOX[2]])
            assert inside.all(axis=1).sum() >= 8  # the tissue is 2 x 4 tiles


def test_finished_slides_are_kept_damaged_ones_are_written_again_and_those_of_other_encoders_rejected(tiles, encoder, tmp_path):
    store = Store.open(str(tiles / "*.h5"))
    write_all_slide_features(encoder, store, tmp_path)
    before = (tmp_path / "s0.h5").stat().st_mtime_ns
    (tmp_path / "s1.h5").write_bytes((tmp_path / "s1.h5").read_bytes()[:1000])
    assert write_all_slide_features(encoder, store, tmp_path) == (1, 1)
    assert (tmp_path / "s0.h5").stat().st_mtime_ns == before
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=r"s0\.h5 holds features of another encoder"):
        write_all_slide_features(encoders.load("random_resnet10t:size=32,seed=1"), store, tmp_path)
    with pytest.raises(InputError, match="holds features of another encoder"):  # also if the other encoder embedded other slides
        (tmp_path / "s1.h5").unlink()
        write_all_slide_features(encoders.load("random_resnet10t:size=32,seed=1"), Store.open(str(tiles / "s1.h5")), tmp_path)
    before.pop("s1.h5")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before, "a folder holds features of one encoder"


def test_clams_training_finds_a_tensor_for_every_slide(tiles, encoder, tmp_path):
    store = Store.open(str(tiles / "*.h5"))
    assert write_all_slide_features(encoder, store, tmp_path, layout="clam") == (2, 0)
    for name in ("s0", "s1"):
        x = torch.load(tmp_path / "pt_files" / f"{name}.pt", weights_only=True)  # as CLAM's dataset_generic.py names it
        with h5py.File(tmp_path / "h5_files" / f"{name}.h5") as file:
            np.testing.assert_array_equal(x.numpy(), file["features"][:])
    assert write_all_slide_features(encoder, store, tmp_path, layout="clam") == (0, 2)
    with pytest.raises(InputError, match="features of another encoder"):
        write_all_slide_features(encoders.load("random_resnet10t:size=32,seed=1"), store, tmp_path, layout="clam")


def test_stamp_reads_micrometres_and_the_features_of_tiles(tiles, encoder, tmp_path):
    """As STAMP's `get_coords` reads it: `tile_size_um` means micrometres; an attribute `encoder` would mean features of whole slides."""
    store = Store.open(str(tiles / "s0.h5"))
    assert write_all_slide_features(encoder, store, tmp_path, layout="stamp") == (1, 0)
    with h5py.File(tmp_path / "s0.h5") as file:
        np.testing.assert_allclose(file["feats"][:], extract_features(encoder, store, cache=False), atol=1e-5)
        corners = np.stack([store.column("x")[:], store.column("y")[:]], axis=1)
        np.testing.assert_allclose(file["coords"][:], corners * 0.25)
        stated = dict(file.attrs)
    assert (stated["tile_size_um"], stated["tile_size_px"], stated["unit"], stated["feat_type"]) == (128.0, 256, "um", "tile")
    assert "encoder" not in stated
    read = read_feature_file(tmp_path / "s0.h5")
    assert read.extractor == encoder.card.name
    assert write_all_slide_features(encoder, store, tmp_path, layout="stamp") == (0, 1)


def test_a_slide_without_resolution_has_no_micrometres(tiles, encoder, tmp_path, monkeypatch):
    store = Store.open(str(tiles / "s0.h5"))
    monkeypatch.setitem(store.parts[0].attrs, "slide", {**store.parts[0].attrs["slide"], "mpp": [float("nan")] * 2})
    with pytest.raises(InputError, match=r"'s0' .* has no resolution.*trident or clam"):
        write_all_slide_features(encoder, store, tmp_path, layout="stamp")
    assert not list(tmp_path.iterdir())


def test_a_guessed_side_of_an_earlier_version_is_written_again(tiles, encoder, tmp_path):
    store = Store.open(str(tiles / "s0.h5"))
    write_all_slide_features(encoder, store, tmp_path)
    with edit_store(tmp_path / "s0.h5") as file:
        file.attrs["patch_size_level0"] = 256
    assert write_all_slide_features(encoder, store, tmp_path) == (1, 0)
    with h5py.File(tmp_path / "s0.h5") as file:
        assert file.attrs["patch_size_level0"] == 512


@pytest.mark.parametrize(("field", "side"), [((512.0, 256.0), 0), ((512.0, 512.0), 512)])
def test_tiles_that_are_not_square_at_level_0_have_no_side(tiles, field, side, monkeypatch):
    store = Store.open(str(tiles / "s0.h5"))
    part = store.parts[0]
    monkeypatch.setitem(part.attrs, "slide", {**part.attrs["slide"], "oblong": True, "mpp": [0.25, 0.5], "field": list(field)})
    assert level0_side(store, part, np.arange(2), 0.5, 256) == side


def test_file_and_folder_are_checked_before_anything_is_embedded(tiles, tmp_path, monkeypatch):
    monkeypatch.setattr("encoders.features.embed.extract_features", None)
    (tmp_path / "f.h5").touch()
    for words in ([str(tmp_path)], [str(tmp_path / "f.h5"), "--by-slide"]):
        done = CliRunner().invoke(app, ["embed", "random_resnet10t:size=32", str(tiles / "*.h5"), *words])
        assert isinstance(done.exception, InputError)
        assert "name a f" in str(done.exception) or "pass --by-slide" in str(done.exception)
    store = tiles / "s0.h5"
    before = store.read_bytes()
    done = CliRunner().invoke(app, ["embed", "random_resnet10t:size=32", str(store), str(store)])
    assert "does not hold features of an encoder; choose another name" in str(done.exception)
    assert store.read_bytes() == before
    with pytest.raises(InputError, match=r"is a folder, and a store is a file: did you mean '.*/\*\.h5'"):
        Store.open(tiles)


def test_a_heat_map_colours_the_scored_tiles_at_their_position(tiles, tmp_path):
    store = Store.open(str(tiles / "s0.h5"))
    keys = store.column("key").tolist()
    (tmp_path / "s.csv").write_text("key,score\n" + "".join(f"{key},1\n" for key in keys))
    picture = np.asarray(Image.open(write_heatmap(store, None, tmp_path / "s.csv", tmp_path / "a.png")).convert("RGB")).astype(int)
    red = (picture[..., 0] - picture[..., 2] > 60) & (picture[..., 1] < 140)
    assert red[:, picture.shape[1] // 2 : -200].sum() > 10 * max(
        1, red[:, : picture.shape[1] // 2].sum()
    )  # right: the heat map, left: the overview
    (tmp_path / "none.csv").write_text("key,score\nelsewhere,1\n")
    with pytest.raises(InputError, match="has a score for none of"):
        write_heatmap(store, None, tmp_path / "none.csv", tmp_path / "b.png")
    (tmp_path / "nokey.csv").write_text("tile,score\nelsewhere,1\n")
    with pytest.raises(InputError, match="^no column called 'key'"):
        write_heatmap(store, None, tmp_path / "nokey.csv", tmp_path / "b.png")


def test_a_heat_map_of_features_is_drawn_and_an_unknown_slide_rejected(tiles, encoder, tmp_path):
    store = Store.open(str(tiles / "*.h5"))
    write_all_slide_features(encoder, store, tmp_path)
    assert write_heatmap(store, "s1", tmp_path / "s1.h5", tmp_path / "c.png").stat().st_size > 5000
    with h5py.File(tmp_path / "s1.h5") as ours, h5py.File(tmp_path / "trident.h5", "w") as other:
        other["features"], other["coords"] = ours["features"][:][::-1], ours["coords"][:][::-1]
    write_heatmap(store, "s1", tmp_path / "s1.h5", tmp_path / "ours.png")
    write_heatmap(store, "s1", tmp_path / "trident.h5", tmp_path / "other.png")
    one, two = (np.asarray(Image.open(tmp_path / name).convert("RGB")).astype(int) for name in ("ours.png", "other.png"))
    assert np.abs(one - two).mean() < 0.5, "the same tiles get the same colours"
    with pytest.raises(InputError, match="s9"):
        write_heatmap(store, "s9", tmp_path / "s1.h5", tmp_path / "d.png")
