"""Stain normalisation as a step of ingest: stored pixels, recorded settings, and that settings are not mixed in one store."""

import numpy as np
import pytest
import typer.testing
from PIL import Image

from encoders.cli.main import app
from encoders.ingest.folder import FolderSource
from encoders.runtime.errors import InputError
from encoders.stain import methods, normalise
from encoders.store.store import Store
from tests.encoders.ingest.wsi.slide_files import draw_slide, halve_image, write_slide
from tests.encoders.stain.test_stain import mixed


def run(*words, code=0):
    done = typer.testing.CliRunner().invoke(app, ["ingest", *map(str, words)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


def bytes_of(image):
    return np.rint(image * 255).astype(np.uint8)


def tile(seed=0):
    """(100, 100, 3) with glass in a corner."""
    image = mixed(pixels=10_000, seed=seed)[0].copy()
    image[:20, :20] = 1.0
    return image


@pytest.fixture
def folder(tmp_path):
    """Three tiles of two stains, one of glass only, and one gray image."""
    (tmp_path / "src").mkdir()
    for k in range(3):
        Image.fromarray(bytes_of(tile(k))).save(tmp_path / "src" / f"{k}.png")
    glass = np.full((100, 100, 3), 250, np.uint8)
    glass[0, 0] = 240, 245, 250
    Image.fromarray(glass).save(tmp_path / "src" / "glass.png")
    Image.fromarray(glass[..., 0]).save(tmp_path / "src" / "gray.png")
    return tmp_path / "src"


@pytest.mark.parametrize("how", ["macenko", "reinhard"])
def test_a_folder_is_normalised_file_by_file_and_files_without_stain_are_named(folder, tmp_path, how):
    output = run("folder", folder, tmp_path / "t.h5", "--modality", "histology", "--size", 0, "--normalise", how, code=1)
    assert "glass.png" in output
    assert "gray.png" in output
    store = Store.open(tmp_path / "t.h5")
    assert store.column("key").astype(str).tolist() == ["0.png", "1.png", "2.png"]
    assert store.attrs["geometry"]["normalise"] == store.attrs["recipe"]["normalise"] == how
    for k in range(3):
        values = bytes_of(tile(k)) / 255
        measured = methods.estimate_stains(values) if how == "macenko" else methods.lab_statistics(values)
        want = getattr(methods, how)(values, measured)
        assert np.abs(store.image(k).astype(int) - want * 255).max() <= 0.5 + 1e-9


def test_stores_of_different_normalisation_are_not_mixed(folder, tmp_path):
    for name, words in (("a.h5", []), ("b.h5", ["--normalise", "macenko"]), ("c.h5", ["--normalise", "macenko"])):
        run("folder", folder, tmp_path / name, "--size", 0, "--channels", 3, *words, code=1 if words else 0)
    assert len(Store.open([tmp_path / "b.h5", tmp_path / "c.h5"])) == 6
    with pytest.raises(InputError, match="differ in stain normalisation .*macenko.*none"):
        Store.open([tmp_path / "a.h5", tmp_path / "b.h5"])
    run("folder", folder, tmp_path / "d.h5", "--normalise", "macenco", code=2)
    with pytest.raises(InputError, match="did you mean macenko"):
        FolderSource(folder, normalise="macenco")


@pytest.mark.parametrize("how", ["macenko", "reinhard"])
def test_a_tint_of_the_glass_is_removed_first(how):
    image = tile()
    tinted = image * np.array([0.88, 0.93, 1.0])
    one, other = (normalise.normalise_stain(bytes_of(i), normalise.measure_stain(how, bytes_of(i))).astype(int) for i in (image, tinted))
    assert np.abs(bytes_of(tinted).astype(int) - bytes_of(image)).max() > 25
    assert (other[:20, :20] >= 254).all()
    assert np.abs(one - other).mean() < 1.5
    assert normalise.measure_stain(how, bytes_of(image[20:] * 0.7))["white"] == [1, 1, 1]  # no glass in view


def test_all_tiles_of_a_slide_are_normalised_alike(tmp_path):
    base = draw_slide(1024, 1536, [(0, 0, 1024, 1024)], 0)
    (tmp_path / "slides").mkdir()
    write_slide(tmp_path / "slides" / "a.tiff", [base, halve_image(base)], 0.25)
    plain = [tmp_path / "slides", tmp_path / "plain", "--codec", "raw", "--workers", 1]
    stained = [tmp_path / "slides", tmp_path / "stained", "--codec", "raw", "--workers", 1]
    run("wsi", *plain)
    run("wsi", *stained, "--normalise", "reinhard")
    before, after = Store.open(tmp_path / "plain" / "a.h5"), Store.open(tmp_path / "stained" / "a.h5")
    assert before.column("key").tolist() == after.column("key").tolist()
    look = after.attrs["slide"]["stain"]
    assert look["how"] == after.attrs["geometry"]["normalise"] == after.attrs["recipe"]["normalise"] == "reinhard"
    seen = np.concatenate([before.image(i)[::2, ::2].reshape(-1, 3) for i in range(len(before))])  # four tiles: all are measured
    assert look == normalise.measure_stain("reinhard", seen)
    for i in range(len(before)):
        np.testing.assert_array_equal(after.image(i), normalise.normalise_stain(before.image(i), look))
    with pytest.raises(InputError, match="normalise was 'reinhard' and is None"):
        run("wsi", *stained)
    assert "normalise" not in before.attrs["recipe"]
