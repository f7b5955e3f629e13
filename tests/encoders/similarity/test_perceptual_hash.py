"""Copies are found and different images are not, on synthetic images and on real radiographs."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from encoders.ingest.decode import read_image
from encoders.similarity import perceptual_hash
from encoders.similarity.perceptual_hash import (
    HASH_RADIUS,
    find_near_pairs,
    find_nearest_few,
    group_exact_duplicates,
    phash256,
    phash256_tiles,
    pixel_sha256,
)
from encoders.similarity.pixel_check import MIN_CORRELATION, structure_correlation


def bits(a, b):
    return int(np.unpackbits(a ^ b).sum())


@pytest.mark.parametrize("radius", [0, 5, 100])
def test_near_pairs_equal_a_loop_over_all_pairs(radius):
    rng = np.random.default_rng(0)
    a = rng.integers(0, 256, (40, 32), dtype=np.uint8)
    a[7], a[9] = a[3], a[4] ^ np.eye(1, 32, 0, dtype=np.uint8)[0] * 7  # identical; three bits apart
    want = sorted((bits(a[i], a[j]), i, j) for i in range(40) for j in range(i + 1, 40) if bits(a[i], a[j]) <= radius)
    pairs, distance = find_near_pairs(a, radius=radius)
    assert [(d, i, j) for (i, j), d in zip(pairs.tolist(), distance.tolist(), strict=True)] == want
    across, _ = find_near_pairs(a[:10], a[10:], radius=radius)
    assert sorted(map(tuple, across.tolist())) == sorted((i, j) for i in range(10) for j in range(30) if bits(a[i], a[10 + j]) <= radius)


@pytest.mark.parametrize(("n", "m"), [(30, 90), (90, 30)])
@pytest.mark.parametrize("max_matches", [1, 3, 100])
def test_the_nearest_few_equal_a_loop_for_any_sizes_and_chunks(n, m, max_matches, monkeypatch):
    monkeypatch.setattr(perceptual_hash, "HASH_CHUNK", 7)
    rng = np.random.default_rng(1)
    kinds = rng.integers(0, 256, (6, 32), dtype=np.uint8)  # hashes in clusters, as of similar images, with many ties
    a, b = (kinds[rng.integers(0, 6, k)] ^ (rng.random((k, 32)) < 0.08).astype(np.uint8) for k in (n, m))
    want = []
    for i in range(n):
        want += sorted((bits(a[i], b[j]), j, i) for j in range(m) if bits(a[i], b[j]) <= HASH_RADIUS)[:max_matches]
    pairs, distance = find_nearest_few(a, b, max_matches=max_matches)
    assert [(d, j, i) for (i, j), d in zip(pairs.tolist(), distance.tolist(), strict=True)] == want
    assert len(want) > n / 2


def test_no_images_have_no_pairs():
    pairs, distance = find_near_pairs(np.empty((0, 32), np.uint8))
    assert pairs.shape == (0, 2)
    assert distance.shape == (0,)


def test_exact_groups_are_rows_with_the_same_hash():
    assert group_exact_duplicates(["x", "y", "x", "z", "y", "x"]) == [[0, 2, 5], [1, 4]]


def test_the_pixel_hash_depends_on_shape_and_dtype():
    image = np.zeros((4, 6, 1), np.uint8)
    assert (
        len({pixel_sha256(image), pixel_sha256(image.reshape(6, 4, 1)), pixel_sha256(image.astype(np.uint16)), pixel_sha256(image + 1)})
        == 4
    )
    assert pixel_sha256(image) == pixel_sha256(np.zeros((4, 12, 1), np.uint8)[:, ::2])  # independent of the memory layout


def test_the_perceptual_hash_ignores_bit_depth_and_replicated_channels():
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 1), dtype=np.uint8)
    assert bits(phash256(image), phash256(image.astype(np.uint16) * 257)) <= 1
    assert bits(phash256(image), phash256(image.repeat(3, axis=2))) <= 1


@pytest.mark.parametrize("size", [(64, 64), (37, 50), (128, 96), (9, 16), (5, 7)])
def test_batched_hashes_equal_single_ones_and_flat_areas_set_no_bits(size):
    rng = np.random.default_rng(2)
    gray = rng.integers(0, 256, (60, *size), dtype=np.uint8)
    gray[:20] = np.clip(rng.normal(240, 1, (20, *size)), 0, 255)  # near white, where rounding matters
    gray[20], gray[21, :, : size[1] // 2] = 255, 3
    hashes = phash256_tiles(gray)
    np.testing.assert_array_equal(hashes, [phash256(image[..., None]) for image in gray])
    assert not hashes[20].any()


def jpeg50(image):
    blob = io.BytesIO()
    Image.fromarray(image[..., 0]).save(blob, "JPEG", quality=50)
    return np.asarray(Image.open(blob))[..., None]


def resized(image, side):
    return np.asarray(Image.fromarray(image[..., 0]).resize((side, side), Image.Resampling.BICUBIC))[..., None]


def gamma(image, power):
    return np.rint(255 * (image / 255) ** power).astype(np.uint8)


CHANGES = {
    "jpeg q50": jpeg50,
    "to 128 px": lambda i: resized(i, 128),
    "to 448 px": lambda i: resized(i, 448),
    "gamma 0.8": lambda i: gamma(i, 0.8),
    "gamma 1.25": lambda i: gamma(i, 1.25),
}


@pytest.fixture(scope="module")
def radiographs(data_dir):
    """Kermany's images, one channel, and the patient of each."""
    paths = sorted((data_dir / "cxr_kermany224" / "images").iterdir())
    return [read_image(path)[..., :1] for path in paths], [path.name.split("_")[1].removesuffix(path.suffix) for path in paths]


