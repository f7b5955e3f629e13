"""Black, gray and red ink on glass and over tissue, and what is no ink: stains, nuclei, blood cells, pigment, tinted glass."""

import json

import numpy as np
import pytest
import typer.testing
from PIL import Image

from encoders.cli.main import app
from encoders.ingest.wsi.glass import Glass
from encoders.ingest.wsi.ink import NEUTRAL_DENSITY, NEUTRAL_SHARE, RED_BALANCE, RED_DENSITY, RED_LEAK, WINDOW, find_local_ink
from encoders.ingest.wsi.quality import measure_quality, shrink_tile
from encoders.ingest.wsi.settings import TilingSettings
from tests.encoders.ingest.wsi.slide_files import write_slide
from tests.encoders.ingest.wsi.stained_cores import DAB, EOSIN, H_AND_E, HEMATOXYLIN, draw_cores

SIDE = 64  # pixels of 2 um
BLACK, GRAY, RED = (1.4, 1.3, 1.3), (0.4, 0.4, 0.38), (0.08, 1.1, 0.95)  # optical densities


def tissue(stain=H_AND_E, strength=0.5, glass=(243, 243, 243), seed=0):
    """(SIDE, SIDE, 3) uint8, drawn at 0.5 um and reduced, so that a pixel averages cells as in a small copy."""
    large = draw_cores(4 * SIDE, 4 * SIDE, [(0, 0, 4 * SIDE, stain, strength)], glass, seed=seed)
    return np.asarray(shrink_tile(Image.fromarray(large), 0.5))


def glass_only(glass=(243, 243, 243), seed=0):
    noise = np.random.default_rng(seed).normal(0, 2, (SIDE, SIDE, 3))
    return np.clip(np.rint(np.asarray(glass) + noise), 0, 255).astype(np.uint8)


def draw_ink(image, density, where, noise=0.05, seed=1):
    """The image behind ink: Beer and Lambert.  where: (SIDE, SIDE) bool."""
    uneven = 1 + noise * np.random.default_rng(seed).normal(size=(*image.shape[:2], 1))
    behind = image * 10 ** -(np.asarray(density) * uneven)
    return np.where(where[..., None], np.clip(np.rint(behind), 0, 255), image).astype(np.uint8)


def ink_share(image, glass=None):
    return measure_quality([Image.fromarray(image)], glass)[0][0].pen


