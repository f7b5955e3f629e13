"""DullRazor on synthetic skin: hairs of several angles, widths and colours go, lesions and short dark spots stay."""

import json

import h5py
import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage
from typer.testing import CliRunner

from encoders.cli.main import app
from encoders.ingest.dullrazor import close_along_line, distance_to_skin, find_hair, inpaint_hair, keep_thin_and_long, remove_hairs
from encoders.ingest.folder import FolderSource
from encoders.runtime.errors import InputError
from encoders.store.store import Store


def skin(height=240, width=320, lesion=True, seed=0):
    """Pink skin with a smooth gradient and, in the middle, a brown lesion."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(height, width)
    base = np.stack([210 + 20 * x, 160 + 15 * y, 140 + 10 * x * y], -1) + rng.normal(0, 2, (height, width, 1))
    spot = np.exp(-((((x - 0.5) ** 2 + (y - 0.37) ** 2) / 0.012) ** 3))[..., None] if lesion else 0
    return np.clip(base * (1 - 0.55 * spot), 0, 255).astype(np.uint8)


def with_hairs(image, lines, colour=(40, 30, 25), width=3):
    """The image with hairs drawn as lines, and where they are."""
    picture, mask = Image.fromarray(image), Image.new("L", image.shape[1::-1])
    for line in lines:
        ImageDraw.Draw(picture).line(line, fill=colour, width=width)
        ImageDraw.Draw(mask).line(line, fill=255, width=width)
    return np.asarray(picture), np.asarray(mask) > 0


def arc(cx, cy, radius, start, stop):
    return [(cx + radius * np.cos(t), cy + radius * np.sin(t)) for t in np.linspace(start, stop, 60)]


HAIRS = {
    "horizontal": [[(10, 60), (300, 60)]],
    "vertical": [[(90, 5), (90, 230)]],
    "diagonal": [[(20, 20), (220, 220)]],
    "oblique": [[(10, 40), (310, 130)]],
    "steep": [[(120, 8), (190, 232)]],
    "curved": [arc(160, 300, 220, -2.2, -0.9)],
    "crossed": [[(10, 60), (300, 200)], [(10, 200), (300, 70)]],
    "at the border": [[(0, 0), (319, 2)]],
}


@pytest.mark.parametrize("name", HAIRS)
@pytest.mark.parametrize("width", [2, 5])
def test_hairs_are_found_and_the_skin_below_is_restored(name, width):
    clean = skin()
    hairy, hair = with_hairs(clean, HAIRS[name], width=width)
    found = find_hair(hairy)
    assert found[hair].mean() > 0.95
    assert found[~ndimage.binary_dilation(hair, np.ones((3, 3)), iterations=3)].mean() < 0.002
    restored = remove_hairs(hairy)
    before = np.abs(hairy.astype(int) - clean)[hair].mean()
    after = np.abs(restored.astype(int) - clean)[hair].mean()
    assert after < 0.12 * before
    far = ~ndimage.binary_dilation(hair, np.ones((3, 3)), iterations=3)
    np.testing.assert_array_equal(restored[far & ~found], hairy[far & ~found])


def test_skin_without_hair_and_its_lesion_stay_bit_identical():
    clean = skin()
    np.testing.assert_array_equal(remove_hairs(clean), clean)


def test_a_dark_thick_bar_and_short_dots_are_no_hairs():
    image, _ = with_hairs(skin(lesion=False), [[(20, 120), (300, 120)]], width=24)
    dots, _ = with_hairs(image, [[(40 * i, 30), (40 * i + 15, 40)] for i in range(1, 7)], width=3)
    assert find_hair(dots).mean() < 0.002


def test_lengths_grow_with_the_image_so_that_a_magnified_hair_is_found():
    hairy, _ = with_hairs(skin(), HAIRS["oblique"], width=3)
    large = np.asarray(Image.fromarray(hairy).resize((1920, 1440), Image.Resampling.BICUBIC))
    share = find_hair(hairy).mean()
    assert find_hair(large).mean() == pytest.approx(share, rel=0.35)
    assert remove_hairs(large, size=256).shape == (768, 1024, 3)
    assert remove_hairs(large, size=1024).shape == large.shape


@pytest.mark.parametrize("direction", [(0, 1), (1, 1), (1, 0), (1, -1)])
@pytest.mark.parametrize("length", [5, 6, 11])
def test_the_closing_along_a_line_is_that_of_scipy(direction, length):
    band = np.random.default_rng(0).integers(0, 255, (24, 31), dtype=np.uint8)
    n = length // 2
    line = np.zeros((2 * n + 1, 2 * n + 1), bool)
    for k in range(-n, n + 1):
        line[n + direction[0] * k, n + direction[1] * k] = True
    got = close_along_line(band, direction, length)
    inner = slice(2 * n, -2 * n)  # SciPy mirrors again between the two steps
    np.testing.assert_array_equal(got[inner, inner], ndimage.grey_closing(band, footprint=line)[inner, inner])
    assert (got >= band).all()


def test_interpolation_is_linear_across_the_hair():
    ramp = np.repeat(np.arange(0, 200, 5, dtype=np.uint8)[:, None, None], 40, axis=1)  # gray rises downwards
    mask = np.zeros((40, 40), bool)
    mask[18:22] = True
    broken = ramp.copy()
    broken[mask] = 0
    np.testing.assert_array_equal(inpaint_hair(broken, mask), ramp)


def test_distances_are_those_of_a_loop():
    mask = np.random.default_rng(0).random((9, 11)) < 0.6
    rows, columns = np.nonzero(mask)
    for direction in ((0, 1), (-1, -1), (1, -1)):
        want = []
        for r, c in zip(rows, columns, strict=True):
            n = 1
            while 0 <= r + n * direction[0] < 9 and 0 <= c + n * direction[1] < 11 and mask[r + n * direction[0], c + n * direction[1]]:
                n += 1
            want.append(n if 0 <= r + n * direction[0] < 9 and 0 <= c + n * direction[1] < 11 else np.inf)
        np.testing.assert_array_equal(distance_to_skin(mask, rows, columns, direction), want)


def test_thin_and_long_is_judged_by_region():
    candidates = np.zeros((80, 80), bool)
    candidates[10, 5:75] = candidates[30, 5:20] = True
    candidates[50:75, 20:60] = True
    assert {int(r) for r in np.nonzero(keep_thin_and_long(candidates, 50, 10))[0]} == {10}


def test_sixteen_bits_and_gray_are_kept():
    hairy, hair = with_hairs(skin(), HAIRS["oblique"])
    gray = hairy[..., :1]
    deep = gray.astype(np.uint16) * 257
    assert remove_hairs(gray).shape == gray.shape
    assert np.abs(remove_hairs(deep) / 257 - remove_hairs(gray)).max() < 0.51  # both are rounded
    assert np.abs(remove_hairs(deep)[hair].astype(int) - deep[hair]).mean() > 10000


def test_the_step_is_off_by_default_and_recorded(tmp_path):
    hairy, hair = with_hairs(skin(240, 240), [[(10, 60), (230, 100)]])
    (tmp_path / "in").mkdir()
    Image.fromarray(hairy).save(tmp_path / "in" / "a.png")
    for name, words in (("off", []), ("on", ["--remove-hair", "dullrazor"])):
        done = CliRunner().invoke(
            app, ["ingest", "folder", str(tmp_path / "in"), str(tmp_path / f"{name}.h5"), "--size", "0", "--workers", "1", *words]
        )
        assert done.exit_code == 0, done.output
    off, on = (Store.open(tmp_path / f"{name}.h5") for name in ("off", "on"))
    np.testing.assert_array_equal(off.image(0), hairy)
    np.testing.assert_array_equal(on.image(0), remove_hairs(hairy))
    assert on.image(0)[hair].mean() > off.image(0)[hair].mean() + 80
    with h5py.File(tmp_path / "on.h5") as file:
        assert json.loads(file.attrs["geometry"])["remove_hair"] == "dullrazor"
        assert json.loads(file.attrs["recipe"])["remove_hair"] == "dullrazor"
    assert "remove_hair" not in off.attrs["geometry"]
    with pytest.raises(InputError, match="remove_hair|hair"):
        Store.open([tmp_path / "off.h5", tmp_path / "on.h5"])


def test_the_resolution_is_that_of_the_file_where_a_large_image_is_reduced_first(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.kron(skin(30, 40), np.ones((60, 60, 1), np.uint8))).save(tmp_path / "in" / "a.png")
    plain, hairless = (FolderSource(tmp_path / "in", mpp=5.0, remove_hair=method) for method in (None, "dullrazor"))
    assert hairless.read(hairless.items()[0]).index["mpp"] == plain.read(plain.items()[0]).index["mpp"] == 5.0 * 2400 / 256
