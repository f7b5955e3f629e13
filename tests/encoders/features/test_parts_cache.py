"""Features of encoders made of parts are cached by part and equal the NumPy concatenation of the parts' features, bit for bit."""

import numpy as np
import pytest

from encoders.features import embed
from encoders.features.embed import extract_features, feature_cache_path, share_progress
from encoders.runtime.errors import InputError
from encoders.runtime.paths import cache_dir
from encoders.store.store import Store
from encoders.store.write import save_store
from encoders.zoo import zoo

A, B = "random_resnet10t:size=32,channels=1", "random_mobilenetv3_small_050:size=48"


@pytest.fixture
def images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (13, 40, 40, 1)).astype(np.uint8)
    return Store.open(save_store(tmp_path / "images.h5", pixels))


def numpy_joined(*features: np.ndarray) -> np.ndarray:
    return np.concatenate([x / np.linalg.norm(x, axis=1, keepdims=True) for x in features], axis=1)


@pytest.mark.parametrize("index", [None, [7, 0, 3]])
@pytest.mark.parametrize("cache", [True, False])
def test_joined_features_equal_those_of_the_parts_side_by_side(images, index, cache):
    each = [extract_features(zoo.load_encoder(name), images, index=index, cache=cache, batch=4) for name in (A, B)]
    got = extract_features(zoo.load_encoder(f"{A}+{B}"), images, index=index, cache=cache, batch=4)
    assert np.array_equal(got, numpy_joined(*each))
    other = extract_features(zoo.load_encoder(f"{A}+{B}"), images, index=index, cache=False, batch=3)
    assert np.abs(other - got).max() < 1e-6


def test_a_part_that_is_cached_is_not_embedded_again(images, monkeypatch):
    first = zoo.load_encoder(A)
    extract_features(first, images)
    embedded = []
    original = embed._feature_batches

    def spy(encoder, *rest):
        embedded.append(encoder.card.name)
        return original(encoder, *rest)

    monkeypatch.setattr(embed, "_feature_batches", spy)
    both = zoo.load_encoder(f"{A}+{B}")
    extract_features(both, images)
    extract_features(both, images)
    extract_features(zoo.load_encoder(B), images)
    assert embedded == [B]
    assert len(list((cache_dir() / "features").iterdir())) == 2
    assert not feature_cache_path(both, images, "pooled").exists()


def test_the_statistics_of_images_of_several_sizes_need_no_resizing(tmp_path):
    draw = np.random.default_rng(0)
    pixels = [draw.integers(0, 256, (3, 40 + 7 * i, 60, 1)).astype(np.uint8) for i in range(2)]
    paths = [save_store(tmp_path / f"{i}.h5", images, dataset=f"d{i}") for i, images in enumerate(pixels)]
    store = Store.open([str(path) for path in paths])
    assert store.shape is None
    encoder = zoo.load_encoder("pixels")
    want = np.concatenate([encoder.encode(images).numpy() for images in pixels])
    assert np.array_equal(extract_features(encoder, store, batch=4), want)


def test_each_image_is_counted_once_and_tokens_are_refused(images):
    counted = []
    extract_features(zoo.load_encoder(f"{A}+{B}"), images, batch=4, progress=counted.append)
    assert sum(counted) == len(images)
    told = []
    report = share_progress(told.append, 3)
    for n in (5, 1, 5, 1, 5, 1):
        report(n)
    assert sum(told) == 6
    with pytest.raises(InputError, match="has only pooled features"):
        extract_features(zoo.load_encoder(f"{A}+{B}"), images, "tokens")
