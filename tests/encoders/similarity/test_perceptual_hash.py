"""Copies are found and different images are not, on synthetic images and on real radiographs."""

import io
import time

import numpy as np
import pytest
from PIL import Image

from encoders.ingest.decode import read_image
from encoders.similarity.hash_search import find_near_pairs
from encoders.similarity.perceptual_hash import (
    HASH_RADIUS,
    group_exact_duplicates,
    hash_signs,
    hash_signs_tiles,
    phash256,
    pixel_sha256,
)
from encoders.similarity.pixel_check import MIN_CORRELATION, structure_correlation


def bits(a, b):
    return int(np.unpackbits(a ^ b).sum())


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
    gray[30:40, :, : size[1] // 4] = 0  # a border
    signs = hash_signs_tiles(gray)
    np.testing.assert_array_equal(signs, [hash_signs(image[..., None]) for image in gray])
    np.testing.assert_array_equal(signs[:, 0], [phash256(image[..., None]) for image in gray])
    assert not signs[20].any()
    assert not (signs[:, 0] & signs[:, 1]).any(), "no cell is both brighter and darker than its neighbour"


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
