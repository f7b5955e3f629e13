"""Exported encoders: the average beside the last weights, and encoders between start and end."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from encoders.runtime import checkpoint
from encoders.runtime.errors import InputError
from encoders.runtime.paths import zoo_dir
from encoders.zoo import zoo
from pretrain.cli.main import app
from pretrain.run.export import export_run
from pretrain.run.interpolate import export_interpolated, parse_alphas
from tests.pretrain.run.test_resume import last
from tests.pretrain.runs import run, store
from tests.pretrain.starts import SIMCLR, VIT, publish


@pytest.fixture
def images(tmp_path):
    return store(tmp_path)


def tensors(name):
    return {key: value.numpy() for key, value in zoo.load_encoder(name).model.state_dict().items()}


def test_the_average_is_exported_beside_the_last_weights(images):
    publish()
    where = run(images, SIMCLR, "mine", "ema=0.9", "batchnorm=train")
    saved = last(where)
    for name, kind in (("mine", "encoder"), ("mine_ema", "average")):
        assert all(np.array_equal(value, saved[kind][key].numpy()) for key, value in tensors(name).items())
    card = zoo.find_encoder("mine_ema").card
    assert (card.lineage["weights"], card.lineage["ema"], card.lineage["init"], card.steps) == ("ema", 0.9, "start", 6)
    assert "weights" not in zoo.find_encoder("mine").card.lineage
    assert not np.array_equal(tensors("mine")["conv1.0.weight"], tensors("mine_ema")["conv1.0.weight"])


def test_a_run_without_an_average_or_with_a_taken_name_is_refused(images):
    publish()
    publish("mine_ema", seed=5)
    with pytest.raises(InputError, match="the zoo has another encoder called 'mine_ema'"):
        run(images, SIMCLR, "mine", "ema=0.9")
    where = run(images, SIMCLR, "mine")
    with pytest.raises(InputError, match=r"has no averaged weights; they are kept by runs with ema=0\.999"):
        export_run(where, weights="ema", name="other")


@pytest.mark.parametrize("batchnorm", ["frozen", "train"])
def test_interpolated_encoders_equal_numpy_and_name_their_origin(images, batchnorm):
    start = {key: value.numpy() for key, value in publish().items()}
    run(images, SIMCLR, "mine", f"batchnorm={batchnorm}")
    done = CliRunner().invoke(app, ["export", "mine", "--interpolate", "0,0.25,0.75,1"], catch_exceptions=False)
    assert done.exit_code == 0
    assert [line.rpartition("/")[2] for line in done.output.split()] == [f"mine_alpha{a}" for a in ("0", "0.25", "0.75", "1")]
    end = tensors("mine")
    assert any(not np.array_equal(end[key], start[key]) for key in start if "running" in key) == (batchnorm == "train")
    for alpha in (0.0, 0.25, 0.75, 1.0):
        for key, value in tensors(f"mine_alpha{alpha:g}").items():
            if key.endswith("num_batches_tracked"):
                assert value == end[key]
                continue
            np.testing.assert_allclose(value, (1 - alpha) * start[key].astype(float) + alpha * end[key], rtol=1e-5, atol=1e-6)
            assert alpha not in (0.0, 1.0) or np.array_equal(value, (start if alpha == 0 else end)[key])
    card = zoo.find_encoder("mine_alpha0.25").card
    assert card.lineage["interpolated"] == {"start": "start", "end": "mine", "alpha": 0.25, "batchnorm_statistics": "interpolated"}
    assert card.lineage["init"] == "start"
    assert zoo.manifest_path("mine_alpha0.25") is not None


def test_a_position_table_of_another_size_is_resampled_before_it_is_interpolated(images):
    publish(arch="vit_tiny_patch16_224", **VIT)
    where = run(images, [*SIMCLR, "size=48"], "mine")
    export_interpolated(where, [0.5])
    assert tensors("mine_alpha0.5")["pos_embed"].shape == tensors("mine")["pos_embed"].shape == (1, 37, 24)
    with torch.no_grad():
        assert zoo.load_encoder("mine_alpha0.5").encode(np.zeros((1, 48, 48), np.uint8)).shape == (1, 24)


def test_interpolation_of_averaged_weights_and_of_another_step(images):
    start = {key: value.numpy() for key, value in publish().items()}
    where = run(images, SIMCLR, "mine", "ema=0.9")
    export_interpolated(where, [0.5], step=4, name="half", weights="ema")
    card = zoo.find_encoder("half_alpha0.5").card
    assert (card.steps, card.lineage["weights"]) == (4, "ema")
    saved = checkpoint.load_checkpoint(checkpoint.checkpoint_path(where.checkpoints, 4))
    key = "conv1.0.weight"
    np.testing.assert_allclose(tensors("half_alpha0.5")[key], (start[key] + saved["average"][key].numpy()) / 2, rtol=1e-5, atol=1e-7)


def test_what_cannot_be_interpolated_is_refused(images):
    publish()
    where = run(images, [*SIMCLR, "init=null", "arch=test_resnet"], "fresh")
    with pytest.raises(InputError, match="starts from random weights: there is nothing to interpolate with"):
        export_interpolated(where, [0.5])
    for text in ("0.5,1.5", "half", "-0.1", "0.5,0.5", "nan", ""):
        with pytest.raises(InputError, match=r"numbers from 0 \(the start\) to 1 \(the end\)"):
            parse_alphas(text)
    assert parse_alphas("0.25,1") == [0.25, 1.0]


def test_interpolation_needs_the_start_unchanged(images):
    publish()
    where = run(images, SIMCLR, "mine")
    (zoo_dir() / "start").rename(zoo_dir() / "old")
    publish(seed=8)
    with pytest.raises(InputError, match="the encoder was replaced or changed"):
        export_interpolated(where, [0.5])
