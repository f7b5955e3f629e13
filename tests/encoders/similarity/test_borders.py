"""Uniform borders are removed to a fraction of a pixel, and images without a border are left alone."""

import numpy as np
import pytest

from encoders.similarity.borders import trim_borders
from tests.encoders.similarity.pictures import padded, recompressed, resized, textured


def gray(image):
    return image[..., 0].astype(np.float32)


@pytest.mark.parametrize("value", [0, 128, 255])
@pytest.mark.parametrize("sides", [(0.1, 0.1, 0.1, 0.1), (0.2, 0, 0, 0), (0, 0, 0.05, 0.3)])
def test_padding_is_removed_exactly(value, sides):
    for seed in range(8):
        image = np.clip(textured(seed), 30, 225)
        edge = (160 if value < 200 else 60) + np.arange(96)[:, None] % 2 * 40  # far from the border, and not uniform itself
        image[0], image[-1], image[:, 0], image[:, -1] = (edge,) * 4
        found = trim_borders(gray(padded(image, value, *sides)))
        np.testing.assert_array_equal(found.gray, gray(image))
        assert found.box == (0, 0, 96, 96)


def test_an_image_without_a_border_is_left_alone():
    assert [trim_borders(gray(textured(seed))) for seed in range(20)] == [None] * 20
    assert trim_borders(np.full((40, 40), 7, np.float32)) is None
    sparse = np.zeros((80, 80), np.float32)
    sparse[30:40, 30:40] = gray(textured(0))[:10, :10]
    assert trim_borders(sparse) is None, "less than a quarter of a side would be left"


def test_noise_of_jpeg_in_the_border_is_tolerated():
    for seed in range(8):
        found = trim_borders(gray(recompressed(padded(textured(seed), 0), 60)))
        assert np.abs(np.subtract(found.gray.shape, 96)).max() <= 3


@pytest.mark.parametrize("side", [50, 77, 131])
def test_the_edge_of_a_resized_border_is_found_within_a_third_of_a_pixel(side):
    """116 pixels, of them 10 of border on every side, are resized, so that the border ends within a pixel."""
    for seed in range(8):
        image = np.maximum(textured(seed), 120)
        found = trim_borders(gray(resized(padded(image), side)))
        left, top, right, bottom = found.box
        for length in (right - left, bottom - top):
            assert length == pytest.approx(96 / 116 * side, abs=0.67)


def test_a_border_is_found_whatever_the_range_of_values_and_in_every_turn():
    image = padded(textured(3), 0, 0.1, 0.2, 0, 0.05)
    plain = trim_borders(gray(image))
    scaled = trim_borders(gray(image) * 257)
    np.testing.assert_array_equal(scaled.gray, plain.gray * 257)
    inverted = trim_borders(-gray(image)[::-1].T)
    np.testing.assert_array_equal(inverted.gray, -plain.gray[::-1].T)
