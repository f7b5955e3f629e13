"""A run takes over the preprocessing of the encoder that it starts from; what its recipe sets itself stays."""

import itertools

import pytest

import encoders
from encoders.runtime.errors import InputError
from encoders.zoo import backbone, publish
from encoders.zoo.card import Card, Preprocess
from pretrain.display.preview import preview_recipe
from pretrain.loop.complete_recipe import complete_recipe
from pretrain.loop.corpus import open_corpus
from pretrain.loop.setup import build_setup
from pretrain.recipe.config import PreprocessConfig
from pretrain.run import lifecycle, rundir
from tests.pretrain.runs import METHODS, recipe, run, sigterm_at_step, store

MOCO = METHODS["moco"]
OWN = {"size": 32, "channels": 1, "resize": "squash", "interpolation": "bicubic", "crop_pct": 0.75, "value_range": (-1.0, 1.0),
       "mean": (0.4,), "std": (0.3,)}  # fmt: skip
OTHER = {"resize": "pad", "interpolation": "bilinear", "crop_pct": 0.9, "value_range": (0.0, 2.0), "mean": (0.1,), "std": (0.2,)}


@pytest.fixture
def images(tmp_path):
    """A store, and a published encoder `start` whose preprocessing is OWN."""
    network = backbone.build_backbone("test_resnet", channels=1, size=32, seed=3)
    card = Card(name="start", arch="test_resnet", dim=512, preprocess=Preprocess(**OWN), source="test")
    publish.publish_encoder("start", network.eval(), card)
    return store(tmp_path)


def overrides(names):
    return [f"preprocess.{name}={list(OTHER[name]) if isinstance(OTHER[name], tuple) else OTHER[name]}" for name in names]


def test_every_setting_of_preprocessing_is_tested():
    assert set(OTHER) == set(PreprocessConfig.model_fields) == set(Preprocess.model_fields) - {"size", "channels"}


@pytest.mark.parametrize("size", [32, 48])
@pytest.mark.parametrize("count", range(len(OTHER) + 1))
def test_all_but_the_size_is_that_of_the_start_unless_the_recipe_sets_it(images, size, count):
    for names in itertools.islice(itertools.combinations(OTHER, count), 3):
        words = recipe(images, MOCO, "init=start", f"size={size}", *overrides(names))
        want = {**OWN, "size": size, **{name: OTHER[name] for name in names}}
        completed, _ = complete_recipe(words, open_corpus(words))
        assert build_setup(completed, "cpu").card.preprocess == Preprocess(**want), names
        shown = preview_recipe(words).preprocess
        assert {name: getattr(shown, name) for name in OTHER} == {name: want[name] for name in OTHER}


def test_from_random_weights_the_preprocessing_is_the_usual_one(images):
    made = build_setup(recipe(images, MOCO), "cpu").card.preprocess
    assert (made.resize, made.interpolation, made.crop_pct, made.size) == ("crop", "bilinear", 1.0, 32)
    assert build_setup(recipe(images, MOCO, *overrides(OTHER)), "cpu").card.preprocess == Preprocess(**{**OWN, **OTHER})


def test_the_exported_encoder_and_a_run_that_starts_from_it_keep_the_preprocessing(images):
    run(images, MOCO, "second", "init=start", "pictures=none")
    run(images, MOCO, "third", "init=second", "pictures=none")
    assert encoders.load("third").card.preprocess == encoders.load("second").card.preprocess == Preprocess(**OWN)


def test_the_card_of_a_run_that_is_resumed_at_another_size_has_that_size(images, monkeypatch):
    where = rundir.run_dir_for("resized")
    with monkeypatch.context() as patch:
        sigterm_at_step(patch, 4)
        assert lifecycle.start_run(recipe(images, MOCO, "init=start", "pictures=none"), where, "cpu") == 75
    assert lifecycle.resume_run(where, "cpu", overrides=["size=40"], allow_change=True) == 0
    assert encoders.load("resized").card.preprocess == Preprocess(**{**OWN, "size": 40})


@pytest.mark.parametrize(
    ("init", "says"),
    [
        ("start+random_test_resnet", "is made of parts"),
        ("start:stages=2/pooled", "has features of several stages"),
        ("pixels", "has no network"),
    ],
)
def test_a_run_starts_from_the_weights_of_one_network(images, init, says):
    words = recipe(images, MOCO, f"init={init}")
    with pytest.raises(InputError, match=f"{says}, and pretraining starts from the weights of one network"):
        complete_recipe(words, open_corpus(words))
