"""RandAugment: which operations are drawn, how strong they are, and what the other settings keep."""

from typing import get_args

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from encoders.augment.apply import augment
from encoders.augment.config import AUGMENTATIONS, Augment
from encoders.augment.draw import draw_params
from encoders.augment.operation import Draws
from encoders.augment.presets import PRESETS, resolve_augment
from encoders.augment.randaugment import STRONG_OPERATIONS, pick_operations, settings_at
from encoders.augment.randaugment_settings import RANDAUGMENT_LISTS, RandAugmentName
from encoders.runtime.errors import InputError

NAMES = get_args(RandAugmentName)
N = 4000
PICTURES = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def draw(n=N, seed=0, **settings):
    return draw_params(Augment(**settings), seed, np.arange(n), 0, (32, 32))


def is_idle(name, params):
    """(B,) whether an image is not changed by an operation of the list."""
    entry = STRONG_OPERATIONS[name]
    idle = [np.equal(params[p], entry.idle[p]).reshape(len(params[p]), -1).all(1) for p in entry.changed_params if p != "noise_at"]
    return np.all(idle, axis=0)


def test_every_name_has_an_operation_whose_parameters_are_listed():
    assert set(STRONG_OPERATIONS) == set(NAMES)
    for entry in STRONG_OPERATIONS.values():
        assert set(entry.idle) == set(AUGMENTATIONS[entry.operation].params)
        assert set(entry.changed_params) <= set(entry.idle)


@pytest.mark.parametrize("name", NAMES)
def test_idle_parameters_change_nothing(name):
    """Those that an image has for which the operation is not drawn."""
    params = {p: np.broadcast_to(np.asarray(v), draw(64, **dict(settings_at(name, 5)))[p].shape).copy()
              for p, v in STRONG_OPERATIONS[name].idle.items()}  # fmt: skip
    whole = {"box": np.tile([0.0, 0.0, 32, 32], (64, 1)), "cubic": np.zeros(64, dtype=bool)}
    assert torch.equal(augment(PICTURES, whole | params, 32), PICTURES)


@pytest.mark.parametrize("modality", RANDAUGMENT_LISTS)
@pytest.mark.parametrize("n", [1, 2, 5])
def test_n_different_operations_are_drawn_for_each_image_all_equally_often(modality, n):
    names = RANDAUGMENT_LISTS[modality].names
    params = draw(randaugment=n, randaugment_list=modality)
    used = np.stack([~is_idle(name, params) for name in names], axis=1)
    assert (used.sum(axis=1) == n).all()
    np.testing.assert_allclose(used.mean(axis=0), n / len(names), atol=0.03)


def test_a_draw_is_a_function_of_seed_and_position():
    settings = {"randaugment": 2, "randaugment_list": "cxr"}
    whole, part = draw(50, **settings), draw_params(Augment(**settings), 0, np.arange(20, 30), 0, (32, 32))
    for name, values in part.items():
        np.testing.assert_array_equal(values, whole[name][20:30])
    picked = [pick_operations(Draws(seed, np.arange(50), 0, (32, 32)), 11, 2) for seed in (0, 0, 1)]
    assert np.array_equal(picked[0], picked[1])
    assert not np.array_equal(picked[0], picked[2])


@pytest.mark.parametrize("name", NAMES)
def test_a_stronger_operation_changes_an_image_more(name):
    def change(strength):
        params = draw(64, randaugment=1, randaugment_list=(name,), randaugment_strength=strength)
        return (augment(PICTURES, params, 32) - PICTURES).abs().mean().item()

    weak, middle, strong = (change(strength) for strength in (0.5, 3, 10))
    assert 0 < weak < middle < strong


def test_the_strength_is_the_end_of_the_range_of_the_paper_for_rotation():
    """30 degrees at strength 10, in both directions."""
    for strength in (4, 10):
        angle = draw(randaugment=1, randaugment_list=("rotate",), randaugment_strength=strength)["angle"]
        assert (angle.min(), angle.max()) == pytest.approx((-3 * strength, 3 * strength), rel=0.01)


