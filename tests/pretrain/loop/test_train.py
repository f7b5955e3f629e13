"""The loop: schedules, accumulation, bad steps, signals, and the files of a run."""

import json
import math

import numpy as np
import pytest
import torch

import encoders
from encoders.runtime import dist, optim
from encoders.runtime.errors import InputError
from encoders.store.write import save_store
from pretrain.loop import train
from pretrain.loop.setup import build_setup
from pretrain.loop.train import TrainState, fit
from pretrain.recipe import config
from pretrain.run import lifecycle as runs
from pretrain.run import rundir
from tests.pretrain.runs import METHODS, recipe, run, store


@pytest.fixture
def images(tmp_path):
    return store(tmp_path)


def trained(images, words, *more, steps=3):
    """The parameters after a few steps, and the logged lines."""
    setup, lines = build_setup(recipe(images, words, *more), "cpu"), []
    fit(setup.method, setup.batches, setup.optimizer, setup.scaler, setup.recipe, steps, setup.warmup, TrainState(),
        lambda step, **n: lines.append({k: float(v) for k, v in n.items()}), lambda s: None, train.StopRequest(), setup.device)  # fmt: skip
    return torch.cat([p.detach().flatten() for p in setup.method.parameters()]), lines


def test_the_learning_rate_rises_linearly_and_falls_in_a_cosine():
    cfg = optim.Optim(kind="sgd", lr=0.3, lr_end=0.1)
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(2))], "lr_scale": s, "fixed_lr": f} for s, f in ((1, False), (0.5, False), (1, True))
    ]
    optimizer = optim.build_optimizer(groups, cfg, batch=512)
    rates = []
    for step in range(20):
        optim.set_lr(optimizer, step, 20, 4, cfg)
        rates.append([g["lr"] for g in optimizer.param_groups])
    peak = 0.3 * 512 / 256
    cosine = [peak * (0.1 + 0.9 * (1 + math.cos(math.pi * (s - 4) / 16)) / 2) for s in range(4, 20)]
    want = np.array([peak * (s + 1) / 4 for s in range(4)] + cosine)
    np.testing.assert_allclose(np.array(rates)[:, 0], want, rtol=1e-12)
    np.testing.assert_allclose(np.array(rates)[:, 1], want / 2, rtol=1e-12)
    np.testing.assert_allclose(np.array(rates)[:, 2], peak, rtol=1e-12)


def test_weight_decay_rises_in_a_cosine_if_it_has_an_end_and_exempt_groups_stay_at_zero():
    cfg = optim.Optim(weight_decay=0.04, weight_decay_end=0.4)
    one, two = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    optimizer = optim.build_optimizer([{"params": [one]}, {"params": [two], "weight_decay": 0.0}], cfg, batch=256)
    decays = []
    for step in (0, 5, 10):
        optim.set_lr(optimizer, step, 10, 0, cfg)
        decays.append([g["weight_decay"] for g in optimizer.param_groups])
    np.testing.assert_allclose(decays, [[0.04, 0], [0.22, 0], [0.4, 0]])
    with pytest.raises(ValueError, match="weight_decay_end needs a weight_decay"):
        optim.Optim(weight_decay=0, weight_decay_end=0.4)


def test_the_schedule_step_drops_at_seven_eighths_of_the_run():
    """SimMIM: a tenth from epoch 700 of 800 on; the warm-up as ever."""
    factors = [optim.lr_factor(step, 80, 4, 0.1, "step") for step in (0, 3, 4, 69, 70, 79)]
    assert factors == [0.25, 1.0, 1.0, 1.0, 0.1, 0.1]


@pytest.mark.parametrize(("rule", "batch", "want"), [("linear", 64, 0.25), ("sqrt", 64, 0.5), ("none", 64, 1.0), ("linear", 1024, 4.0)])
def test_the_learning_rate_scales_with_the_batch(rule, batch, want):
    assert optim.peak_lr(optim.Optim(lr=1.0, lr_rule=rule), batch) == pytest.approx(want)


