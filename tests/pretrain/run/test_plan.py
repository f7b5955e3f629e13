"""The warnings of a plan: each appears where it applies, and a sound recipe has none."""

import pytest
import torch

from pretrain.loop.setup import build_setup
from pretrain.run.plan import describe_sizes, half_life, list_warnings
from tests.pretrain.runs import MAE, recipe, store

SOUND = ["steps=1000", "warmup_steps=50"]
MOCO = ["cxr_moco_tiny", "arch=test_resnet", "method.hidden=32", "method.dim=16", "batch=16", "size=32", "threads=1"]
SIMCLR = ["cxr_simclr_tiny", "arch=test_resnet", "method.hidden=32", "method.dim=16", "batch=16", "size=32", "threads=1"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return store(tmp_path_factory.mktemp("plan"))


def notes(images, words, *more):
    setup = build_setup(recipe(images, words, *SOUND, *more), "cpu")
    return list(setup.method.notes(setup.method.data)) + list_warnings(setup)


@pytest.mark.parametrize("words", [MAE, [*MAE, "checkpointing=true"], [*MOCO, "method.queue=32"]])
def test_a_sound_recipe_has_no_warning(images, words):
    assert notes(images, words) == []


@pytest.mark.parametrize(
    ("words", "more", "want"),
    [
        (MAE, ["steps=40", "warmup_steps=5"], "40 steps (8.0 epochs) only test that it runs"),
        (MAE, ["warmup_steps=600"], "the warm-up takes 600 of 1000 steps"),
        (MAE, ["batch=50"], "30 of 80 images do not fill a batch"),
        (MAE, ["steps=400000"], "this run needs a GPU"),
        (MOCO, [], "queue 4096 -> 32: at most half of 80 images"),
        (MOCO, ["method.queue=32", "method.momentum=0.9999"], "half-life 6931 of 1000 steps"),
        (MOCO, ["method.queue=32", "method.scale_momentum=true"], "EMA momentum 0.99 -> 0.999372 at batch 16"),
        (MOCO, ["method.queue=32", "batch=8"], "batch 8 is too small to split"),
        (MOCO, ["method.queue=32", "batch=48"], "the queue of one batch (48) is more than half the images"),
        (SIMCLR, ["method.temperature=0.1"], "batch 16 gives 30 negatives; with fewer than 510, method.temperature=0.5 or"),
        (MOCO, ["method.queue=32", "checkpointing=true"], "updates its running statistics twice per step"),
        (SIMCLR, ["accumulate=2"], "batch 16 in 2 micro-batches gives 14 negatives; with fewer than 510, MoCo's queue may"),
    ],
)
def test_a_warning_appears_where_it_applies(images, words, more, want):
    assert any(want in note for note in notes(images, words, *more)), notes(images, words, *more)


@pytest.mark.parametrize("native", [True, False])
def test_bf16_is_chosen_if_it_is_native_and_warned_about_if_it_is_emulated(images, monkeypatch, native):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert build_setup(recipe(images, MAE, *SOUND, "precision=auto"), "cpu").recipe.precision == ("bf16" if native else "fp32")
    assert any("only emulates bf16" in note for note in notes(images, MAE, "precision=bf16")) == (not native)
    assert not any("bf16" in note for note in notes(images, MAE, "precision=fp32"))


def test_an_ema_replaces_half_of_its_initial_value_in_its_half_life(images):
    assert 0.99 ** half_life(0.99) == pytest.approx(0.5)
    rows = dict(describe_sizes(build_setup(recipe(images, [*MOCO, "method.queue=32"], *SOUND), "cpu")))
    assert rows["EMA half-life"] == "69 steps = 13.79 epochs (momentum 0.99)"
    assert rows["queue"] == "32 keys = 40 % of the images"
    assert rows["warm-up"] == "50 steps (5 % of the run)"
