import numpy as np
import pytest
import torch

import encoders
from encoders.runtime.errors import InputError
from encoders.runtime.random import random_bits


@pytest.fixture(scope="module")
def encoder():
    return encoders.load("random_resnet10t:size=64")


def radiographs(b=7, h=80, w=70):
    return (random_bits(0, 6, np.arange(b), n=h * w) % 256).reshape(b, h, w).astype(np.uint8)


def test_encode_returns_one_vector_or_tokens_per_image(encoder):
    x = radiographs()
    assert encoder.encode(x).shape == (7, 512)
    assert encoder.encode(x, "tokens").shape == (7, 4, 512)
    assert encoder.encode(x).dtype == torch.float32


def test_every_layout_and_depth_of_the_same_images_gives_the_same_features(encoder):
    x = radiographs()
    want = encoder.encode(x)
    same = [
        x[..., None],
        x.astype(np.float32) / 255,
        x.astype(np.float64) / 255,
        x.astype(np.uint16) * 257,  # 65535 / 255
        torch.from_numpy(x)[:, None] / 255,
        np.repeat(x[..., None], 3, axis=-1),
    ]
    assert all(torch.allclose(encoder.encode(other), want, atol=1e-4) for other in same)


def test_the_batch_size_does_not_change_the_features(encoder):
    x = radiographs()
    want = encoder.encode(x, batch=64)
    for batch in (1, 2, 5):
        assert (encoder.encode(x, batch=batch) - want).abs().max() <= 1e-5


def test_encoding_does_not_change_the_network(encoder):
    before = {k: v.clone() for k, v in encoder.model.state_dict().items()}
    encoder.model.train()
    first = encoder.encode(radiographs())
    assert torch.equal(first, encoder.encode(radiographs()))
    assert all(torch.equal(v, before[k]) for k, v in encoder.model.state_dict().items())  # no BatchNorm statistics updated


def test_a_head_can_be_trained_on_the_features(encoder):
    linear = torch.nn.Linear(512, 1)
    linear(encoder.encode(radiographs())).sum().backward()
    assert linear.weight.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (np.full((2, 8, 8), 200.0, np.float32), "values from 200 to 200"),
        (np.full((2, 8, 8), np.nan, np.float32), "nan"),
        (np.zeros((2, 8, 8), np.int64), "int64, expected uint8"),
        (np.zeros((64, 64, 3), np.uint8), r"pass images\[None\]"),
        (np.zeros((2, 8, 8, 2), np.uint8), "1 or 3 channels"),
        (np.zeros((0, 8, 8), np.uint8), "no image"),
    ],
)
def test_invalid_images_are_rejected(encoder, images, says):
    with pytest.raises(InputError, match=says):
        encoder.encode(images)


def test_an_unknown_kind_of_features_is_rejected(encoder):
    with pytest.raises(InputError, match="choose pooled or tokens"):
        encoder.encode(radiographs(), "cls")


def test_the_hash_depends_on_weights_network_and_preprocessing():
    names = [
        "random_resnet10t:size=64",
        "random_resnet10t:size=64,seed=1",
        "random_resnet10t:size=96",
        "random_resnet10t:size=64,channels=1",
    ]
    hashes = [encoders.load(name).sha256 for name in names]
    assert len(set(hashes)) == len(names)
    assert encoders.load(names[0]).sha256 == hashes[0]
    assert len(hashes[0]) == 64
