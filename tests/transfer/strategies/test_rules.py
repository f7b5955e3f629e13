"""Each strategy against the rule that defines it: a closed form, an equality, or a budget."""

from copy import deepcopy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from encoders.runtime.errors import InputError
from tests.transfer import toys
from tests.transfer.strategies.tiny import STEPS, changed, config, encoder, fit, image_set
from transfer.losses.supervised import supervised_loss
from transfer.protocols import finetune_training
from transfer.protocols.common import in_image_order
from transfer.protocols.finetune import build_batches
from transfer.protocols.finetune_network import FinetuneNetwork
from transfer.protocols.finetune_training import training_step
from transfer.strategies.l2sp import DecayToStart
from transfer.strategies.lora import LowRankTuning, LowRankUpdate
from transfer.strategies.names import STRATEGIES
from transfer.strategies.wise import interpolate


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return toys.store(tmp_path_factory.mktemp("toy") / "toy.h5", patients=9)


def spread_updates(backbone, seed=0):
    """Gives the updates values, as training does."""
    draw = torch.Generator().manual_seed(seed)
    for module in backbone.modules():
        if isinstance(module, LowRankUpdate):
            module.up.data = 0.05 * torch.randn(module.up.shape, generator=draw)


@pytest.mark.parametrize("kind", ["vit", "convnext", "mobilenet", "densenet", "bottleneck"])
def test_low_rank_updates_start_at_the_frozen_network_and_merge_into_it(kind):
    model, x = encoder(kind).model.eval(), torch.randn(2, 1, 32, 32)
    names, start = list(model.state_dict()), model(x)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    strategy = LowRankTuning(rank=2, alpha=6.0, lr=1.0)
    strategy.prepare(model)
    assert model(x).equal(start)
    spread_updates(model)
    updates = {n.removesuffix(".parametrizations.weight.0"): m for n, m in model.named_modules() if isinstance(m, LowRankUpdate)}
    moved = model(x)
    assert not torch.allclose(moved, start)
    expected = {f"{n}.weight": 3 * (m.up.double() @ m.down.double()).view_as(weights[f"{n}.weight"]) for n, m in updates.items()}
    strategy.merge(model)
    assert list(model.state_dict()) == names
    assert torch.allclose(model(x), moved, atol=1e-6)
    for name, p in model.named_parameters():
        assert torch.allclose(p.double(), weights[name].double() + expected.get(name, 0), atol=1e-6)
    assert all(np.linalg.matrix_rank(e.flatten(1).detach().numpy()) <= 2 for e in expected.values())


def test_low_rank_updates_are_on_attention_and_mlp_or_on_pointwise_convolutions(images):
    own = encoder("vit")
    fitted = fit(images, own, config("lora", lora={"rank": 2}))
    shapes = {name: p.shape for name, p in own.model.named_parameters() if name in changed(own, fitted)}
    assert {name.rpartition(".")[0].rpartition(".")[2] for name in shapes} == {"qkv", "fc1", "fc2"}
    head = sum(p.numel() for p in fitted.network.head.parameters())
    assert fitted.cost["trained_parameters"] == head + sum(2 * (s[0] + s[1]) for s in shapes.values())
    with pytest.raises(InputError, match="VGG has none"):
        LowRankTuning(2, 4, 1).prepare(type("VGG", (nn.Module,), {})())


def test_decay_to_the_start_has_the_minimum_of_its_closed_form():
    """A quadratic 1/2 (w - c)' H (w - c) with the penalty has its minimum at (H + W I)^-1 (H c + W start)."""
    draw, weight = np.random.default_rng(0), 0.7
    root = draw.normal(size=(4, 4))
    h, c, start = root @ root.T, draw.normal(size=4), draw.normal(size=4)
    layer = nn.Linear(4, 1, bias=False).double()
    layer.weight.data = torch.tensor(start)[None]
    strategy = DecayToStart(weight)
    strategy.prepare(layer)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        d = layer.weight[0] - torch.tensor(c)
        loss = 0.5 * d @ torch.tensor(h) @ d + strategy.penalty(layer).double()
        loss.backward()
        return loss

    optimizer.step(closure)
    want = np.linalg.solve(h + weight * np.eye(4), h @ c + weight * start)
    assert layer.weight[0].detach().numpy() == pytest.approx(want, abs=1e-5)


def test_the_training_step_adds_the_penalty_to_the_loss():
    network = FinetuneNetwork(encoder("vit").model, 48, 1)
    strategy = DecayToStart(2.0)
    strategy.prepare(network.backbone)
    plain = deepcopy(network)
    for p in network.backbone.parameters():
        p.data += 0.5
    plain.load_state_dict(network.state_dict())
    x, losses = torch.randn(2, 1, 32, 32), []
    loss = partial(supervised_loss, y=torch.tensor([[0.0], [1.0]]), weight=torch.ones(1), kind="binary")
    for one, penalty in ((network, lambda: strategy.penalty(network.backbone)), (plain, lambda: None)):
        optimizer, scaler = torch.optim.SGD(one.parameters(), lr=0.01), torch.amp.GradScaler("cpu", enabled=False)
        losses.append(training_step(one, optimizer, scaler, x, loss, "fp32", 0.0, penalty))
    n = sum(p.numel() for p in network.backbone.parameters())
    assert (losses[0] - losses[1]).item() == pytest.approx(0.25 * n, rel=1e-4)  # 2 / 2 * 0.5^2 for each parameter
    for a, b in zip(network.backbone.parameters(), plain.backbone.parameters(), strict=True):
        assert torch.allclose(a - b, torch.full_like(a, -0.01 * 2 * 0.5), atol=1e-5)


