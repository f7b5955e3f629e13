"""Every augmentation in AUGMENTATIONS: off by default, independent rows, equal to the slow reference; and one from outside the package."""

from typing import ClassVar

import numpy as np
import pytest
import torch
from pydantic import Field

from encoders.augment.apply import augment
from encoders.augment.config import AUGMENTATIONS, Augment, ViewSizeSettings
from encoders.augment.draw import draw_params
from encoders.augment.operation import Augmentation, Draws, PixelSource
from encoders.augment.randaugment_settings import RandAugmentSettings
from encoders.runtime.config import Config
from tests.encoders.augment.reference import augment_view
from tests.encoders.augment.turned_on import TURNED_ON

N, SIDE = 12, 48


class Tiles:
    """N tiles, each of two stains of its own, which vary smoothly and with some noise: (N, SIDE, SIDE, 3) in [0, 1]."""

    def __init__(self):
        rng = np.random.default_rng(0)
        coarse = torch.from_numpy(rng.uniform(0.1, 1.6, (N, 2, 7, 7)))
        amounts = torch.nn.functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear").permute(0, 2, 3, 1).numpy()
        amounts = np.abs(amounts + 0.1 * rng.standard_normal(amounts.shape))
        stains = np.abs(np.array([[0.60, 0.10], [0.70, 0.90], [0.39, 0.42]]) + 0.06 * rng.standard_normal((N, 3, 2)))
        self.pixels = np.exp(-np.einsum("nhws,ncs->nhwc", amounts, stains)).astype(np.float32)

    def unit_images(self, index):
        return self.pixels[np.asarray(index)]


@pytest.fixture(scope="module")
def tiles():
    return Tiles()


def source(tiles, rows):
    return PixelSource(tiles.pixels[rows], 1.0, tiles, np.arange(N))


def views(tiles, cfg, rows, size=SIDE):
    """The views (B, 3, size, size) of some rows, each drawn for its own position, and their parameters."""
    params = draw_params(cfg, 3, rows, 1, (SIDE, SIDE), source(tiles, rows))
    return augment(torch.from_numpy(tiles.pixels[rows]).permute(0, 3, 1, 2).contiguous(), params, size), params


def test_the_settings_of_a_view_are_its_size_those_of_every_operation_and_of_drawing_among_them():
    others = {*ViewSizeSettings.model_fields, *RandAugmentSettings.model_fields}
    fields = others.union(*(operation.settings.model_fields for operation in AUGMENTATIONS.values()))
    assert set(Augment.model_fields) == fields
    names = [name for operation in AUGMENTATIONS.values() for name in operation.params]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_operation_draws_the_parameters_that_it_declares(name, tiles):
    draws = Draws(3, np.arange(N), 1, (SIDE, SIDE), source(tiles, np.arange(N)))
    drawn = AUGMENTATIONS[name].draw(Augment(**TURNED_ON[name]), draws)
    assert tuple(drawn) == AUGMENTATIONS[name].params
    assert {len(values) for values in drawn.values()} == {N}


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_operation_that_is_off_is_the_identity(name, tiles):
    """By default it changes no row, and neither do its parameters alone."""
    operation, draws = AUGMENTATIONS[name], Draws(3, np.arange(N), 1, (SIDE, SIDE), source(tiles, np.arange(N)))
    own = operation.own_params(operation.draw(Augment(), draws))
    for rows in () if own is None else (operation.lookup_rows(own), operation.changed_rows(own)):
        assert rows is None or not rows.any()
    whole = {"box": np.tile([0.0, 0.0, SIDE, SIDE], (N, 1)), "cubic": np.zeros(N, dtype=bool)}
    batch = torch.from_numpy(tiles.pixels).permute(0, 3, 1, 2).contiguous()
    assert torch.equal(augment(batch, whole | (own or {}), SIDE), batch)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_operation_that_is_on_changes_some_rows(name, tiles):
    view, _ = views(tiles, Augment(**TURNED_ON[name]), np.arange(N))
    plain, _ = views(tiles, Augment(), np.arange(N))
    changed = (view - plain).abs().amax((1, 2, 3)) > 1e-3
    assert changed.any()


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_permuting_the_batch_permutes_the_views(name, tiles):
    cfg, order = Augment(**TURNED_ON[name]), np.random.default_rng(1).permutation(N)
    whole, _ = views(tiles, cfg, np.arange(N))
    assert torch.equal(views(tiles, cfg, order)[0], whole[order])
    assert torch.equal(torch.cat([views(tiles, cfg, np.array([i]))[0] for i in range(N)]), whole)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_an_operation_equals_the_slow_reference(name, tiles):
    got, params = views(tiles, Augment(**TURNED_ON[name]), np.arange(N), 37)
    for i in range(N):
        want = augment_view(tiles.pixels[i], {key: value[i] for key, value in params.items()}, 37)
        np.testing.assert_allclose(got[i].permute(1, 2, 0).numpy(), want, atol=2e-4, err_msg=f"row {i}")


class InvertSettings(Config):
    invert: float = Field(0.0, ge=0, le=1, description="probability that values are inverted")


class Invert(Augmentation[InvertSettings]):
    settings = InvertSettings
    params: ClassVar[tuple[str, ...]] = ("invert",)

    def draw(self, cfg, draws):
        return {"invert": np.arange(len(draws)) < cfg.invert * len(draws)} if cfg.invert else {}

    def changed_rows(self, params):
        return params["invert"]

    def apply(self, views, params):
        views.neg_().add_(1)


class AugmentWithInvert(InvertSettings, Augment):
    pass


def test_an_operation_from_outside_the_package_is_drawn_and_applied(tiles, monkeypatch):
    monkeypatch.setitem(AUGMENTATIONS, "invert", Invert())
    view, params = views(tiles, AugmentWithInvert(invert=0.5), np.arange(N))
    pixels = torch.from_numpy(tiles.pixels).permute(0, 3, 1, 2)
    assert params["invert"].tolist() == [True] * (N // 2) + [False] * (N // 2)
    torch.testing.assert_close(view[: N // 2], 1 - pixels[: N // 2])
    assert torch.equal(view[N // 2 :], pixels[N // 2 :])
    assert "invert" not in views(tiles, AugmentWithInvert(), np.arange(N))[1]
