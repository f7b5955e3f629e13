"""Stain normalisation against known stains, published constants and invariances."""

import numpy as np
import pytest

from encoders.augment import Augment, stain_mix
from encoders.augment.apply import augment, to_planar_float
from encoders.loading.views import read_raw_batch
from encoders.runtime.random import Purpose, uniform
from encoders.stain import methods

KNOWN = np.array([[0.60, 0.10], [0.70, 0.90], [0.39, 0.42]])
KNOWN = KNOWN / np.linalg.norm(KNOWN, axis=0)


def mixed(vectors=KNOWN, pixels=20_000, seed=0):
    """A tile of two known stains: pixels of either alone among mixtures, so that the extreme angles are the stains themselves."""
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(0.3, 1.2, (pixels, 2))
    amounts[: pixels // 10, 1] = 0
    amounts[pixels // 10 : pixels // 5, 0] = 0
    amounts[: pixels // 5] = np.where(amounts[: pixels // 5] > 0, 1.5, 0)
    return np.exp(-amounts @ vectors.T).reshape(-1, 100, 3), amounts


def published(image):
    """Stain vectors as the authors' code finds them, on densities of our definition: a loop over the same steps."""
    od = -np.log(np.maximum(image.reshape(-1, 3), 1 / 255))
    od = od[(od[:, 0] + od[:, 1] + od[:, 2]) / 3 >= 0.15]
    _, axes = np.linalg.eigh(np.cov(od.T))
    axes = axes * np.sign(axes.sum(axis=0))
    that = od @ axes[:, 1:3]
    phi = np.arctan2(that[:, 1], that[:, 0])
    low, high = np.percentile(phi, 1), np.percentile(phi, 99)
    first, second = (axes[:, 1:3] @ [np.cos(a), np.sin(a)] for a in (low, high))
    return np.array([first, second] if first[0] > second[0] else [second, first]).T


def test_known_stains_are_given_back():
    image, _ = mixed()
    found = methods.estimate_stains(image)
    angle = np.rad2deg(np.arccos(np.clip((found.vectors * KNOWN).sum(axis=0), -1, 1)))
    assert angle.max() < 1.0
    np.testing.assert_allclose(found.vectors, published(image), atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(found.vectors, axis=0), 1, atol=1e-12)


def test_the_reference_is_the_published_one():
    np.testing.assert_array_equal(methods.REFERENCE_STAINS.vectors, [[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
    np.testing.assert_array_equal(methods.REFERENCE_STAINS.most, [1.9705, 1.0308])
    np.testing.assert_allclose(
        np.linalg.norm(methods.REFERENCE_STAINS.vectors, axis=0), 1, atol=2e-3
    )  # its columns are unit, to four digits


def test_macenko_gives_the_reference_stains_and_doing_it_twice_changes_nothing():
    image, _ = mixed()
    once = methods.macenko(image, methods.estimate_stains(image))
    again = methods.estimate_stains(once)
    np.testing.assert_allclose(again.vectors, methods.REFERENCE_STAINS.vectors, atol=0.02)
    np.testing.assert_allclose(again.most, methods.REFERENCE_STAINS.most, rtol=0.02)
    assert np.abs(methods.macenko(once, again) - once).max() < 3 / 255


def test_macenko_is_least_squares_and_rescaling_pixel_by_pixel():
    image, _ = mixed(pixels=500)
    source = methods.estimate_stains(image)
    got = methods.macenko(image, source)
    for place in [(0, 0), (2, 30), (4, 99)]:
        amounts = np.linalg.lstsq(source.vectors, -np.log(image[place]), rcond=None)[0]
        want = np.exp(-(methods.HE_REFERENCE @ (amounts / source.most * methods.MAX_CONCENTRATIONS_REFERENCE)))
        np.testing.assert_allclose(got[place], want, atol=1e-12)


@pytest.mark.parametrize("how", ["macenko", "reinhard"])
def test_white_stays_white(how):
    image, _ = mixed()
    image[:20] = 1.0
    source = methods.estimate_stains(image) if how == "macenko" else methods.lab_statistics(image)
    np.testing.assert_array_equal(getattr(methods, how)(image, source)[:20], 1.0)


def test_two_scanners_become_one_picture():
    """The same tissue in two stains is the same after normalisation: to 3 grey levels, where it was 30 apart."""
    other = np.array([[0.45, 0.20], [0.80, 0.85], [0.40, 0.49]])
    one, _ = mixed()
    two, _ = mixed(other / np.linalg.norm(other, axis=0))
    assert np.abs(one - two).max() > 30 / 255
    assert np.abs(methods.macenko(one, methods.estimate_stains(one)) - methods.macenko(two, methods.estimate_stains(two))).max() < 3 / 255


def test_reinhard_meets_the_target_exactly_against_a_loop():
    image, _ = mixed()
    target = methods.LAB_MEAN, np.array([0.2, 0.02, 0.01])  # narrow: nothing is cut off at 0 or 255
    got = methods.reinhard(image, methods.lab_statistics(image), target)
    cones = np.array([[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]])

    def ruderman(pixel):
        long, middle, short = np.log(cones @ (np.maximum(pixel, 1 / 255) * 255))
        return (long + middle + short) / 3**0.5, (long + middle - 2 * short) / 6**0.5, (long - middle) / 2**0.5

    tissue = methods.tissue_weight(image) == 1
    assert got[tissue].min() > 1 / 255
    assert got[tissue].max() < 1
    found = np.array([ruderman(pixel) for pixel in got[tissue]])
    np.testing.assert_allclose(found.mean(axis=0), target[0], atol=1e-9)
    np.testing.assert_allclose(found.std(axis=0), target[1], atol=1e-9)


def test_reinhard_twice_is_once():
    image, _ = mixed()
    target = methods.LAB_MEAN, np.array([0.2, 0.02, 0.01])
    once = methods.reinhard(image, methods.lab_statistics(image), target)
    assert (
        np.abs(methods.reinhard(once, methods.lab_statistics(once), target) - once).max() < 3 / 255
    )  # a few pixels became, or ceased to be, tissue


@pytest.mark.parametrize("value", [1.0, 0.5])
def test_a_tile_of_one_colour_has_no_stains(value):
    flat = np.full((64, 64, 3), value)
    assert methods.estimate_stains(flat) is None
    assert methods.lab_statistics(flat) is None


def test_mixing_nothing_of_another_stain_is_the_identity_and_all_of_it_is_the_other():
    image, _ = mixed()
    own, other = methods.estimate_stains(image), methods.REFERENCE_STAINS
    np.testing.assert_allclose(
        methods.density_mapping(own, methods.interpolate_stains(own, other, 0.0), keep_rest=True), np.eye(3), atol=1e-9
    )
    whole = methods.interpolate_stains(own, other, 1.0)
    np.testing.assert_allclose(whole.vectors, other.vectors / np.linalg.norm(other.vectors, axis=0), atol=1e-12)
    np.testing.assert_allclose(whole.most, other.most)


class Slides:
    """Twelve tiles, each of its own two stains; as much of a store as views need."""

    def __init__(self):
        rng = np.random.default_rng(1)
        tint = [np.abs(KNOWN + rng.normal(0, 0.06, (3, 2))) for _ in range(12)]
        self.pixels = np.stack([mixed(t / np.linalg.norm(t, axis=0), 10_000, seed=i)[0] for i, t in enumerate(tint)]).astype(np.float32)

    def __len__(self):
        return len(self.pixels)

    def unit_images(self, index):
        return self.pixels[np.asarray(index)]


def views(store, positions, cfg, corpus=None, seed=3):
    raw = read_raw_batch(store, np.asarray(positions) % 12, np.asarray(positions), [cfg], None, seed, corpus=corpus)
    return raw, augment(to_planar_float(raw.images, raw.scale), raw.params[0], 100).permute(0, 2, 3, 1).numpy()


def test_stain_mixing_moves_stains_towards_the_partners_and_no_further():
    store, cfg = Slides(), Augment(stain_mix=1.0)
    raw, got = views(store, np.arange(12), cfg, corpus=np.array([7]))
    share = uniform(3, Purpose.STAIN_MIX, np.arange(12), 0, 3)[:, 1]
    partner = methods.estimate_stains(stain_mix.subsample_pixels(store.pixels[7]))
    for i in range(12):
        own = methods.estimate_stains(stain_mix.subsample_pixels(store.pixels[i]))
        want = (1 - share[i]) * own.vectors + share[i] * partner.vectors
        found = methods.estimate_stains(got[i])
        np.testing.assert_allclose(found.vectors, want / np.linalg.norm(want, axis=0), atol=0.03)
    assert np.array_equal(raw.params[0]["stain_map"][7].round(9), np.eye(3))  # with itself


def test_stain_mixing_is_a_function_of_the_position_alone():
    store, cfg = Slides(), Augment(stain_mix=0.5)
    _, whole = views(store, np.arange(12), cfg)
    _, part = views(store, [9, 4], cfg)
    np.testing.assert_array_equal(part, whole[[9, 4]])
    maps = views(store, np.arange(200), cfg)[0].params[0]["stain_map"]
    changed = (maps != np.eye(3)).any((1, 2)).mean()
    assert 0.4 < changed < 0.6


def test_no_stain_is_taken_from_outside_the_corpus():
    """Rows that are not trained on (another split) lend no stain."""
    store, cfg = Slides(), Augment(stain_mix=1.0)
    asked = []
    store.unit_images = lambda index: asked.extend(np.asarray(index).tolist()) or store.pixels[np.asarray(index)]
    read_raw_batch(store, np.array([0, 1]), np.arange(2), [cfg], None, 0, corpus=np.array([0, 1, 5]))
    assert set(asked) <= {0, 1, 5}