@pytest.mark.parametrize("kind", ["sgd", "adamw", "lars"])
def test_each_optimizer_takes_the_step_of_its_paper(kind):
    p = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    optimizer = optim.build_optimizer([{"params": [p]}], optim.Optim(kind=kind, lr=0.1, lr_rule="none", weight_decay=0.01, trust=0.02), 1)
    p.grad = torch.tensor([0.6, 0.8])
    optimizer.step()
    w, g = np.array([3.0, 4.0]), np.array([0.6, 0.8])
    want = {
        "sgd": w - 0.1 * (g + 0.01 * w),
        "adamw": w * (1 - 0.1 * 0.01) - 0.1 * np.sign(g),  # the first step of Adam is the sign of the gradient
        "lars": w - 0.1 * 0.02 * 5 / (1 + 0.01 * 5) * (g + 0.01 * w),
    }[kind]
    np.testing.assert_allclose(p.detach().numpy(), want, rtol=1e-5)


def test_frozen_parameters_do_not_reach_the_optimizer_and_nothing_to_train_is_an_error():
    frozen = torch.nn.Parameter(torch.zeros(1), requires_grad=False)
    with pytest.raises(ValueError, match="no parameter to train"):
        optim.build_optimizer([{"params": [frozen]}], optim.Optim(), 1)


def test_gather_alone_is_the_identity():
    x = torch.randn(3, 2, requires_grad=True)
    assert dist.gather(x) is x


def test_micro_batches_do_not_change_a_method_without_batch_statistics(images):
    more = [
        "precision=fp32",
        "drop_path=0.0",
        "clip=1.0",
        "optim.kind=sgd",
        "optim.lr=1.0",
    ]  # sgd: Adam amplifies rounding errors to the size of a step
    weights, lines = trained(images, METHODS["mae"], *more)
    accumulated, accumulated_lines = trained(images, METHODS["mae"], *more, "accumulate=4")
    torch.testing.assert_close(accumulated, weights, rtol=1e-6, atol=1e-6)
    for a, b in zip(lines, accumulated_lines, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5)


def test_the_gradient_is_clipped_to_its_limit(images):
    setup = build_setup(recipe(images, METHODS["mae"], "clip=1e-3", "precision=fp32"), "cpu")
    seen = []
    step = setup.optimizer.step

    def watched():
        seen.append(math.sqrt(sum(float(p.grad.norm()) ** 2 for g in setup.optimizer.param_groups for p in g["params"])))
        step()

    setup.optimizer.step = watched
    fit(setup.method, setup.batches, setup.optimizer, setup.scaler, setup.recipe, 2, 0, TrainState(), lambda step, **n: None,
        lambda s: None, train.StopRequest(), setup.device)  # fmt: skip
    assert seen == pytest.approx([1e-3, 1e-3], rel=1e-3)


def test_a_bad_step_is_skipped_and_counted_and_many_in_a_row_stop_the_run(images, monkeypatch):
    setup = build_setup(recipe(images, METHODS["mae"], "max_skipped=3", "optim.weight_decay=0"), "cpu")
    real, state, seen = setup.method.forward, TrainState(), []

    def forward(views, masks, progress, patient_ids=None):
        out = real(views, masks, progress)
        bad = state.step in (1, 2) or state.step > 4
        return {"loss": out["loss"] * (float("nan") if bad else 1.0)}

    monkeypatch.setattr(setup.method, "forward", forward)

    def log(step, **numbers):
        seen.append((step, int(numbers["skipped"]), all(bool(torch.isfinite(p).all()) for p in setup.method.parameters())))

    with pytest.raises(train.Diverged, match=r"NaN or inf for 3 consecutive steps, up to step 8; lower optim\.lr"):
        fit(
            setup.method,
            setup.batches,
            setup.optimizer,
            setup.scaler,
            setup.recipe,
            9,
            0,
            state,
            log,
            lambda s: None,
            train.StopRequest(),
            setup.device,
        )
    assert seen == [(1, 0, True), (2, 1, True), (3, 2, True), (4, 2, True), (5, 2, True), (6, 3, True), (7, 4, True)]


