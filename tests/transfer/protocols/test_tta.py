"""Test-time augmentation: its views, invariances, and where its scores come from."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.zoo.tta_settings import TtaSettings, describe_tta
from tests.transfer import toys
from tests.transfer.protocols.test_finetune_parts import CNN, VIT, parts_of
from tests.transfer.strategies.tiny import config, encoder, image_set, last_step_wins
from transfer.bench.bench import load_protocols
from transfer.bench.cell import hash_protocol
from transfer.protocols import finetune
from transfer.protocols.logistic import logits_to_probabilities
from transfer.protocols.tta import TtaView, average_views, crop_and_enlarge, list_tta_views

FLIP = TtaSettings(flip=True)
ALL = TtaSettings(flip=True, flip_vertical=True, turn=True, crops=(0.8, 0.6), corners=True)


@pytest.fixture
def toy(tmp_path):
    return toys.store(tmp_path / "toy.h5", patients=24)


def fit(path, **settings):
    own, last_step_wins.calls = encoder("resnet"), 0
    return finetune.fit(config(**settings), image_set(path, own, range(12)), image_set(path, own, range(12, 18)), last_step_wins)


def network(size=12, seed=0):
    """A map of images (B, 1, S, S) to two logits that depends on every pixel."""
    weight = torch.randn(2, size, size, generator=torch.Generator().manual_seed(seed))
    return lambda x: torch.einsum("bkhw,chw->bc", torch.tanh(3 * x), weight)


def images(n=3, size=12):
    return torch.rand(n, 1, size, size, generator=torch.Generator().manual_seed(1))


def test_without_views_the_network_itself_is_returned():
    own = network()
    for settings in (None, TtaSettings()):
        assert average_views(own, settings) is own
        assert list_tta_views(settings) == [TtaView()]


def test_the_image_itself_is_the_first_view_unchanged():
    x = images()
    assert list_tta_views(ALL)[0].of(x) is x


@pytest.mark.parametrize(
    ("settings", "n"),
    [
        (FLIP, 2),
        (TtaSettings(flip_vertical=True), 2),
        (TtaSettings(flip=True, flip_vertical=True), 4),
        (TtaSettings(turn=True), 4),
        (TtaSettings(turn=True, flip=True), 8),
        (TtaSettings(turn=True, flip_vertical=True), 8),
        (TtaSettings(turn=True, flip=True, flip_vertical=True), 8),
        (TtaSettings(crops=(0.8,)), 2),
        (TtaSettings(crops=(0.8, 0.6), corners=True), 11),
        (ALL, 88),
    ],
)
def test_every_view_comes_once(settings, n):
    views = [view.of(images(1)) for view in list_tta_views(settings)]
    assert len(views) == n
    assert all(not torch.equal(a, b) for i, a in enumerate(views) for b in views[:i])


def test_the_logits_are_the_mean_of_those_of_the_views():
    x, own = images(), network()
    got = average_views(own, TtaSettings(flip=True, flip_vertical=True))(x)
    turned = [x.numpy()[:, :, ::down, ::across].copy() for down in (1, -1) for across in (1, -1)]
    want = np.mean([own(torch.from_numpy(view)).double().numpy() for view in turned], axis=0)
    np.testing.assert_allclose(got, want, rtol=1e-12)
    assert got.dtype == torch.float64


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        (FLIP, lambda x: x.flip(3)),
        (TtaSettings(flip=True, crops=(0.77, 0.6), corners=True), lambda x: x.flip(3)),
        (TtaSettings(flip_vertical=True), lambda x: x.flip(2)),
        (TtaSettings(turn=True), lambda x: torch.rot90(x, 1, (2, 3))),
        (TtaSettings(turn=True, flip=True), lambda x: torch.rot90(x, 3, (2, 3)).flip(3)),
    ],
)
def test_an_image_and_its_mirror_image_have_equal_logits(settings, change):
    x, own = images(), network()
    of = average_views(own, settings)
    torch.testing.assert_close(of(x), of(change(x)), rtol=1e-6, atol=1e-6)
    assert (own(x) - own(change(x))).abs().min() > 1e-3
    if settings == FLIP:
        assert torch.equal(of(x), of(change(x)))


@pytest.mark.parametrize(("side", "place", "corner"), [(0.5, (0.5, 0.5), (3, 3)), (0.5, (1.0, 0.0), (6, 0)), (0.8, (0.0, 1.0), (0, 2))])
def test_a_crop_is_the_enlarged_part_of_the_image(side, place, corner):
    x, cut = images(), round(12 * side / 2) * 2
    top, left = corner
    want = F.interpolate(x[:, :, top : top + cut, left : left + cut], (12, 12), mode="bilinear", align_corners=False)
    assert torch.equal(crop_and_enlarge(x, side, place), want)


def test_scores_of_validation_and_test_are_those_of_the_views(toy, monkeypatch):
    seen = []
    own = encoder("resnet")
    train, val = image_set(toy, own, range(12)), image_set(toy, own, range(12, 18))
    fitted = finetune.fit(config(tta=FLIP), train, val, lambda y, scores: seen.append(scores) or float(len(seen)))
    test = image_set(toy, own, range(18, 48))
    for rows, got in ((val, seen[-1]), (test, fitted.scores(test))):
        x = own.prepare(rows.store.unit_images(rows.index))
        with torch.inference_mode():
            logits = (fitted.network(x).double() + fitted.network(x.flip(3)).double()) / 2
        want = logits_to_probabilities(logits.numpy() - fitted.class_offset, "binary")
        np.testing.assert_allclose(got, want, atol=1e-6)
        plain = logits_to_probabilities(fitted.network(x).detach().double().numpy() - fitted.class_offset, "binary")
        assert np.abs(plain - want).max() > 1e-5


def test_a_mirrored_store_has_the_scores_of_the_store(tmp_path, toy):
    from encoders.store.write import save_store

    fitted = fit(toy, tta=FLIP)
    pixels = Store.open(toy).compact_images(np.arange(48))[0]
    mirrored = image_set(save_store(tmp_path / "m.h5", pixels[:, :, ::-1].copy(), patient=[f"p{i // 2}" for i in range(48)],
                                    labels={"sick": np.arange(48) // 2 % 2.0}), encoder("resnet"))  # fmt: skip
    got, want = fitted.scores(mirrored), fitted.scores(image_set(toy, encoder("resnet")))
    np.testing.assert_allclose(got, want, atol=1e-6)  # a kernel may round otherwise for another layout of the same values
    fitted.tta = None
    assert np.abs(fitted.scores(mirrored) - want).max() > 1e-4


def test_settings_without_a_view_change_nothing(toy):
    plain, same = fit(toy), fit(toy, tta={"flip": False})
    rows = image_set(toy, encoder("resnet"))
    assert plain.selection == same.selection
    assert np.array_equal(plain.scores(rows), same.scores(rows))


def test_training_does_not_depend_on_it(toy):
    """The last weights are kept in both, so that only the scores differ."""
    plain, own = fit(toy), fit(toy, tta=ALL)
    assert all(torch.equal(a, b) for a, b in zip(plain.network.state_dict().values(), own.network.state_dict().values(), strict=True))


def test_every_part_of_an_encoder_sees_the_same_view(tmp_path):
    train, val = parts_of(Store.open(toys.store(tmp_path / "s.h5", patients=20)), f"{CNN}+{VIT}")
    cfg = finetune.Config(batch=8, min_steps=2, max_steps=2, evaluations=1, ema=0, tta=TtaSettings(flip=True, crops=(0.9,)))
    fitted = finetune.fit(cfg, train, val)
    x = train.encoder.prepare(val.store.unit_images(val.index))
    with torch.inference_mode():
        logits = torch.stack([fitted.network(tuple(view.of_images(own) for own in x)).double() for view in list_tta_views(cfg.tta)]).mean(0)
    want = logits_to_probabilities(logits.numpy() - fitted.class_offset, "binary")
    np.testing.assert_allclose(fitted.scores(val), want, atol=1e-6)
    assert np.isfinite(replace(fitted, tta=None).scores(val)).all()


def test_it_is_recorded_and_hashed_only_where_it_is_used():
    assert "tta" not in finetune.Config().model_dump(mode="json")
    assert hash_protocol("finetune", finetune.VERSION, finetune.Config()) == "3de2de5411660ae6"  # as before there was such a setting
    own = finetune.Config(tta=TtaSettings(flip=True, crops=(0.9,)))
    assert finetune.Config(**own.model_dump(mode="json")) == own
    hashes = {
        hash_protocol("finetune", finetune.VERSION, load_protocols(["finetune"], 0, settings, "cpu")["finetune"][1])
        for settings in ([], ["finetune.tta.flip=true"], ["finetune.tta.turn=true"], ["finetune.tta.crops=[0.9]"])
    }
    assert len(hashes) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["finetune.tta.corners=true"], "corners has no effect"),
        (["finetune.tta.crops=[1.2]"], "expected different numbers from 0.5 to below 1"),
        (["finetune.tta.mirror=true"], "tta.mirror"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        load_protocols(["finetune"], 0, settings, "cpu")


def test_views_are_described():
    assert describe_tta(None) == describe_tta(TtaSettings()) == ""
    assert describe_tta(ALL) == "flip, vertical flip, quarter turns, crops 0.8, 0.6 in the centre and corners"
    assert [view.describe() for view in list_tta_views(FLIP)] == ["image", "flip"]
    assert TtaView(0.9, (1.0, 0.0), True, 3).describe() == "crop 0.9 bottom left, flip, turn 270"
