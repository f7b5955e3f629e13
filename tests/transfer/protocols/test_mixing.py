"""Mixup and CutMix of fine-tuning: images and losses against NumPy, timm and closed forms; draws; and what reaches the training."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.data import mixup as timm_mixup

from encoders.runtime.errors import InputError
from encoders.store.store import Store
from tests.transfer import toys
from tests.transfer.protocols.test_finetune_parts import CNN, VIT, parts_of
from tests.transfer.strategies.tiny import config, encoder, image_set, last_step_wins
from transfer.bench.bench import load_protocols
from transfer.bench.cell import hash_protocol
from transfer.losses.registry import build_loss
from transfer.losses.settings import IMBALANCE_NAMES, ImbalanceSettings
from transfer.protocols import finetune, finetune_training, mixing
from transfer.protocols.mixing import Mix, PastedBox, draw_mix, mix_images, mixed_loss, place_box

BOTH = {"mixup": {"alpha": 0.4}, "cutmix": {"alpha": 1.0}}


@pytest.fixture
def toy(tmp_path):
    return toys.store(tmp_path / "toy.h5", patients=24)


def fit(path, **settings):
    own, last_step_wins.calls = encoder("resnet"), 0
    return finetune.fit(config(**settings), image_set(path, own, range(12)), image_set(path, own, range(12, 18)), last_step_wins)


def record_steps(monkeypatch):
    """Lists (images, loss of logits) of the steps that are taken."""
    seen, real = [], finetune_training.training_step

    def step(network, optimizer, scaler, images, loss_of, *rest):
        seen.append((images.clone(), loss_of))
        return real(network, optimizer, scaler, images, loss_of, *rest)

    monkeypatch.setattr(finetune_training, "training_step", step)
    return seen


def labels(kind, rows=7, classes=3):
    """(rows, classes) labels, some of them unknown."""
    rng = np.random.default_rng(0)
    if kind == "multiclass":
        y = np.eye(classes)[rng.integers(0, classes, rows)]
        y[2] = np.nan
    else:
        y = rng.integers(0, 2, (rows, classes)).astype(float)
        y[rng.random(y.shape) < 0.2] = np.nan
    return torch.from_numpy(y).float()


def test_blended_images_are_those_of_the_paper_and_of_timm(monkeypatch):
    images = torch.randn(5, 2, 8, 8)
    got = mix_images(images, Mix(0.3))
    x = images.numpy()
    np.testing.assert_allclose(got, 0.3 * x + 0.7 * x[::-1], atol=1e-6)
    theirs = timm_mixup.Mixup(mixup_alpha=1.0)
    monkeypatch.setattr(theirs, "_params_per_batch", lambda: (0.3, False))
    other = images.clone()
    theirs._mix_batch(other)
    torch.testing.assert_close(got, other)


@pytest.mark.parametrize("centre", [(0.5, 0.5), (0.0, 0.99), (0.1, 0.6)])
@pytest.mark.parametrize("size", [16, 31])
def test_the_share_of_cutmix_is_that_of_the_pixels(centre, size, monkeypatch):
    """Also where the rectangle is cut at the border of the image, as in timm."""
    drawn = iter([int(centre[0] * size), int(centre[1] * size)])
    monkeypatch.setattr(np.random, "randint", lambda low, high, size=None: next(drawn))
    (yl, yh, xl, xh), share = timm_mixup.cutmix_bbox_and_lam((1, 1, size, size), 0.6)
    box = place_box(0.6, np.array(centre), size)
    assert box == (yl, yh, xl, xh)
    images = torch.zeros(4, 1, size, size) + torch.arange(4.0)[:, None, None, None]
    mixed = mix_images(images, Mix(1 - box.area / size**2, box))
    for own, partner, image in zip((0, 1, 2, 3), (3, 2, 1, 0), mixed, strict=True):
        assert (image == own).float().mean().item() == pytest.approx(1 - box.area / size**2)
        assert ((image == own) | (image == partner)).all()
        assert (image[0, box.top : box.bottom, box.left : box.right] == partner).all()
    assert 1 - box.area / size**2 == pytest.approx(share)
    assert torch.equal(images[:, 0, 0, 0], torch.arange(4.0))  # the batch itself is unchanged


def draws(steps=4000, **settings):
    cfg = finetune.Config(**settings)
    return [draw_mix(cfg, 3, step, 32) for step in range(steps)]


def test_a_mix_is_a_function_of_seed_and_step():
    cfg = finetune.Config(**BOTH)
    assert draws(20, **BOTH) == draws(20, **BOTH)
    assert draws(20, **BOTH) != [draw_mix(cfg, 4, step, 32) for step in range(20)]
    assert draw_mix(cfg, 3, 17, 32) == draws(20, **BOTH)[17]
    assert len({mix.share for mix in draws(20, **BOTH)}) > 15


def test_shares_have_the_distribution_of_the_paper():
    """Beta(a, a) has mean 1/2 and variance 1 / (4 (2 a + 1))."""
    for alpha in (0.2, 1.0):
        shares = np.array([1.0 if mix is None else mix.share for mix in draws(mixup={"alpha": alpha})])
        assert shares.mean() == pytest.approx(0.5, abs=0.03)
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)
    boxes = [mix for mix in draws(cutmix={"alpha": 1.0}) if mix is not None]
    assert all(mix.box is not None and mix.share == 1 - mix.box.area / 32**2 for mix in boxes)


def test_a_step_is_mixed_and_one_of_both_is_chosen_with_the_given_probabilities():
    mixes = draws(**BOTH, mixing={"p": 0.6, "cutmix_share": 0.25})
    used = [mix for mix in mixes if mix is not None]
    assert len(used) / len(mixes) == pytest.approx(0.6, abs=0.03)
    assert np.mean([mix.box is not None for mix in used]) == pytest.approx(0.25, abs=0.03)
    assert all(mix.box is None for mix in draws(50, mixup={"alpha": 1.0}) if mix)
    assert draws(3) == [None] * 3


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
@pytest.mark.parametrize("approach", IMBALANCE_NAMES)
def test_losses_are_mixed_for_every_loss_with_unknown_labels(kind, approach):
    if (kind, approach) == ("multiclass", "asymmetric"):  # a loss of labels
        return
    y = labels(kind)
    counted = np.concatenate([labels(kind, 40).numpy(), y.numpy()])
    loss = build_loss(ImbalanceSettings(imbalance=approach), True, counted, kind, np.arange(len(counted)), torch.device("cpu")).loss
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))

    def of_labels(logits, y):
        return loss(logits, y, 0.9)

    got = mixed_loss(logits, y, of_labels, Mix(0.3))
    partners = torch.from_numpy(y.numpy()[::-1].copy())
    want = 0.3 * loss(logits, y, 0.9).item() + 0.7 * loss(logits, partners, 0.9).item()
    assert got.item() == pytest.approx(want, rel=1e-6)
    assert np.isfinite(got.item())


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_without_weights_mixed_losses_are_the_loss_of_mixed_labels(kind):
    """Cross-entropy is linear in the labels: the form in which mixup was published."""
    y = torch.nan_to_num(labels(kind), 0.0)
    y = torch.eye(3)[y.argmax(1)] if kind == "multiclass" else y
    logits = torch.randn(7, 3, generator=torch.Generator().manual_seed(1))
    loss = build_loss(ImbalanceSettings(), False, y.numpy(), kind, np.arange(7), torch.device("cpu")).loss
    soft = 0.3 * y + 0.7 * y.flip(0)
    want = F.cross_entropy(logits, soft) if kind == "multiclass" else F.binary_cross_entropy_with_logits(logits, soft)
    assert mixed_loss(logits, y, lambda z, t: loss(z, t, 0.0), Mix(0.3)).item() == pytest.approx(want.item(), rel=1e-6)


def test_class_weights_add_to_the_optimal_logits_what_they_add_without_mixing():
    """At a mixed image the optimum is w_c times the mixed shares of the classes, so that subtracting log(w) gives these shares."""
    y = torch.eye(3)[torch.tensor([0, 1, 1, 2, 2, 2])]
    built = build_loss(ImbalanceSettings(), True, y.numpy(), "multiclass", np.arange(6), torch.device("cpu"))
    share, pair = 0.3, torch.eye(3)[[0, 2]]
    logits = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], lr=1.0, max_iter=300, tolerance_grad=1e-9, tolerance_change=0, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = mixed_loss(logits, pair, lambda z, t: built.loss(z, t, 0.0), Mix(share))
        value.backward()
        return value

    optimizer.step(closure)
    p = torch.softmax(logits.detach() - torch.from_numpy(built.shift), 1)
    np.testing.assert_allclose(p, [[0.3, 0, 0.7], [0.7, 0, 0.3]], atol=2e-3)


@pytest.mark.parametrize("mix", [Mix(1.0), Mix(1.0, PastedBox(3, 3, 2, 9))])
def test_a_share_of_one_is_the_identity_bit_for_bit(toy, monkeypatch, mix):
    plain = fit(toy)
    monkeypatch.setattr(mixing, "draw_mix", lambda *given: mix)
    same = fit(toy, mixup={"alpha": 0.4})
    assert plain.selection["table"] == same.selection["table"]  # losses and scores
    for name, value in plain.network.state_dict().items():
        assert torch.equal(value, same.network.state_dict()[name]), name


def test_a_drawn_share_of_one_leaves_the_step_as_it_is(monkeypatch):
    class Ones:
        def random(self, n):
            return np.zeros(n)

        def beta(self, a, b):
            return 1.0

    monkeypatch.setattr(mixing, "generator", lambda *given: Ones())
    assert draw_mix(finetune.Config(mixup={"alpha": 1.0}), 0, 0, 32) is None
    assert draw_mix(finetune.Config(cutmix={"alpha": 1.0}), 0, 0, 32) is None


@pytest.mark.parametrize("settings", [{"mixup": {"alpha": 0.4}}, {"cutmix": {"alpha": 1.0}}, BOTH])
def test_what_is_drawn_reaches_the_training(toy, monkeypatch, settings):
    seen = record_steps(monkeypatch)
    fit(toy)
    plain = list(seen)
    seen.clear()
    fit(toy, **settings)
    cfg = config(**settings)
    logits = torch.linspace(-1, 1, 4)[:, None]
    for step, ((before, loss_before), (after, loss_after)) in enumerate(zip(plain, seen, strict=True)):
        mix = draw_mix(cfg, cfg.seed, step, before.shape[2])
        assert mix is not None
        assert torch.equal(after, mix_images(before, mix))
        y = loss_before.keywords["y"]
        reversed_loss = loss_before.func(logits, y=y.flip(0), progress=loss_before.keywords["progress"])
        want = mix.share * loss_before(logits) + (1 - mix.share) * reversed_loss
        assert loss_after(logits).item() == pytest.approx(want.item(), rel=1e-6)
    assert any(not torch.equal(a[0], b[0]) for a, b in zip(plain, seen, strict=True))


def test_other_seeds_have_other_mixes(toy, monkeypatch):
    seen = record_steps(monkeypatch)
    fit(toy, mixup={"alpha": 1.0})
    first = [loss.keywords["mix"] for _, loss in seen]
    seen.clear()
    fit(toy, mixup={"alpha": 1.0}, seed=1)
    assert first != [loss.keywords["mix"] for _, loss in seen]


def test_an_encoder_made_of_parts_sees_one_mix(tmp_path):
    train, val = parts_of(Store.open(toys.store(tmp_path / "s.h5", patients=20)), f"{CNN}+{VIT}")
    cfg = finetune.Config(batch=8, min_steps=3, max_steps=3, evaluations=1, ema=0, **BOTH)
    scores = finetune.fit(cfg, train, val).scores(val)
    assert np.isfinite(scores).all()
    assert np.array_equal(scores, finetune.fit(cfg, train, val).scores(val))
    unmixed = cfg.model_copy(update={"mixup": finetune.Config().mixup, "cutmix": finetune.Config().cutmix})
    assert not np.array_equal(scores, finetune.fit(unmixed, train, val).scores(val))


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_tasks_of_several_labels_with_unknown_ones_are_trained(toy, kind):
    own = encoder("resnet")
    every = image_set(toy, own)
    y = labels(kind, len(every)).numpy()
    train, val = (replace(every.at(rows), y=y[rows], kind=kind) for rows in (np.arange(30), np.arange(30, 48)))
    scores = finetune.fit(config(max_steps=3, min_steps=3, **BOTH), train, val).scores(val)
    assert scores.shape == (18, 3)
    assert np.isfinite(scores).all()


def test_settings_are_recorded_only_where_they_are_used():
    plain = finetune.Config().model_dump(mode="json")
    assert not {"mixup", "cutmix", "mixing"} & set(plain)
    one = finetune.Config(mixup={"alpha": 0.2}, mixing={"p": 0.5}).model_dump(mode="json")
    assert {name: one[name] for name in ("mixup", "cutmix", "mixing") if name in one} == {"mixup": {"alpha": 0.2}, "mixing": {"p": 0.5}}
    both = finetune.Config(**BOTH).model_dump(mode="json")
    assert both["mixing"] == {"p": 1.0, "cutmix_share": 0.5}
    for dumped in (plain, one, both):
        assert finetune.Config(**dumped).model_dump(mode="json") == dumped


def test_the_hash_of_a_protocol_depends_on_mixing():
    hashes = {
        hash_protocol("finetune", finetune.VERSION, load_protocols(["finetune"], 0, settings, "cpu")["finetune"][1])
        for settings in ([], ["finetune.mixup.alpha=0.2"], ["finetune.mixup.alpha=0.4"], ["finetune.cutmix.alpha=1"])
    }
    assert len(hashes) == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["finetune.mixing.p=0.5"], "mixing has no effect: set mixup.alpha or cutmix.alpha"),
        (["finetune.mixup.alpha=0.2", "finetune.mixing.cutmix_share=0.1"], "cutmix_share has no effect"),
        (["finetune.mixup.alpha=-1"], "greater than or equal to 0"),
    ],
)
def test_a_setting_without_effect_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        load_protocols(["finetune"], 0, settings, "cpu")


@pytest.mark.parametrize("mix", [Mix(0.3), Mix(0.75, PastedBox(2, 6, 1, 5))])
def test_mixing_needs_no_value_on_the_host(mix):
    images, logits, y = torch.empty(4, 1, 8, 8, device="meta"), torch.empty(4, 3, device="meta"), torch.empty(4, 3, device="meta")
    assert mix_images(images, mix).shape == images.shape
    assert mixed_loss(logits, y, lambda z, t: F.binary_cross_entropy_with_logits(z, t), mix).shape == ()
