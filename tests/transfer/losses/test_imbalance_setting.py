"""`finetune.imbalance`: what is recorded, what reaches the training, and what is refused."""

import csv
import json
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir
from tests.transfer import toys
from tests.transfer.cli.test_cli import call
from tests.transfer.strategies.tiny import config, encoder, image_set
from transfer.bench.bench import load_protocols
from transfer.bench.cell import hash_protocol
from transfer.losses.registry import build_loss
from transfer.losses.sampling import draw_weights
from transfer.losses.settings import IMBALANCE_GROUPS, PLAIN, ImbalanceName
from transfer.protocols import describe_protocol, finetune, finetune_training, protocol_order
from transfer.strategies.names import check_settings_used

NAMES = [name for name in get_args(ImbalanceName) if name != PLAIN]


def fit(path, **settings):
    """A tiny network on a label of a fifth of the patients; the validation rows and the fitted protocol."""
    own = encoder("resnet")
    every = image_set(path, own)
    rare = (np.char.lstrip(every.patient.astype(str), "p").astype(int) % 5 == 0).astype(np.float32)[:, None]
    train, val = (replace(every.at(rows), y=rare[rows]) for rows in (np.arange(30), np.arange(30, 48)))
    return finetune.fit(config(max_steps=4, min_steps=4, **settings), train, val), train, val


def test_settings_of_an_approach_are_dumped_with_it_alone():
    plain = finetune.Config().model_dump(mode="json")
    assert not {"imbalance", *IMBALANCE_GROUPS} & set(plain)
    assert plain["class_weight"] == "balanced"
    for name in NAMES:
        dumped = finetune.Config(imbalance=name).model_dump(mode="json")
        assert dumped["imbalance"] == name
        assert "class_weight" not in dumped
        assert set(IMBALANCE_GROUPS) & set(dumped) == {name} & set(IMBALANCE_GROUPS)
        assert finetune.Config(**dumped) == finetune.Config(imbalance=name)


def test_the_loss_and_the_shift_of_each_approach_reach_the_training(tmp_path, monkeypatch):
    path = toys.store(tmp_path / "toy.h5", patients=24)
    losses, real = [], finetune_training.training_step

    def step(network, optimizer, scaler, images, loss_of, *rest):
        logits = torch.linspace(-1, 1, len(images))[:, None]
        losses.append((loss_of(logits), logits, loss_of.keywords))
        return real(network, optimizer, scaler, images, loss_of, *rest)

    monkeypatch.setattr(finetune_training, "training_step", step)
    seen = {}
    for name in (PLAIN, *NAMES):
        losses.clear()
        fitted, train, _ = fit(path, imbalance=name)
        built = build_loss(config(imbalance=name), True, train.y, "binary", train.patient, torch.device("cpu"))
        assert fitted.class_offset == pytest.approx(built.shift, rel=1e-6)
        assert [given["progress"] for _, _, given in losses] == [0, 0.25, 0.5, 0.75]
        assert all(value == built.loss(logits, given["y"], given["progress"]) for value, logits, given in losses)
        y = torch.tensor([[1.0], [0.0], [0.0], [0.0]])
        seen[name] = round(built.loss(losses[0][1], y, 0.0).item(), 6)
    assert len(set(seen.values())) == len(seen) - 1, seen  # the two that draw have one loss


def test_draws_by_class_reach_the_batches(tmp_path, monkeypatch):
    path, given, real = toys.store(tmp_path / "toy.h5", patients=24), [], finetune.Batches
    monkeypatch.setattr(finetune, "Batches", lambda *args, **more: given.append(more["weights"]) or real(*args, **more))
    _, train, _ = fit(path, imbalance="balanced_sampling")
    order = finetune.in_image_order(train)
    assert given[0].tolist() == draw_weights(order.y, "binary", order.patient, 0.0).tolist()
    assert given[0][order.y[:, 0] == 1].sum() == pytest.approx(0.5)
    fit(path)
    assert given[1] is None