@pytest.mark.real
@pytest.mark.slow
def test_on_real_radiographs_copies_are_within_the_radius_and_different_images_outside(radiographs):
    images, _ = radiographs
    begun = time.process_time()
    hashes = np.stack([phash256(image) for image in images])
    assert (time.process_time() - begun) / len(images) < 2e-3  # about 0.1 ms on a free core
    sha = [pixel_sha256(image) for image in images]
    groups = group_exact_duplicates(sha)
    assert len(groups) == 30  # as many as there are groups of equal files
    pairs, _ = find_near_pairs(hashes, radius=HASH_RADIUS)
    different = [(i, j) for i, j in pairs.tolist() if sha[i] != sha[j]]
    assert different == []
    assert {tuple(p) for p in pairs.tolist()} == {(i, j) for g in groups for i in g for j in g if i < j}
    for name, change in CHANGES.items():
        far = [bits(phash256(change(images[i])), hashes[i]) for i in range(0, len(images), 25)]
        assert max(far) <= HASH_RADIUS, name
    for name, change in CHANGES.items():
        least = min(structure_correlation(change(images[i]) / 255, images[i] / 255) for i in range(0, len(images), 100))
        assert least > MIN_CORRELATION, name  # the pixels confirm what the hash suspects


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("folder", ["cxr_hannover", "path_lc25000_lung224"])
def test_real_images_that_are_not_copies_are_not_confirmed(data_dir, folder):
    """Neither exposures of one patient nor the rotated and flipped copies of LC25000."""
    paths = sorted((data_dir / folder / "images").iterdir())[:243]
    images = [read_image(path) / 255 for path in paths]
    for i, j in zip(range(243), np.random.default_rng(0).permutation(243), strict=True):
        assert i == j or structure_correlation(images[i], images[j]) < MIN_CORRELATION
    hashes = np.stack([phash256((image * 255).astype(np.uint8)) for image in images])
    near, _ = find_near_pairs(hashes, radius=40)
    assert all(structure_correlation(images[i], images[j]) < MIN_CORRELATION for i, j in near[:100])
