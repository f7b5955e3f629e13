"""The preview shows the views of the run's first step with their augmentation, and writes one picture."""

import numpy as np
import pytest
import torch
from PIL import Image

from encoders.augment.draw import draw_params
from encoders.augment.picture import describe_augmentation
from encoders.augment.presets import get_preset
from encoders.ingest.phantom.source import PhantomSource
from encoders.runtime.errors import InputError
from pretrain.display.preview import draw_preview, make_first_views, write_preview
from pretrain.display.preview_columns import HIDDEN_GRAY, build_columns, denormalise_views, hidden_pixel_mask
from pretrain.loop.setup import build_setup
from pretrain.recipe import config

TINY = {
    "cxr_moco_tiny": ["arch=test_resnet", "method.hidden=16", "method.dim=8", "method.queue=16"],
    "cxr_mae_tiny": ["model_args={patch_size: 8, depth: 1}", "method.decoder_depth=1", "augment.crop=null", "augment.flip=0"],
    "cxr_simmim_tiny": ["model_args={patch_size: 8, depth: 1, embed_dim: 48, num_heads: 3}"],
    "cxr_spark_tiny": ["arch=test_resnet", "method.decoder_width=16"],
    "cxr_dinov2_tiny": ["model_args.depth=1", "method.prototypes=16", "method.n_local=1", "method.mask_probability=0.6"],
    "cxr_ijepa_tiny": ["model_args.depth=1", "method.predictor_depth=1", "method.targets=3"],
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
    masked, reconstruction, target = (column.pictures for column in columns)
    hidden = hidden_pixel_mask(setup.method.grid, raw.masks[0].hidden, views[0])
    assert hidden.mean() == pytest.approx(0.75)
    np.testing.assert_allclose(masked[~hidden], target[~hidden], atol=1e-5)
    np.testing.assert_allclose(reconstruction[~hidden], target[~hidden], atol=1e-5)
    assert (masked[hidden] == np.float32(0.6)).all()
    assert abs(reconstruction[hidden] - target[hidden]).max() > 0.01
    assert "step 7" in columns[1].title
    assert all(column.view is None for column in columns)


def hidden_by_hand(hidden, rows, columns, size):
    """(n, size, size) true for the pixels of hidden patches, pixel by pixel.  hidden: sets of patches, one per image."""
    side = size // rows
    return np.array([[[(y // side) * columns + x // side in own for x in range(size)] for y in range(size)] for own in hidden])


@pytest.mark.parametrize("name", ["cxr_simmim_tiny", "cxr_spark_tiny"])
def test_every_method_that_reconstructs_shows_what_it_hides(store, name):
    setup = build_setup(recipe(name, store), "cpu")
    raw, views = make_first_views(setup, 3)
    masked, _, target = (column.pictures for column in build_columns(setup, raw, views, None))
    sets = [set(np.flatnonzero(row)) for row in raw.masks[0].hidden.numpy()]
    hidden = hidden_by_hand(sets, *setup.method.grid, 64)
    assert 0.5 < hidden.mean() < 0.7
    assert (masked[hidden] == np.float32(HIDDEN_GRAY)).all()
    np.testing.assert_allclose(masked[~hidden], target[~hidden], atol=1e-5)


def test_dinov2_shows_each_masked_view_beside_the_whole_one(store):
    setup = build_setup(recipe("cxr_dinov2_tiny", store), "cpu")
    raw, views = make_first_views(setup, 8)
    columns = build_columns(setup, raw, views, None)
    assert [column.view for column in columns] == [0, None, 1, None, 2]  # the local view is never masked
    grid = setup.method.mask_spec()
    for view, (whole, seen) in enumerate([columns[:2], columns[2:4]]):
        sets = [set(np.flatnonzero(row)) for row in raw.masks[view].hidden.numpy()]
        hidden = hidden_by_hand(sets, grid.rows, grid.columns, 64)
        assert (seen.pictures[hidden] == np.float32(HIDDEN_GRAY)).all()
        np.testing.assert_allclose(seen.pictures[~hidden], whole.pictures[~hidden])
        assert [note == "nothing hidden" for note in seen.notes] == [not own for own in sets]
    assert len({note for column in columns for note in column.notes}) > 2


def test_ijepa_shows_the_context_and_outlines_the_targets(store):
    setup = build_setup(recipe("cxr_ijepa_tiny", store), "cpu")
    raw, views = make_first_views(setup, 4)
    whole, context, targets = build_columns(setup, raw, views, None)
    masks, grid = raw.masks[0], setup.method.mask_spec()
    side = 64 // grid.rows
    seen = ~hidden_by_hand([set(range(grid.rows * grid.columns)) - set(row) for row in masks.context.tolist()], grid.rows, grid.columns, 64)
    np.testing.assert_allclose(context.pictures[seen], whole.pictures[seen])
    assert (context.pictures[~seen] == np.float32(HIDDEN_GRAY)).all()
    for own, blocks in zip(targets.boxes, masks.targets.tolist(), strict=True):
        assert len(own) == 3
        for box, block in zip(own, blocks, strict=True):
            inside = {(y // side) * grid.columns + x // side for y in range(64) for x in range(64)
                      if box.top <= y < box.top + box.height and box.left <= x < box.left + box.width}  # fmt: skip
            assert inside == set(block)
    figure = draw_preview(setup, 2, None)
    assert len(figure.axes[3].lines) == 3
    assert "context" in figure.axes[2].get_title()


@pytest.mark.parametrize("name", ["cxr_moco_tiny", "cxr_mae_tiny"])
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