def test_two_trainings_under_an_approach_are_equal(tmp_path):
    path = toys.store(tmp_path / "toy.h5", patients=24)
    for name in ("ldam", "sqrt_sampling"):
        (first, _, val), (second, _, _) = fit(path, imbalance=name), fit(path, imbalance=name)
        assert np.array_equal(first.scores(val), second.scores(val))


@pytest.mark.parametrize(
    ("protocols", "settings", "message"),
    [
        (["finetune"], ["finetune.imbalance=focl"], "imbalance: "),
        (["finetune"], ["finetune.imbalance=focal", "finetune.focal.gamma=-1"], "greater than or equal to 0"),
        (["finetune"], ["finetune.focal.gamma=1"], "has no effect: it belongs to finetune.imbalance=focal, and imbalance is class_weight"),
        (["finetune-lpft+ldam"], ["finetune.class_weight=none"], "has no effect: it belongs to finetune.imbalance=class_weight"),
        (["finetune-full+focl"], [], "no approach to imbalance called 'focl'; did you mean focal"),
    ],
)
def test_settings_without_effect_are_refused(protocols, settings, message):
    with pytest.raises(InputError, match=message):
        check_settings_used(protocols, settings)
        load_protocols(protocols, 0, settings)


def test_an_approach_is_named_beside_a_strategy():
    names = ["finetune", "finetune-full+focal", "finetune-last=2+ldam", "finetune-l2sp=1e+3"]
    check_settings_used(names, ["finetune.focal.gamma=1", "finetune.class_weight=none"])
    loaded = load_protocols(names, 0, ["finetune.focal.gamma=1"])
    assert list(loaded) == ["finetune", "finetune-full+focal", "finetune-last=2+ldam", "finetune-l2sp=1000"]
    cfgs = [cfg for _, cfg in loaded.values()]
    assert [(cfg.strategy, cfg.imbalance) for cfg in cfgs[:3]] == [("full", PLAIN), ("full", "focal"), ("last", "ldam")]
    assert (cfgs[1].focal.gamma, cfgs[2].last.count, cfgs[3].l2sp.weight) == (1.0, 2, 1000.0)
    assert hash_protocol("finetune", 1, cfgs[0]) == hash_protocol("finetune", 1, finetune.Config(precision="fp32"))
    assert describe_protocol("finetune-last=2+ldam") == "fine-tuning, last blocks (2), ldam"
    assert protocol_order("finetune-lpft+focal") == protocol_order("finetune-lpft")


def test_alpha_of_the_focal_loss_is_about_labels():
    cfg = finetune.Config(imbalance="focal", focal={"alpha": 0.3})
    with pytest.raises(InputError, match="the classes of this task have none"):
        build_loss(cfg, True, np.eye(3), "multiclass", np.arange(3), torch.device("cpu"))


def test_a_table_compares_approaches_at_equal_budget(tmp_path):
    store = toys.store(tmp_path / "toy.h5", patients=24)
    call("tasks", "add", "rare", store, "--label", "rare")
    words = ("--encoder", "random_test_resnet:size=32,channels=1", "--protocol", "finetune", "--baseline", "none", "--no-floor")
    quick = ("--device", "cpu", "--no-near", "finetune.min_steps=2", "finetune.max_steps=2", "finetune.evaluations=1", "finetune.batch=8")
    call("bench", *words, *quick, "--task", "rare", "--strategies", "full,full+focal,linear+sqrt_sampling", "finetune.focal.gamma=1")
    records = [json.loads(path.read_text()) for path in records_dir().glob("rare/*.json")]
    configs = {record["identity"]["protocol"]: record["protocol_config"] for record in records}
    assert set(configs) == {"finetune", "finetune-full+focal", "finetune-linear+sqrt_sampling"}
    assert configs["finetune-full+focal"]["focal"] == {"gamma": 1.0, "alpha": None}
    assert not {"imbalance", "focal"} & set(configs["finetune"])
    lines = list(csv.DictReader((records_dir() / "strategies.csv").read_text().splitlines()))
    assert [line["strategy"] for line in lines] == ["full", "linear+sqrt_sampling", "full+focal"]
    assert len({line["images_seen"] for line in lines}) == 1
    assert all(line["rarest_class_recall"] and line["ece"] for line in lines)