def test_weight_decay_is_towards_zero_or_towards_the_start(images):
    fitted = {}
    for strategy in ("full", "l2sp"):
        decay = {"optim": {"kind": "sgd", "lr": 1e-9, "lr_rule": "none", "weight_decay": 0.0}}
        real = finetune_training.build_optimizer
        seen = []
        finetune_training.build_optimizer = lambda groups, *rest: (seen.append(groups), real(groups, *rest))[1]  # noqa: B023
        try:
            decay["optim"]["weight_decay"] = 0.1
            fit(images, encoder("resnet"), config(strategy, **decay, max_steps=1, min_steps=1, evaluations=1))
        finally:
            finetune_training.build_optimizer = real
        fitted[strategy] = {g["name"].startswith("head"): g["weight_decay"] for g in seen[0] if not g["name"].endswith("plain")}
    assert fitted == {"full": {True: 0.1, False: 0.1}, "l2sp": {True: 0.1, False: 0.0}}


def test_interpolation_with_the_start_is_chosen_on_validation_only(images):
    verdicts, seen = iter([0.2, 0.9, 0.5, 0.9]), []
    own = encoder("resnet")

    def select(y, scores):
        seen.append((y.copy(), scores.copy()))
        return next(verdicts)

    fitted = fit(images, own, config("wise"), select)
    assert [row["alpha"] for row in fitted.selection["table"]] == [0.25, 0.5, 0.75, 1.0]
    assert (fitted.selection["alpha"], fitted.selection["step"]) == (0.5, STEPS)
    val = image_set(images, own, range(12, 18))
    assert all(np.array_equal(y, val.y) for y, _ in seen)
    assert np.array_equal(fitted.scores(val), seen[1][1])
    end = fit(images, own, config("wise", wise={"alphas": [0.0, 0.1, 0.2, 1.0]}))  # rising scores: the last is kept
    after, start = end.network.state_dict(), own.model.state_dict()
    for name, value in fitted.network.backbone.state_dict().items():
        one, other = start[name], after[f"backbone.{name}"]
        want = 0.5 * one.double() + 0.5 * other.double() if value.is_floating_point() else other
        assert torch.allclose(value.double(), want.double(), atol=1e-6)
    full = fit(images, own, config("full", evaluations=1))
    assert all(value.equal(full.network.state_dict()[name]) for name, value in after.items())


def test_interpolation_at_its_ends():
    start, end = {"w": torch.randn(3), "n": torch.tensor(2)}, {"w": torch.randn(3), "n": torch.tensor(5)}
    for alpha, want in ((0.0, start), (1.0, end)):
        mean = interpolate(start, end, alpha)
        assert mean["w"].equal(want["w"])
        assert mean["n"] == 5


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_the_first_phase_of_lpft_is_the_linear_strategy_of_its_budget(ema, images):
    own, scores = encoder("vit"), {"linear": [], "lpft": []}

    def select(name):
        def score(y, s):
            scores[name].append(s.copy())
            return [0.6, 0.9, 0.5, 0.55][(len(scores[name]) - 1) % 4]

        return score

    half = {"max_steps": STEPS // 2, "min_steps": STEPS // 2, "evaluations": 2}
    linear = fit(images, own, config("linear", ema=ema, warmup=0.25, **half), select("linear"))
    both = fit(images, own, config("lpft", ema=ema, warmup=0.25), select("lpft"))
    assert all(np.array_equal(a, b) for a, b in zip(scores["linear"], scores["lpft"][:2], strict=True))
    assert [{k: v for k, v in row.items() if k != "phase"} for row in both.selection["table"][:2]] == linear.selection["table"]
    assert [row["phase"] for row in both.selection["table"]] == ["head", "head", "all", "all"]
    assert both.selection["phase"] == "head"  # its second validation was the best of all
    assert all(v.equal(linear.network.state_dict()[k]) for k, v in both.network.state_dict().items())


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_sees_the_same_images_and_has_the_same_validations(strategy, images, monkeypatch):
    seen, real = [], finetune_training.training_step
    monkeypatch.setattr(finetune_training, "training_step", lambda *a: (seen.append(a[3].clone()), real(*a))[1])
    own, looks = encoder("resnet"), []
    cfg = config(strategy, augment={"preset": "finetune_cxr"}, last={"count": 2})
    fitted = fit(images, own, cfg, lambda y, s: looks.append(1) or 0.5)  # no validation is better than the first
    first = fit_images(images, own)
    assert len(seen) == STEPS
    assert all(a.equal(b) for a, b in zip(seen, first, strict=True))
    assert len(looks) == 4
    assert (fitted.cost["images_seen"], fitted.cost["validations"]) == (4 * STEPS, 4)
    assert fitted.cost["memory_bytes"] > 0
    assert fitted.cost["memory_source"] == "counted"


def fit_images(images, own):
    """The batches of full fine-tuning, read from the loader itself."""
    cfg, train = config("full", augment={"preset": "finetune_cxr"}), in_image_order(image_set(images, own, range(12)))
    with build_batches(cfg, own, train, np.arange(12), 4) as batches:
        return [next(iter(batches.micro_batches(step))).views[0].clone() for step in range(STEPS)]


def test_fewer_trained_parameters_need_less_memory(images):
    memory = {s: fit(images, encoder("resnet"), config(s, evaluations=1)).cost["memory_bytes"] for s in ("linear", "last", "full")}
    assert memory["linear"] < memory["last"] < memory["full"]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_runs_of_a_strategy_are_equal_bit_for_bit(strategy, images):
    a, b = (fit(images, encoder("vit"), config(strategy, drop_path=0.2, ema=0.5)) for _ in range(2))
    assert a.network.state_dict().keys() == b.network.state_dict().keys()
    assert all(value.equal(b.network.state_dict()[name]) for name, value in a.network.state_dict().items())
