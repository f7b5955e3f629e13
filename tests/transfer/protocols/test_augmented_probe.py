"""The presets that augment: heads against slow references from their descriptions, last blocks against the networks, and the bench."""

import math

import numpy as np
import pytest
import timm
import torch
from torch import nn

from encoders.runtime.errors import InputError
from encoders.zoo import backbone
from tests.transfer import toys
from tests.transfer.bench.test_bench import NET, add, run
from transfer.protocols import augmented_probe, linear, resolve_protocol
from transfer.protocols.common import Features
from transfer.protocols.heads import DINOV2_RATES, DinoV2Heads, MaeHead, head_losses
from transfer.protocols.last_blocks import extract_last_blocks
from transfer.protocols.linear_config import PUBLISHED_BUDGETS

VIT = "random_vit_tiny_patch16_224:size=32,channels=1,mean=0.5,std=0.25"


def stream(steps, b=24, d=5, k=3, seed=0):
    """Features and one-hot targets of every step, in float64."""
    draw = np.random.default_rng(seed)
    made = []
    for _ in range(steps):
        code = draw.integers(0, k, b)
        made.append((draw.normal(size=(b, d)) + code[:, None] * np.arange(d), np.eye(k)[code]))
    return made


def softmax(z):
    odds = np.exp(z - z.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def test_the_head_of_mae_is_batch_norm_and_a_linear_layer_trained_by_lars_with_warm_up_and_cosine():
    steps, warmup, batch, d, k = 12, 4, 24, 5, 3
    torch.manual_seed(0)
    head = MaeHead(d, k, True, batch, steps, warmup)
    head.norm.double()
    head.linear.double()
    head.momentum_buffers = [m.double() for m in head.momentum_buffers]
    w, b = (p.detach().numpy().copy() for p in head.linear.parameters())
    assert np.abs(w).max() < 0.05
    assert not b.any()
    vw, vb, mean, var = np.zeros_like(w), np.zeros_like(b), np.zeros(d), np.ones(d)
    for t, (x, y) in enumerate(stream(steps)):
        head.step(torch.from_numpy(x), torch.from_numpy(y))
        m, v = x.mean(0), x.var(0)
        mean, var = 0.9 * mean + 0.1 * m, 0.9 * var + 0.1 * v * batch / (batch - 1)
        z = (x - m) / np.sqrt(v + 1e-6)
        slack = (softmax(z @ w.T + b) - y) / batch
        gw, gb = slack.T @ z, slack.sum(0)
        peak = 0.1 * batch / 256
        lr = peak * t / warmup if t < warmup else peak * (1 + math.cos(math.pi * (t - warmup) / (steps - warmup))) / 2
        vw = 0.9 * vw + gw * 0.001 * np.linalg.norm(w) / np.linalg.norm(gw)
        vb = 0.9 * vb + gb  # LARS does not scale vectors
        w, b = w - lr * vw, b - lr * vb
    np.testing.assert_allclose(head.linear.weight.detach().numpy(), w, rtol=1e-9)
    np.testing.assert_allclose(head.linear.bias.detach().numpy(), b, rtol=1e-8)
    x = stream(1, seed=9)[0][0]
    np.testing.assert_allclose(head.logits(torch.from_numpy(x)).numpy(), (x - mean) / np.sqrt(var + 1e-6) @ w.T + b, rtol=1e-8)


def test_the_heads_of_dinov2_equal_heads_trained_one_by_one():
    steps, batch = 10, 24
    torch.manual_seed(1)
    heads = DinoV2Heads({"a": 5, "b": 8}, 3, True, batch, steps)
    start = {name: w.clone() for name, w in heads.weight.items()}
    assert start["a"].std() == pytest.approx(0.01, rel=0.2)
    data = {"a": stream(steps), "b": [(np.c_[x, x[:, :3] ** 2], y) for x, y in stream(steps)]}
    for t in range(steps):
        heads.step({name: torch.from_numpy(data[name][t][0]).float() for name in data}, torch.from_numpy(data["a"][t][1]).float())
    for name, width in (("a", 5), ("b", 8)):
        for h, rate in enumerate(DINOV2_RATES):
            layer = nn.Linear(width, 3)
            with torch.no_grad():
                layer.weight.copy_(start[name][h])
                layer.bias.zero_()
            optimizer = torch.optim.SGD(layer.parameters(), lr=rate * batch / 256, momentum=0.9, weight_decay=0)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=0)
            for x, y in data[name]:
                optimizer.zero_grad()
                nn.functional.cross_entropy(layer(torch.from_numpy(x).float()), torch.from_numpy(y.argmax(1))).backward()
                optimizer.step()
                schedule.step()
            torch.testing.assert_close(heads.weight[name][h].detach(), layer.weight.detach(), rtol=2e-4, atol=1e-6)


def test_published_budgets_and_rates_are_those_of_the_papers():
    assert PUBLISHED_BUDGETS == {"mae": (16384, 90), "dinov2": (1024, 12500)}
    assert DINOV2_RATES == (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)
    assert augmented_probe.PROBE_AUGMENT.crop == (0.08, 1.0)
    assert (augmented_probe.PROBE_AUGMENT.flip, augmented_probe.PROBE_AUGMENT.interpolation) == (0.5, "bicubic")


