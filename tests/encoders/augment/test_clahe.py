"""CLAHE against OpenCV, and what it leaves alone."""

import cv2
import numpy as np
import pytest
import torch

from encoders.augment.apply import augment
from encoders.augment.clahe import equalise_tiles
from encoders.augment.config import Augment
from encoders.augment.draw import draw_params


def picture(size, seed=0):
    """(S, S) uint8: smooth, of low contrast, with some noise."""
    rng = np.random.default_rng(seed)
    smooth = cv2.resize(rng.random((6, 6)).astype(np.float32), (size, size), interpolation=cv2.INTER_LINEAR)
    return np.clip(70 + 90 * smooth + rng.normal(0, 5, (size, size)), 0, 255).astype(np.uint8)


def equalised(image, limit):
    x = torch.from_numpy(image.astype(np.float32) / 255)
    x = x[None, None] if x.ndim == 2 else x.permute(2, 0, 1)[None]
    out = equalise_tiles(x.contiguous(), torch.tensor(limit))[0]
    return out[0].numpy() if len(out) == 1 else out.permute(1, 2, 0).numpy()


@pytest.mark.parametrize("size", [19, 64, 100, 224])
def test_without_a_limit_it_is_that_of_opencv_to_a_level(size):
    want = cv2.createCLAHE(clipLimit=1e6, tileGridSize=(8, 8)).apply(picture(size))
    assert np.abs(255 * equalised(picture(size), 1e6) - want).max() < 1.0


@pytest.mark.parametrize("limit", [1.0, 3.0])
def test_with_a_limit_it_is_that_of_opencv_where_rounding_to_pixels_is_small(limit):
    """OpenCV spreads up to 255 pixels of the excess unevenly: in tiles of 16,384 pixels that is less than two levels."""
    image = picture(1024)
    want = cv2.createCLAHE(clipLimit=limit, tileGridSize=(8, 8)).apply(image)
    assert np.abs(255 * equalised(image, limit) - want).max() < 2.0
    assert np.abs(image.astype(float) - want).mean() > 3


def test_a_colour_image_is_changed_in_its_luma_alone():
    image = np.stack([picture(64, seed) for seed in range(3)], axis=-1)
    got = equalised(image, 1.5)
    before, after = (cv2.cvtColor(x.astype(np.float32), cv2.COLOR_RGB2YCrCb) for x in (image / 255, got))
    inside = (got > 0).all(-1) & (got < 1).all(-1)
    np.testing.assert_allclose(after[inside][:, 1:], before[inside][:, 1:], atol=1e-4)  # the differences from the luma
    luma = cv2.cvtColor((image / 255).astype(np.float32), cv2.COLOR_RGB2GRAY)
    x = equalise_tiles(torch.from_numpy(luma)[None, None].clone(), torch.tensor(1.5))[0, 0].numpy()
    np.testing.assert_allclose(after[inside][:, 0], x[inside], atol=1e-4)


def test_images_of_16_bits_keep_their_depth():
    fine = torch.linspace(0.2, 0.4, 64 * 64).view(1, 1, 64, 64)
    assert len(equalise_tiles(fine.clone(), torch.tensor(2.0)).unique()) > 4000


def test_the_limit_is_drawn_within_its_range_for_the_asked_share_of_images():
    limit = draw_params(Augment(clahe=0.3, clahe_limit=(1.5, 2.5)), 0, np.arange(4000), 0, (32, 32))["clahe"]
    assert np.mean(limit > 0) == pytest.approx(0.3, abs=0.03)
    used = limit[limit > 0]
    assert (used.min(), used.max()) == pytest.approx((1.5, 2.5), abs=0.01)
    batch = torch.rand(8, 1, 32, 32)
    got = augment(batch, draw_params(Augment(clahe=0.5), 0, np.arange(8), 0, (32, 32)), 32)
    changed = (got != batch).flatten(1).any(1).numpy()
    assert (changed == (draw_params(Augment(clahe=0.5), 0, np.arange(8), 0, (32, 32))["clahe"] > 0)).all()
    assert 0 < changed.sum() < 8
