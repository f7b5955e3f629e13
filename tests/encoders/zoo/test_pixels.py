"""The features of `pixels` against NumPy."""

import numpy as np
import pytest

from encoders.runtime.errors import InputError
from encoders.zoo import lineage, listing, register, zoo
from encoders.zoo.pixels import PIXELS_DIM


def numpy_features(image: np.ndarray) -> np.ndarray:
    """(294,) features of one image (H, W, C) in [0, 1], H and W multiples of 16."""
    gray = image[..., 0] if image.shape[2] == 1 else image @ np.array([0.299, 0.587, 0.114])
    histogram = np.array([np.mean((gray >= i / 32) & ((gray < (i + 1) / 32) | (i == 31))) for i in range(32)])
    h, w = gray.shape
    thumbnail = gray.reshape(16, h // 16, 16, w // 16).mean(axis=(1, 3)).ravel()
    colour = np.stack([image[..., c] - gray for c in (0, 2)]) if image.shape[2] == 3 else np.zeros((2, h, w))
    return np.concatenate([histogram, [gray.mean(), gray.std()], thumbnail, colour.mean(axis=(1, 2)), colour.std(axis=(1, 2))])


@pytest.mark.parametrize("channels", [1, 3])
def test_features_equal_their_definition(channels):
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 48, channels)).astype(np.uint8)
    got = zoo.load_encoder("pixels").encode(images).numpy()
    assert got.shape == (4, PIXELS_DIM)
    assert np.allclose(got, [numpy_features(image / 255) for image in images], atol=1e-5)


def test_a_gray_image_has_the_same_features_however_it_is_stored():
    gray = np.random.default_rng(0).integers(0, 256, (4, 33, 50, 1)).astype(np.uint8)
    encoder = zoo.load_encoder("pixels")
    one, three, deep = (encoder.encode(x).numpy() for x in (gray, np.repeat(gray, 3, axis=3), gray.astype(np.uint16) * 257))
    assert np.allclose(one, three, atol=1e-6)
    assert np.allclose(one, deep, atol=1e-6)
    assert not one[:, -4:].any()
    assert not three[:, -4:].any()


def test_it_is_listed_verified_and_has_nothing_to_export(tmp_path):
    assert "pixels" in listing.list_encoder_names()
    assert all(check.passed for check in register.verify_encoder("pixels"))
    assert lineage.describe_lineage("pixels") == "pixels"
    with pytest.raises(InputError, match="no weights to export"):
        register.export_encoder("pixels", tmp_path / "x.safetensors")
    with pytest.raises(InputError, match="no tokens"):
        zoo.load_encoder("pixels").encode(np.zeros((1, 32, 32), np.uint8), "tokens")