def test_unknown_labels_do_not_enter_a_multi_label_loss():
    logits = torch.randn(6, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([[1.0, 0, np.nan], [np.nan, 1, 0]] * 3, dtype=torch.float64)
    z, t = logits.numpy(), y.numpy()
    for h in range(2):
        each = np.logaddexp(0, z[:, h]) - np.nan_to_num(t) * z[:, h]
        assert head_losses(logits, y, False)[h].item() == pytest.approx(each[~np.isnan(t)].mean())


def test_a_transformers_last_blocks_are_its_class_tokens_after_the_last_norm():
    with torch.no_grad():
        model = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=5).eval()
        x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        inputs = extract_last_blocks(model, x).inputs()
        t = model.norm_pre(model._pos_embed(model.patch_embed(x)))
        after = []
        for block in model.blocks:
            t = block(t)
            after.append(model.norm(t))
    torch.testing.assert_close(inputs["last 1"], after[-1][:, 0])
    torch.testing.assert_close(inputs["last 4"], torch.cat([a[:, 0] for a in after[1:]], 1))
    torch.testing.assert_close(inputs["last 1 + patches"], torch.cat([after[-1][:, 0], after[-1][:, 1:].mean(1)], 1))
    assert inputs["last 4 + patches"].shape == (2, 5 * 192)


def test_a_cnn_gives_its_pooled_features_and_the_three_stages_before():
    with torch.no_grad():
        model = timm.create_model("resnet10t", num_classes=0).eval()
        x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
        inputs = extract_last_blocks(model, x).inputs()
        assert list(inputs) == ["last 1", "last 4"]
        torch.testing.assert_close(inputs["last 1"], backbone.pooled_features(model, x))
        third = model.layer3(model.layer2(model.layer1(model.maxpool(model.act1(model.bn1(model.conv1(x)))))))
        torch.testing.assert_close(inputs["last 4"][:, -512 - 256 : -512], third.mean((2, 3)))


@pytest.mark.parametrize(("wanted", "batch", "micro"), [(10, 10, 10), (128, 128, 128), (300, 300, 100), (257, 255, 85)])
def test_a_step_is_cut_into_equal_forward_passes(wanted, batch, micro):
    assert augmented_probe.batch_sizes(wanted) == (batch, micro)


@pytest.fixture
def cohort(tmp_path):
    return toys.store(tmp_path / "toy.h5", patients=30)


@pytest.mark.parametrize("preset", ["mae", "dinov2"])
@pytest.mark.parametrize(
    ("labels", "kind", "classes"), [(["sick"], "binary", ["sick"]), (["sick", "rare"], "multilabel", ["sick", "rare"])]
)
def test_the_presets_run_through_the_bench_and_are_hashed_apart(cohort, preset, labels, kind, classes):
    add(cohort, labels=labels, kind=kind, classes=classes)
    settings = [f"linear.preset={preset}", "linear.length=3", "linear.batch=12"]
    (r,) = run(NET, protocols=["linear"], overrides=settings).records
    assert r.meta.status == "ok", r.meta.error
    assert np.isfinite(r.arrays["test_scores"]).all()
    assert r.meta.selection["batch"] == 12
    rows = r.meta.selection["table"]
    assert len(rows) == (3 if preset == "mae" else 26)
    assert r.meta.selection["score"] == max(row["score"] for row in rows)
    again = run(NET, protocols=["linear"], overrides=settings, recompute=True).records[0]
    np.testing.assert_array_equal(again.arrays["test_scores"], r.arrays["test_scores"])
    (other,) = run(NET, protocols=["linear"], overrides=[f"linear.preset={preset}", "linear.length=2", "linear.batch=12"]).records
    assert other.identity.protocol_hash != r.identity.protocol_hash


def test_a_transformer_has_all_52_heads(cohort):
    add(cohort, labels=["grade"], kind="multiclass", classes=["high", "low", "mid"])
    (r,) = run(VIT, protocols=["linear"], overrides=["linear.preset=dinov2", "linear.length=2", "linear.batch=8"]).records
    assert r.meta.status == "ok", r.meta.error
    assert len(r.meta.selection["table"]) == 52
    np.testing.assert_allclose(r.arrays["test_scores"].sum(1), 1)


def test_images_are_augmented_again_at_every_step_and_the_network_stays_in_evaluation_mode(cohort, monkeypatch):
    add(cohort)
    forward = []
    before = augmented_probe.frozen_inputs
    monkeypatch.setattr(
        augmented_probe,
        "frozen_inputs",
        lambda encoder, x, extract: (forward.append((encoder.model.training, x.clone())), before(encoder, x, extract))[1],
    )
    run(NET, protocols=["linear"], overrides=["linear.preset=mae", "linear.length=2", "linear.batch=36"])
    views = [x for _, x in forward if len(x) == 36]
    assert len(views) == 2
    assert not torch.equal(views[0].sort(0).values, views[1].sort(0).values)


def test_cached_features_are_refused_where_images_are_needed():
    rows = Features(np.zeros((2, 3), np.float32), np.eye(2, dtype=np.float32)[:, :1], np.arange(2), np.arange(2), "binary")
    with pytest.raises(ValueError, match="needs images"):
        linear.fit(linear.Config(preset="mae"), rows, rows)
    assert resolve_protocol("linear", linear.Config(preset="dinov2")) is augmented_probe
    assert resolve_protocol("linear", linear.Config()) is linear


def test_too_few_labeled_images_are_refused(cohort):
    from transfer.protocols.common import ImageSet

    none = ImageSet(None, None, np.arange(3), np.full((3, 1), np.nan, np.float32), np.arange(3), np.arange(3), "binary")
    with pytest.raises(InputError, match="labeled train images"):
        augmented_probe.fit(linear.Config(preset="mae"), none, none)