def test_images_without_a_drawn_operation_keep_the_other_settings():
    base = {"rotate": 5, "jitter": 0.8, "brightness": 0.1, "flip": 0.5, "crop": (0.5, 1.0)}
    plain = draw(**base)
    mixed = draw(**base, randaugment=1, randaugment_list=("rotate", "zoom", "brightness", "gamma"), randaugment_strength=10)
    picked = pick_operations(Draws(0, np.arange(N), 0, (32, 32)), 4, 1)
    alone = draw(randaugment=1, randaugment_list=("rotate", "zoom", "brightness", "gamma"), randaugment_strength=10)
    for column, name in ((0, "angle"), (1, "zoom"), (2, "brightness")):
        np.testing.assert_array_equal(mixed[name][~picked[:, column]], plain[name][~picked[:, column]])
        np.testing.assert_array_equal(mixed[name][picked[:, column]], alone[name][picked[:, column]])
    assert np.array_equal(mixed["gamma"], alone["gamma"])
    assert np.array_equal(mixed["flip"], plain["flip"])
    assert np.array_equal(mixed["box"], plain["box"])


def test_no_list_has_what_its_modality_does_not_tolerate():
    colours = {"hue", "saturation", "stain"}
    for modality in ("cxr", "ct", "mr", "oct"):
        assert not colours & set(RANDAUGMENT_LISTS[modality].names)
        assert not PRESETS[f"randaugment_{modality}"].flip_vertical
        assert not PRESETS[f"randaugment_{modality}"].turn
    assert not {"brightness", "contrast", "gamma", "clahe"} & set(RANDAUGMENT_LISTS["ct"].names)
    assert all(preset.solarise == 0 for name, preset in PRESETS.items() if name.startswith("randaugment_"))
    assert {f"randaugment_{modality}" for modality in RANDAUGMENT_LISTS} == {name for name in PRESETS if name.startswith("randaugment_")}


@pytest.mark.parametrize("preset", [name for name in PRESETS if not name.startswith("randaugment_")])
def test_a_preset_without_it_has_the_draws_of_its_operations_alone(preset):
    cfg = PRESETS[preset]
    draws = Draws(0, np.arange(50), 0, (32, 32))
    alone = {name: values for operation in AUGMENTATIONS.values() for name, values in operation.draw(cfg, draws).items()}
    got = draw_params(cfg, 0, np.arange(50), 0, (32, 32))
    assert set(got) == set(alone)
    assert all(np.array_equal(got[name], alone[name]) for name in got)
    assert not {"clahe", "clahe_limit", "randaugment", "randaugment_list"} & set(cfg.model_dump())  # digests of recipes stay


def test_it_is_a_setting_of_any_preset():
    cfg = resolve_augment({"preset": "finetune_cxr", "randaugment": 2, "randaugment_list": ["gamma", "clahe"]})
    assert (cfg.rotate, cfg.randaugment, cfg.randaugment_names) == (10, 2, ("gamma", "clahe"))
    assert Augment(**cfg.model_dump(mode="json")) == cfg
    assert resolve_augment({"preset": "finetune_cxr", "randaugment": 2, "randaugment_list": "ct"}).randaugment_names[0] == "rotate"
    assert resolve_augment({"preset": "randaugment_cxr", "randaugment_strength": 8}).randaugment_strength == 8


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"randaugment": 2}, r"randaugment draws 2 operations out of 0; set randaugment_list to a list \(cxr, "),
        ({"randaugment": 3, "randaugment_list": ["gamma", "blur"]}, "randaugment draws 3 operations out of 2"),
        ({"randaugment": 1, "randaugment_list": ["gamma", "gamma"]}, "expected different operations"),
        ({"randaugment": 1, "randaugment_list": ["solarise"]}, "randaugment_list"),
        ({"randaugment": 1, "randaugment_list": "petscan"}, "randaugment_list"),
        ({"randaugment": 1, "randaugment_list": "cxr", "randaugment_strength": 11}, "randaugment_strength"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        resolve_augment(settings)
    with pytest.raises(ValidationError):
        Augment(**settings)
