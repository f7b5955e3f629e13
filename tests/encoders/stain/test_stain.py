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
    """A tile of two known stains: pure pixels of each among mixtures, so that the extreme angles are the stains."""
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(0.3, 1.2, (pixels, 2))
    amounts[: pixels // 10, 1] = 0
    amounts[pixels // 10 : pixels // 5, 0] = 0
    amounts[: pixels // 5] = np.where(amounts[: pixels // 5] > 0, 1.5, 0)
    return np.exp(-amounts @ vectors.T).reshape(-1, 100, 3), amounts


def published(image):
    """Stain vectors by the steps of the authors' code, on densities as defined here."""
    od = -np.log(np.maximum(image.reshape(-1, 3), 1 / 255))
    od = od[(od[:, 0] + od[:, 1] + od[:, 2]) / 3 >= 0.15]
    _, axes = np.linalg.eigh(np.cov(od.T))
    axes = axes * np.sign(axes.sum(axis=0))
    that = od @ axes[:, 1:3]
    phi = np.arctan2(that[:, 1], that[:, 0])
    low, high = np.percentile(phi, 1), np.percentile(phi, 99)
    first, second = (axes[:, 1:3] @ [np.cos(a), np.sin(a)] for a in (low, high))
    return np.array([first, second] if first[0] > second[0] else [second, first]).T


def test_known_stains_are_recovered():
    image, _ = mixed()
    stains = methods.estimate_stains(image)
    angle = np.rad2deg(np.arccos(np.clip((stains.vectors * KNOWN).sum(axis=0), -1, 1)))
    assert angle.max() < 1.0
    np.testing.assert_allclose(stains.vectors, published(image), atol=1e-8)
    np.testing.assert_allclose(np.linalg.norm(stains.vectors, axis=0), 1, atol=1e-12)


def test_the_reference_is_the_published_one():
    np.testing.assert_array_equal(methods.REFERENCE_STAINS.vectors, [[0.5626, 0.2159], [0.7201, 0.8012], [0.4062, 0.5581]])
    np.testing.assert_array_equal(methods.REFERENCE_STAINS.max_concentrations, [1.9705, 1.0308])
    np.testing.assert_allclose(
        np.linalg.norm(methods.REFERENCE_STAINS.vectors, axis=0), 1, atol=2e-3
    )  # its columns have unit length to four digits


def test_macenko_gives_the_reference_stains_and_is_idempotent():
    image, _ = mixed()
    once = methods.macenko(image, methods.estimate_stains(image))
    again = methods.estimate_stains(once)
    np.testing.assert_allclose(again.vectors, methods.REFERENCE_STAINS.vectors, atol=0.02)
    np.testing.assert_allclose(again.max_concentrations, methods.REFERENCE_STAINS.max_concentrations, rtol=0.02)
    assert np.abs(methods.macenko(once, again) - once).max() < 3 / 255


def test_macenko_equals_least_squares_and_rescaling_per_pixel():
    image, _ = mixed(pixels=500)
    source = methods.estimate_stains(image)
    got = methods.macenko(image, source)
    for place in [(0, 0), (2, 30), (4, 99)]:
        amounts = np.linalg.lstsq(source.vectors, -np.log(image[place]), rcond=None)[0]
        want = np.exp(-(methods.HE_REFERENCE @ (amounts / source.max_concentrations * methods.MAX_CONCENTRATIONS_REFERENCE)))
        np.testing.assert_allclose(got[place], want, atol=1e-12)


@pytest.mark.parametrize("how", ["macenko", "reinhard"])
def test_white_stays_white(how):
    image, _ = mixed()
    image[:20] = 1.0
    source = methods.estimate_stains(image) if how == "macenko" else methods.lab_statistics(image)
    np.testing.assert_array_equal(getattr(methods, how)(image, source)[:20], 1.0)


def test_normalisation_removes_the_difference_of_two_scanners():
    """The same tissue in two stains differs by less than 3 grey levels after normalisation, and by more than 30 before."""
    other = np.array([[0.45, 0.20], [0.80, 0.85], [0.40, 0.49]])
    one, _ = mixed()
    two, _ = mixed(other / np.linalg.norm(other, axis=0))
    assert np.abs(one - two).max() > 30 / 255
    assert np.abs(methods.macenko(one, methods.estimate_stains(one)) - methods.macenko(two, methods.estimate_stains(two))).max() < 3 / 255


def test_reinhard_reaches_the_target_statistics_exactly():
    image, _ = mixed()
    target = methods.LAB_MEAN, np.array([0.2, 0.02, 0.01])  # narrow: no value is clipped at 0 or 255
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


def test_reinhard_is_idempotent():
    image, _ = mixed()
    target = methods.LAB_MEAN, np.array([0.2, 0.02, 0.01])
    once = methods.reinhard(image, methods.lab_statistics(image), target)
    assert (
        np.abs(methods.reinhard(once, methods.lab_statistics(once), target) - once).max() < 3 / 255
    )  # a few pixels change between tissue and glass


@pytest.mark.parametrize("value", [1.0, 0.5])
def test_a_tile_of_one_colour_has_no_stains(value):
    flat = np.full((64, 64, 3), value)
    assert methods.estimate_stains(flat) is None
    assert methods.lab_statistics(flat) is None


def test_mixing_with_share_0_is_the_identity_and_with_share_1_the_other_stain():
    image, _ = mixed()
    own, other = methods.estimate_stains(image), methods.REFERENCE_STAINS
    np.testing.assert_allclose(
        methods.density_mapping(own, methods.interpolate_stains(own, other, 0.0), keep_rest=True), np.eye(3), atol=1e-9
    )
    whole = methods.interpolate_stains(own, other, 1.0)
    np.testing.assert_allclose(whole.vectors, other.vectors / np.linalg.norm(other.vectors, axis=0), atol=1e-12)
    np.testing.assert_allclose(whole.max_concentrations, other.max_concentrations)


class Slides:
    """Twelve tiles, each with its own two stains, with the parts of a store that views need."""

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


def test_stain_mixing_interpolates_between_the_stains_of_both_images():
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


def test_stain_mixing_depends_only_on_the_position():
    store, cfg = Slides(), Augment(stain_mix=0.5)
    _, whole = views(store, np.arange(12), cfg)
    _, part = views(store, [9, 4], cfg)
    np.testing.assert_array_equal(part, whole[[9, 4]])
    maps = views(store, np.arange(200), cfg)[0].params[0]["stain_map"]
    changed = (maps != np.eye(3)).any((1, 2)).mean()
    assert 0.4 < changed < 0.6


def test_no_stain_is_taken_from_outside_the_corpus():
    """Rows outside the training split are not used as partners."""
    store, cfg = Slides(), Augment(stain_mix=1.0)
    asked = []
    store.unit_images = lambda index: asked.extend(np.asarray(index).tolist()) or store.pixels[np.asarray(index)]
    read_raw_batch(store, np.array([0, 1]), np.arange(2), [cfg], None, 0, corpus=np.array([0, 1, 5]))
    assert set(asked) <= {0, 1, 5}
