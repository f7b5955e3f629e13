"""Test-time augmentation of a trained encoder: its head remembers the views, is calibrated with them, and predicts with them."""

import numpy as np
import pytest
import torch

from encoders.store.store import Store
from encoders.zoo.head_card import describe_head
from tests.transfer.trained.cases import QUICK, toy_task, train
from tests.transfer.trained.test_predict import predict
from transfer.tasks.load import load_task
from transfer.tasks.task import read_task
from transfer.trained import train as training
from transfer.trained.calibrate import calibrate_head, calibrated_probabilities
from transfer.trained.predict import load_trained_model

VIEWS = (*QUICK, "finetune.tta.flip=true", "finetune.tta.crops=[0.8]")


def mean_logits(network, x):
    """The mean of the logits of the image, its mirror image, and the central crop of both: 26 of 32 pixels."""
    crop = torch.nn.functional.interpolate(x[:, :, 3:29, 3:29], (32, 32), mode="bilinear", align_corners=False)
    with torch.inference_mode():
        return torch.stack([network(view).double() for view in (x, x.flip(3), crop, crop.flip(3))]).mean(0).numpy()


def test_the_head_predicts_with_the_views_it_was_calibrated_with(tmp_path):
    store_path = toy_task(tmp_path)
    done = train(overrides=VIEWS)
    head = done.card.head
    assert head.tta.model_dump() == {"flip": True, "flip_vertical": False, "turn": False, "crops": (0.8,), "corners": False}
    assert "mean of the logits of image, flip, crops 0.8 in the centre" in describe_head(head)
    trained, store = load_trained_model("trained"), Store.open(store_path)
    logits = mean_logits(trained.network.eval(), trained.encoder.prepare(store.unit_images(np.arange(len(store)))))
    rows, _ = predict(tmp_path / "out.csv", store_path)
    want = calibrated_probabilities(logits, head.temperature, head.kind)[:, 0]
    got = np.array([float(row["probability_sick"]) for row in rows])
    np.testing.assert_allclose(got, want, atol=1e-5)
    loaded = load_task(read_task("sick"))
    val = loaded.split.rows("val")
    calibration = calibrate_head(loaded.y[val], logits[val], "binary", ("sick",))
    assert head.temperature == pytest.approx(calibration.temperature, rel=1e-4)
    assert head.thresholds[0] == pytest.approx(calibration.threshold[0], abs=1e-4)


def test_a_head_without_views_is_that_of_versions_without_them(tmp_path):
    toy_task(tmp_path)
    done = train(overrides=QUICK)
    assert done.card.head.tta is None
    assert "tta" not in done.card.to_yaml()


def test_a_stage_after_one_with_views_has_none_of_its_own(tmp_path, monkeypatch):
    """The views belong to the head, and another training has another head."""
    toy_task(tmp_path)
    train(overrides=VIEWS)
    given = []
    real = training.predict_with_head
    monkeypatch.setattr(training, "predict_with_head", lambda *args: given.append(args[3]) or real(*args))
    second = train("second", encoder="trained", overrides=QUICK)
    assert not given[0].is_on
    assert second.card.head.tta is None
