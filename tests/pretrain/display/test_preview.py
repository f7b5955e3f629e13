"""The preview shows the views of the run's first step with their augmentation, and writes one picture."""

import numpy as np
import pytest
import torch
from PIL import Image

from encoders.augment.draw import draw_params
from encoders.augment.presets import get_preset
from encoders.ingest.phantom.source import PhantomSource
from encoders.runtime.errors import InputError
from pretrain.display.preview import (
    build_columns,
    denormalise_views,
    describe_augmentation,
    hidden_pixel_mask,
    make_first_views,
    write_preview,
)
from pretrain.loop.setup import build_setup
from pretrain.recipe import config

TINY = {
    "cxr_moco_tiny": ["arch=resnet10t", "method.hidden=16", "method.dim=8", "method.queue=16"],
    "cxr_mae_tiny": ["model_args={patch_size: 8, depth: 1}", "method.decoder_depth=1", "augment.crop=null", "augment.flip=0"],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store of sixteen or more phantom radiographs."""
    from encoders.ingest.shards import ingest

    out = tmp_path_factory.mktemp("preview") / "phantoms.h5"
    ingest(PhantomSource("cxr", patients=12, size=64), out, workers=1)
    return out


def recipe(name, store):
    return config.load_recipe(name, [f"data.store={store}", "size=64", "batch=8", *TINY[name]])


def test_the_views_shown_are_those_of_the_first_step(store):
    setup = build_setup(recipe("cxr_moco_tiny", store), "cpu")
    raw, views = make_first_views(setup, 3)
    micro = next(setup.batches.micro_batches(0))
    assert raw.index.tolist() == micro.index[:3].tolist()
    assert all(torch.equal(a, b[:3]) for a, b in zip(views, micro.views, strict=True))


def test_pictures_are_denormalised(store):
    setup = build_setup(recipe("cxr_mae_tiny", store), "cpu")
    raw, views = make_first_views(setup, 2)
    stored = setup.corpus.store.unit_images(raw.index.numpy())
    np.testing.assert_allclose(denormalise_views(views[0], setup.card.preprocess), stored, atol=1e-5)


def test_mae_shows_masked_input_reconstruction_and_target(store):
    setup = build_setup(recipe("cxr_mae_tiny", store), "cpu")
    raw, views = make_first_views(setup, 2)
    columns = build_columns(setup, raw, views, step=7)
    masked, reconstruction, target = columns.pictures
    hidden = hidden_pixel_mask(setup.method.grid, raw.masks[0], views[0])
    assert hidden.mean() == pytest.approx(0.75)
    np.testing.assert_allclose(masked[~hidden], target[~hidden], atol=1e-5)
    np.testing.assert_allclose(reconstruction[~hidden], target[~hidden], atol=1e-5)
    assert (masked[hidden] == np.float32(0.6)).all()
    assert abs(reconstruction[hidden] - target[hidden]).max() > 0.01
    assert "step 7" in columns.titles[1]
    assert not columns.are_views


@pytest.mark.parametrize("name", TINY)
def test_a_preview_is_one_file_and_reproducible(store, tmp_path, name):
    first, second = (write_preview(recipe(name, store), tmp_path / f"{i}.png", n=2) for i in (1, 2))
    assert first.read_bytes() == second.read_bytes()
    assert np.asarray(Image.open(first)).std() > 10
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1.png", "2.png"]


def test_a_preview_needs_no_weights_and_no_full_batch(store, tmp_path, monkeypatch):
    monkeypatch.setattr("encoders.zoo.zoo.load_encoder", None)
    words = ["arch=null", "init=imagenet_resnet18:size=64", f"data.store={store}", "size=64", "batch=512"]
    with Image.open(write_preview(config.load_recipe("cxr_moco_tiny", words), tmp_path / "p.png", 2)) as picture:
        assert picture.width > 500


def test_only_operations_with_an_effect_are_described():
    assert (
        describe_augmentation({name: value[0] for name, value in draw_params(get_preset("none"), 0, [0], 0, (64, 64)).items()})
        == "crop only"
    )
    words = describe_augmentation({"flip": (True, False), "angle": -4.2, "turn": 1, "blur": 0.0, "brightness": 1.1, "grayscale": True})
    assert words.replace("\n", ", ") == "flip, turn 90, -4 deg, brightness x1.10, grayscale"


def test_another_format_than_png_is_an_error_before_anything_is_built(tmp_path):
    with pytest.raises(InputError, match=r"use a name like views.png"):
        write_preview(config.load_recipe("cxr_moco_tiny"), tmp_path / "views.jpg")