def test_random_numbers_of_the_model_differ_between_steps_micro_batches_and_ranks_only():
    def drawn(*address):
        train.seed_model(*address)
        return torch.rand(4)

    base = drawn(0, 5, 1, 0)
    assert torch.equal(base, drawn(0, 5, 1, 0))
    for other in ((1, 5, 1, 0), (0, 6, 1, 0), (0, 5, 0, 0), (0, 5, 1, 1)):
        assert not torch.equal(base, drawn(*other))


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_finite(method, images):
    _, lines = trained(images, METHODS[method], "log_every=1", steps=9)
    assert len(lines) == 9
    assert all(math.isfinite(line["loss"]) for line in lines)


def test_the_loss_falls(images):
    """That of MAE: a contrastive loss against a queue that fills with real keys rises first."""
    _, lines = trained(images, METHODS["mae"], "log_every=1", steps=9)
    assert lines[-1]["loss"] < lines[0]["loss"]


def test_a_run_writes_all_metrics_and_an_encoder_that_plain_timm_loads(images):
    import timm
    from safetensors.torch import load_file

    where = run(images, METHODS["moco"], "left", "modality=cxr")
    lines = [json.loads(line) for line in (where.path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 10))
    assert {"loss", "lr", "grad_norm", "time/images_per_s", "time/data_wait"} <= set(lines[0])
    info = where.read()
    assert info["status"] == "finished"
    assert {"id", "wandb", "versions", "fingerprint", "sessions"} <= set(info)
    assert str(images) not in (where.path.parent.parent / "zoo" / "left" / "card.yaml").read_text()  # no folder of this machine

    from encoders.zoo import canary
    from encoders.zoo.card import Card

    folder = where.path.parent.parent / "zoo" / "left"
    card = Card.read(folder / "card.yaml")
    plain = timm.create_model(card.arch, num_classes=0, in_chans=card.preprocess.channels, **card.model_args)
    plain.load_state_dict(load_file(folder / "model.safetensors"), strict=True)
    assert canary.canary_distance(card.canary, canary.compute_canary(plain.eval(), card)) < 1e-3
    assert (card.method, card.steps, card.lineage["init"], card.corpus["images"]) == ("moco", 9, "random:0", 80)
    with np.load(folder / "manifest.npz") as manifest:
        assert manifest["sha256"].shape == manifest["phash"].shape == manifest["patient_hash"].shape == (80, 32)
        assert manifest["phash_trimmed"].shape == (80, 32), "hashes without borders, for padded copies"
        assert len(np.unique(manifest["patient_hash"], axis=0)) == 40
    assert encoders.load("left").card.dim == encoders.load("runs/left@8").card.dim == card.dim
    assert encoders.load("left").sha256 != encoders.load("runs/left@8").sha256


def test_the_same_run_again_does_nothing_and_another_of_its_name_is_refused(images, capsys):
    where = run(images, METHODS["mae"], "twice")
    before = (where.path / "metrics.jsonl").read_bytes()
    assert runs.start_run(recipe(images, METHODS["mae"]), where, "cpu") == 0
    assert "already finished" in capsys.readouterr().err
    assert (where.path / "metrics.jsonl").read_bytes() == before
    with pytest.raises(InputError, match="exists with other settings.*--name"):
        runs.start_run(recipe(images, METHODS["mae"], "seed=1"), where, "cpu")
    where.update(status="stopped")
    with pytest.raises(InputError, match="pretrain resume twice"):
        runs.start_run(recipe(images, METHODS["mae"]), where, "cpu")
    assert runs.start_run(recipe(images, METHODS["mae"]), where, "cpu", continue_existing=True) == 0


def test_a_run_starts_from_an_encoder_with_its_preprocessing(images):
    run(images, METHODS["moco"], "first", "preprocess.mean=[0.4]", "preprocess.std=[0.3]")
    words = [*METHODS["moco"], "init=first"]
    setup = build_setup(recipe(images, words), "cpu")
    assert (setup.card.preprocess.mean, setup.card.preprocess.std) == ((0.4,), (0.3,))
    for name, value in encoders.load("first").model.state_dict().items():
        assert torch.equal(setup.method.encoder().state_dict()[name], value)
    assert setup.card.lineage["init_sha256"] == encoders.load("first").sha256
    with pytest.raises(InputError, match="init=first is a test_resnet, but arch=resnet18"):
        build_setup(recipe(images, words, "arch=resnet18"), "cpu")