LEFT = np.arange(SIDE)[None] < np.full((SIDE, 1), SIDE // 2)
DIAGONAL = np.abs(np.subtract.outer(np.arange(SIDE), np.arange(SIDE))) < 16
EVERYWHERE = np.ones((SIDE, SIDE), bool)


@pytest.mark.parametrize("where", [LEFT, DIAGONAL, EVERYWHERE], ids=["half", "diagonal", "all"])
@pytest.mark.parametrize("density", [BLACK, GRAY, (0.2, 0.2, 0.2), (2.0, 2.0, 2.0), RED, (0.05, 0.6, 0.55)])
def test_ink_on_glass_is_found_where_it_is(where, density):
    share = ink_share(draw_ink(glass_only(), density, where))
    assert share == pytest.approx(where.mean(), abs=0.1)


STRONG_BLACK, STRONG_GRAY, STRONG_RED = BLACK, (1.0, 1.0, 0.9), (0.08, 1.8, 1.6)


@pytest.mark.parametrize(
    ("stain", "density"),
    [
        *((stain, density) for stain in (HEMATOXYLIN, EOSIN, H_AND_E, DAB) for density in (STRONG_BLACK, STRONG_GRAY)),
        *((stain, STRONG_RED) for stain in (EOSIN, H_AND_E)),  # haematoxylin and DAB alone absorb red: red ink over them is no red any more
    ],
)
def test_strong_ink_over_tissue_is_found(stain, density):
    image = tissue(stain, 0.35)
    assert ink_share(draw_ink(image, density, LEFT)) == pytest.approx(0.5, abs=0.12)
    assert ink_share(image) == 0


@pytest.mark.parametrize("strength", [0.1, 0.3, 0.6, 1.0, 1.5])
@pytest.mark.parametrize("stain", [HEMATOXYLIN, EOSIN, H_AND_E, DAB, (HEMATOXYLIN + DAB) / 2, (2 * HEMATOXYLIN + DAB) / 3])
def test_stained_tissue_is_no_ink(stain, strength):
    for seed in range(3):
        assert find_local_ink(tissue(stain, strength, seed=seed)[None]).mean() < 0.02


def dots(radius, step, seed=0):
    """Discs on a grid of `step` pixels, moved at random."""
    rng, rows, columns = np.random.default_rng(seed), *np.mgrid[:SIDE, :SIDE]
    out = np.zeros((SIDE, SIDE), bool)
    for y in range(0, SIDE, step):
        for x in range(0, SIDE, step):
            out |= (rows - y - rng.uniform(-1, 1)) ** 2 + (columns - x - rng.uniform(-1, 1)) ** 2 <= radius**2
    return out


@pytest.mark.parametrize(
    ("density", "where"),
    [
        ((1.2, 1.3, 0.9), dots(2, 6)),  # dense nuclei of 8 um
        ((1.5, 1.5, 1.5), dots(2.5, 10)),  # grains of black pigment
        ((0.1, 0.7, 0.65), dots(1.8, 5)),  # red blood cells of 7 um
        ((0.13, 0.56, 0.53), EVERYWHERE),  # a lake of blood
        ((1.4, 1.4, 1.4), np.abs(LEFT.cumsum(1) - 20) < 3),  # a line of 10 um
    ],
    ids=["nuclei", "pigment", "blood cells", "blood", "line"],
)
def test_small_dark_and_red_things_are_no_ink(density, where):
    assert find_local_ink(draw_ink(tissue(EOSIN, 0.3), density, where)[None]).mean() < 0.02


@pytest.mark.parametrize("glass", [(225, 215, 190), (190, 190, 190), (180, 176, 160)])
def test_tinted_and_dim_glass_is_no_ink(glass):
    known = Glass(glass, 8)
    assert ink_share(glass_only(glass), known) == 0
    assert ink_share(tissue(H_AND_E, 0.4, glass), known) == 0
    assert ink_share(draw_ink(glass_only(glass), GRAY, LEFT), known) == pytest.approx(0.5, abs=0.1)


def test_the_rules_equal_their_definition_pixel_by_pixel():
    rng = np.random.default_rng(0)
    blocks = rng.integers(20, 256, (4, 6, 6, 3))
    blocks[:, ::2] = blocks[:, ::2].mean(axis=3, keepdims=True)  # gray
    blocks[:, 1::3] = [200, 40, 45]
    tiles = np.clip(np.kron(blocks, np.ones((1, 12, 12, 1))) + rng.normal(0, 6, (4, 72, 72, 3)), 0, 255).astype(np.uint8)
    half = np.rint(tiles.reshape(4, 36, 2, 36, 2, 3).mean((2, 4)) + 1e-6).astype(int)
    before, after = WINDOW // 2, WINDOW - WINDOW // 2
    want = np.zeros((4, 36, 36), bool)
    for tile, image in enumerate(half):
        density = -np.log10((image + 1) / 256)
        padded = np.pad(density, ((before, after), (before, after), (0, 0)), "edge")
        for y in range(36):
            for x in range(36):
                square = padded[y : y + WINDOW, x : x + WINDOW].reshape(-1, 3)
                mean, neutral, red = square.mean(axis=0), square.min(), square[:, 1:].min()
                gray = neutral > NEUTRAL_DENSITY and neutral > NEUTRAL_SHARE * mean.mean()
                if gray or (red > RED_DENSITY and mean[0] < RED_LEAK * red and mean[2] > RED_BALANCE * mean[1]):
                    want[tile, max(0, y - before) : y + after, max(0, x - before) : x + after] = True
    assert 0.1 < want.mean() < 0.9
    assert np.array_equal(find_local_ink(tiles), want)


def test_tiles_smaller_than_the_neighbourhood_have_none():
    assert find_local_ink(np.zeros((2, 11, 40, 3), np.uint8)).sum() == 0
    assert find_local_ink(np.zeros((2, 12, 41, 3), np.uint8)).all()


def test_inked_tiles_of_a_slide_are_rejected_as_pen_and_the_page_says_what_is_not_detected(tmp_path):
    base = draw_cores(1024, 2048, [(0, 0, 1024, H_AND_E, 0.5), (0, 1024, 1024, H_AND_E, 0.5)])
    base[:512, :512] = draw_ink(base[:512, :512], (1.0, 1.0, 0.95), np.ones((512, 512), bool))
    base[512:, 512:1024] = draw_ink(base[512:, 512:1024], (0.05, 1.8, 1.6), np.ones((512, 512), bool))
    write_slide(tmp_path / "in" / "a.tiff", [base])
    options = ["--mpp", "0.5", "--max-black", "1", "--min-tissue", "0", "--workers", "1"]
    done = typer.testing.CliRunner().invoke(app, ["ingest", "wsi", str(tmp_path / "in"), str(tmp_path / "out"), *options])
    record = json.loads((tmp_path / "out" / "slides" / "a.json").read_text())
    assert (record["tiles"], record["rejected"]) == (6, {"pen": 2}), done.output
    assert "Not detected: faint ink over tissue, folds, air bubbles" in (tmp_path / "out" / "overview.html").read_text()


@pytest.mark.real
def test_no_tile_of_real_tissue_is_ink(data_dir):
    """LC25000 lung at three assumed resolutions, and MoNuSeg as haematoxylin and eosin and, with eosin replaced, as DAB."""
    limits, alarms, total = TilingSettings(), 0, 0
    for folder, factors in (("path_lc25000_lung224", (1, 2, 4)), ("path_monuseg_organ250", (4, 8))):
        for k, path in enumerate(sorted((data_dir / folder / "images").iterdir())[::7]):
            image = Image.open(path).convert("RGB").reduce(factors[k % len(factors)])
            for version in [image, *([Image.fromarray(replace_eosin(np.asarray(image)))] if "monuseg" in folder else [])]:
                alarms += measure_quality([version])[0][0].pen > limits.max_pen
                total += 1
    assert total > 700
    assert alarms == 0


def replace_eosin(image):
    """The image with DAB instead of eosin."""
    density = -np.log10((image.reshape(-1, 3) + 1.0) / 256)
    amounts = np.clip(density @ np.linalg.pinv(np.stack([HEMATOXYLIN, EOSIN])), 0, None)
    return np.clip(256 * 10 ** -(amounts @ np.stack([HEMATOXYLIN, DAB])) - 1, 0, 255).round().astype(np.uint8).reshape(image.shape)