def test_position_tables_are_resampled_to_another_size(images):
    run(images, METHODS["mae"], "small")
    setup = build_setup(recipe(images, METHODS["mae"], "init=small", "size=64"), "cpu")
    assert setup.method.encoder().pos_embed.shape[1] == 64 + 1
    assert torch.equal(setup.method.encoder().blocks[0].mlp.fc1.weight, encoders.load("small").model.blocks[0].mlp.fc1.weight)


def test_mean_and_std_are_those_of_the_images(images):
    from encoders.store.store import Store

    pixels = Store.open(images).unit_images(np.arange(80))
    setup = build_setup(recipe(images, METHODS["mae"], "size=40"), "cpu")
    assert setup.card.preprocess.mean[0] == pytest.approx(pixels.mean(), abs=1e-4)
    assert setup.card.preprocess.std[0] == pytest.approx(pixels.std(), abs=1e-4)


def test_stores_of_different_image_sizes_are_refused_before_a_run_exists(images, tmp_path):
    other = save_store(tmp_path / "small.h5", np.zeros((30, 24, 24, 1), np.uint8))
    where = rundir.run_dir_for("different")
    with pytest.raises(InputError, match=r"differ in size \(24 x 24 in small.h5, \d+ x \d+ in .*\); ingest them with one --size"):
        runs.start_run(recipe(images, METHODS["moco"], f"data.store=[{images},{other}]"), where, "cpu")
    assert not where.path.exists()


def test_only_the_named_images_are_used(images, tmp_path):
    keys = tmp_path / "keys.txt"
    keys.write_text("\n".join(f"{i:06d}" for i in range(20)) + "\n")
    setup = build_setup(recipe(images, METHODS["moco"], f"data.keys={keys}"), "cpu")
    rows = torch.cat([micro.index for step in range(5) for micro in setup.batches.micro_batches(step)])
    assert set(rows.tolist()) <= set(range(20))
    assert setup.corpus.manifest()["sha256"].shape == (20, 32)
    keys.write_text("000001\nnobody\n")
    with pytest.raises(InputError, match="1 of its 2 keys, such as 'nobody', are not in"):
        build_setup(recipe(images, METHODS["moco"], f"data.keys={keys}"), "cpu")


def test_impossible_recipes_are_refused(images):
    with pytest.raises(InputError, match=r"batch=128 is more than the 80 images"):
        build_setup(recipe(images, METHODS["moco"], "batch=128"), "cpu")
    with pytest.raises(InputError, match="warm-up"):
        build_setup(recipe(images, METHODS["moco"], "warmup_steps=9"), "cpu")
    with pytest.raises(InputError, match=r"data\.store"):
        build_setup(config.load_recipe("cxr_moco_tiny"), "cpu")
    with pytest.raises(InputError, match="is not a valid run name"):
        rundir.run_dir_for("../x")


def test_a_folder_that_cannot_be_written_and_a_wrong_device_are_refused_before_a_step(images, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match="cannot write in .*file/r: Not a directory; choose a folder"):
        runs.start_run(recipe(images, METHODS["mae"]), rundir.run_dir_for("r", tmp_path / "file"), "cpu")
    with pytest.raises(InputError, match="'cud' is not a device; use cuda"):
        runs.start_run(recipe(images, METHODS["mae"]), rundir.run_dir_for("r", tmp_path / "runs"), "cud")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "zoo").write_text("not a folder")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOGRAFT_HOME", str(tmp_path / "home"))
        with pytest.raises(InputError, match="cannot write in .*zoo"):
            runs.start_run(recipe(images, METHODS["mae"]), rundir.run_dir_for("r", tmp_path / "runs"), "cpu")
    assert not (tmp_path / "runs").exists()
