"""What a run can add to its method: each part against NumPy or a closed form through the loop, off by default, exact when resumed."""

import numpy as np
import pytest
import torch

from encoders.runtime import checkpoint
from encoders.runtime.errors import InputError
from encoders.runtime.metrics_log import read_metrics
from encoders.runtime.paths import zoo_dir
from encoders.runtime.stop import StopRequest
from pretrain.loop import train
from pretrain.loop.setup import build_setup
from pretrain.loop.train import TrainState, fit
from pretrain.loop.weight_average import WeightAverage
from pretrain.methods import METHODS
from pretrain.methods.backbone_groups import split_backbone
from pretrain.methods.param_groups import build_param_groups
from pretrain.methods.relational import relational_loss
from pretrain.recipe import config
from pretrain.run import lifecycle as runs
from pretrain.run import rundir
from tests.pretrain import tiny
from tests.pretrain.run.test_resume import equal_runs, last
from tests.pretrain.runs import recipe, run, store
from tests.pretrain.starts import SIMCLR, VIT, publish
from tests.ranks import run_on_two_ranks

ALL = ["layer_decay=0.7", "head_warmup_steps=2", "anchor.relational=25", "anchor.l2_sp=0.1", "ema=0.9"]


@pytest.fixture
def images(tmp_path):
    return store(tmp_path)


def take_steps(images, *more, steps=6, words=SIMCLR, seen=None):
    """The setup after `steps` steps of the loop, and its logged lines.  seen: called with (setup, step) after each."""
    setup, lines = build_setup(recipe(images, words, *more), "cpu"), []

    def log(step, **numbers):
        lines.append({key: float(value) for key, value in numbers.items()})
        if seen:
            seen(setup, step)

    stop = StopRequest()
    fit(setup.method, setup.batches, setup.optimizer, setup.scaler, setup.recipe, max(steps, setup.steps), setup.warmup, TrainState(), log,
        lambda state: None, stop, setup.device, setup.continuation)  # fmt: skip
    return setup, lines


def backbone_state(setup):
    return {key: value.clone() for key, value in setup.method.encoder().state_dict().items()}


# Off


def test_without_the_settings_nothing_is_added_and_no_start_is_kept(images):
    publish()
    setup = build_setup(recipe(images, SIMCLR), "cpu")
    parts = setup.continuation
    assert (parts.anchor, parts.head_warmup, parts.average) == (None, None, None)
    assert [g["name"] for g in setup.optimizer.param_groups] == [g["name"] for g in setup.method.param_groups()]


@pytest.mark.parametrize("setting", ["layer_decay=0.9", "head_warmup_steps=1", "anchor.relational=1", "anchor.l2_sp=1", "ema=0.9"])
def test_each_setting_enters_the_identity_of_the_recipe(setting):
    assert config.recipe_identity(config.load_recipe("cxr_moco", [setting])) != config.recipe_identity(config.load_recipe("cxr_moco"))


# Layer decay


@pytest.mark.parametrize("arch", ["test_resnet", "mobilenetv2_050", "convnext_atto", "vit_tiny_patch16_224"])
@pytest.mark.parametrize("name", ["moco", "simclr", "dino"])
def test_the_learning_rate_falls_by_a_factor_per_layer_and_heads_keep_theirs(images, arch, name):
    args = f"model_args={VIT}" if arch.startswith("vit") else "model_args={}"
    words = [f"cxr_{name}_tiny", f"arch={arch}", args, "size=32", "batch=8", "optim.lr=1.0", "optim.lr_rule=none", "steps=5"]
    words += ["method.n_local=0", "method.prototypes=16"] if name == "dino" else []
    setup = build_setup(recipe(images, [*words, "warmup_steps=0", "layer_decay=0.5"]), "cpu")
    group_of = {id(p): g for g in setup.optimizer.param_groups for p in g["params"]}
    names = [n for n, _ in setup.method.backbone.named_parameters()]
    blocks = {  # parameters of ever higher layers, from the stem to the last block
        "test_resnet": ["conv1.0.weight", *(f"layer{i}.0.conv1.weight" for i in range(1, 5))],
        "mobilenetv2_050": ["conv_stem.weight", "blocks.0.0.conv_dw.weight", "blocks.1.0.conv_pw.weight", "blocks.1.1.conv_pw.weight"],
        "convnext_atto": ["stem.0.weight", "stages.0.blocks.0.conv_dw.weight", "stages.0.blocks.1.conv_dw.weight"],
        "vit_tiny_patch16_224": ["patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.1.attn.qkv.weight"],
    }[arch]
    assert set(blocks) <= set(names)
    weights = dict(setup.method.backbone.named_parameters())
    peaks = [group_of[id(weights[n])]["peak"] for n in blocks]
    assert np.array(peaks[1:]) == pytest.approx(2 * np.array(peaks[:-1]))
    if arch in ("test_resnet", "vit_tiny_patch16_224"):  # the last of `blocks` is the last layer: one below the heads
        assert peaks[-1] == pytest.approx(0.5)
    own = {id(p) for p in setup.method.backbone.parameters()}
    heads = [g for g in setup.optimizer.param_groups if not {id(p) for p in g["params"]} & own]
    assert heads
    assert {g["peak"] for g in heads} == {1.0}
    trained = [id(p) for p in setup.method.parameters() if p.requires_grad]
    assert sorted(group_of) == sorted(trained), "every trained parameter is in exactly one group"
    decays = {id(p): g.get("weight_decay", setup.recipe.optim.weight_decay) for g in setup.method.param_groups() for p in g["params"]}
    assert {key: group_of[key]["weight_decay"] for key in decays} == decays, "weight decay stays as the method sets it"


def test_with_sgd_a_layer_moves_by_its_factor(images):
    publish()
    sgd = "optim={kind: sgd, lr: 0.01, lr_rule: none, momentum: 0, weight_decay: 0}"
    start = backbone_state(build_setup(recipe(images, SIMCLR), "cpu"))
    moved = []
    for decay in (1.0, 0.5):
        setup, _ = take_steps(images, sgd, f"layer_decay={decay}", "steps=1", "warmup_steps=0", steps=1)
        moved.append({key: value - start[key] for key, value in backbone_state(setup).items()})
    for key, factor in (("conv1.0.weight", 0.5**5), ("layer1.0.conv1.weight", 0.5**4), ("layer4.0.conv1.weight", 0.5)):
        torch.testing.assert_close(moved[1][key], factor * moved[0][key], rtol=1e-2, atol=1e-7)


# Head warm-up


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize("batchnorm", ["frozen", "train"])
def test_the_backbone_stays_bit_identical_during_the_head_warmup_and_moves_after_it(images, optimizer, batchnorm):
    start = publish()
    states, heads, moments = {}, {}, {}

    def seen(setup, step):
        states[step] = backbone_state(setup)
        heads[step] = setup.method.head[0].weight.detach().clone()
        moments[step] = [p for p in setup.method.backbone.parameters() if setup.optimizer.state.get(p)]

    optim = f"optim={{kind: {optimizer}, lr: 1.0e-2, lr_rule: none, weight_decay: 0.1}}"
    take_steps(images, optim, f"batchnorm={batchnorm}", "head_warmup_steps=3", seen=seen)
    for step in (1, 2, 3):
        assert tiny.same_state(states[step], start), "weights, running statistics and counters"
        assert not moments[step]
    assert not torch.equal(heads[1], heads[3])
    assert not tiny.same_state(states[4], start)
    assert moments[4]
    statistics = [key for key in start if "running" in key]
    assert all(torch.equal(states[6][key], start[key]) for key in statistics) == (batchnorm == "frozen")


def test_the_backbone_has_a_warmup_of_its_own(images):
    publish()
    rates = []

    def seen(setup, step):
        groups = setup.optimizer.param_groups
        rates.append([next(g["lr"] for g in groups if bool(g.get("backbone")) == own) for own in (False, True)])

    sgd = "optim={kind: sgd, lr: 1.0, lr_rule: none, momentum: 0, weight_decay: 0, schedule: constant}"
    take_steps(images, sgd, "head_warmup_steps=2", "warmup_steps=3", "steps=8", steps=8, seen=seen)
    heads, backbone = np.array(rates).T
    assert heads == pytest.approx([1 / 3, 2 / 3, 1, 1, 1, 1, 1, 1])
    assert backbone == pytest.approx([0, 0, 1 / 3, 2 / 3, 1, 1, 1, 1])


def test_a_teacher_that_is_exported_stays_as_well(images):
    start = publish()
    words = ["cxr_dino_tiny", *[w for w in SIMCLR[1:] if not w.startswith("method")], "method.prototypes=16", "method.hidden=16"]
    words += ["method.bottleneck=8", "method.n_local=0", "method.freeze=0", "batchnorm=train"]
    states = {}
    take_steps(images, "head_warmup_steps=3", words=words, seen=lambda setup, step: states.update({step: backbone_state(setup)}))
    assert tiny.same_state(states[3], start)
    assert not tiny.same_state(states[4], start)


def test_a_head_warmup_as_long_as_the_run_is_refused(images):
    publish()
    with pytest.raises(InputError, match="head_warmup_steps=4 and the backbone's warm-up of 2 steps"):
        build_setup(recipe(images, SIMCLR, "head_warmup_steps=4"), "cpu")


# Anchors


def loops(student, teacher):
    """RKD-D by its definition, in loops over pairs of rows."""

    def distances(x):
        x = [row / np.sqrt((row**2).sum()) for row in x]
        pairs = [np.sqrt(((x[i] - x[j]) ** 2).sum()) for i in range(len(x)) for j in range(len(x)) if i != j]
        return np.array(pairs) / np.mean(pairs)

    difference = np.abs(distances(student) - distances(teacher))
    return np.mean(np.where(difference < 1, 0.5 * difference**2, difference - 0.5))


@pytest.mark.parametrize("scale", [0.01, 1.0, 5.0])
def test_the_relational_loss_equals_its_definition(scale):
    rng = np.random.default_rng(0)
    a = rng.normal(size=(9, 5))
    b = a + scale * rng.normal(size=(9, 5))
    assert relational_loss(torch.tensor(a), torch.tensor(b)).item() == pytest.approx(loops(a, b), rel=1e-10)
    rotation = np.linalg.qr(rng.normal(size=(5, 5)))[0]
    assert relational_loss(torch.tensor(7 * a @ rotation), torch.tensor(a)).item() == pytest.approx(0, abs=1e-20)


def test_equal_rows_and_collapsed_features_have_finite_gradients():
    for x in (torch.ones(4, 3), torch.tensor([[1.0, 0], [1, 0], [0, 1]])):
        x.requires_grad_()
        loss = relational_loss(x, torch.randn(x.shape, generator=torch.Generator().manual_seed(0)))
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(x.grad).all()


def test_the_loop_adds_the_relational_term_of_the_images_of_the_step(images):
    """The logged term equals the definition on the features of start and encoder for the images that the encoder receives."""
    publish()
    setup = build_setup(recipe(images, SIMCLR, "anchor.relational=25"), "cpu")
    twin = build_setup(recipe(images, SIMCLR), "cpu")
    with torch.no_grad():
        for p in setup.method.backbone.parameters():
            p.mul_(1.02)
        twin.method.load_state_dict(setup.method.state_dict())
    micro = next(setup.batches.micro_batches(0))
    train.seed_model(0, 0, 0, 0)
    anchored = setup.continuation.anchor.train()(micro.views, None, progress=0.0)
    plain = twin.method.train()(micro.views, None, progress=0.0)
    both = torch.cat(micro.views)
    with torch.no_grad():
        now = twin.method.backbone(both)
    publish_again = build_setup(recipe(images, SIMCLR), "cpu").method.encoder().eval()
    with torch.no_grad():
        before = publish_again(both)
    want = loops(now.double().numpy(), before.double().numpy())
    assert want > 1e-4
    assert anchored["anchor_relational"].item() == pytest.approx(want, rel=1e-4)
    assert anchored["loss"].item() == pytest.approx(plain["loss"].item() + 25 * want, rel=1e-4)


@pytest.mark.parametrize("name", sorted(set(METHODS) - {"mae", "simmim", "ijepa", "spark", "dinov2"}))
def test_every_method_that_sees_whole_images_can_be_held_by_relations(images, name):
    publish(arch="vit_tiny_patch16_224", dynamic_img_size=True, **VIT)
    words = [f"cxr_{name}_tiny", *[w for w in SIMCLR[1:] if not w.startswith("method")]]
    words += [f"method.{key}={value}" for key, value in tiny.SMALL[name].items()]
    _, lines = take_steps(images, "anchor.relational=5", "steps=3", words=words, steps=3)
    assert lines[0]["anchor_relational"] == pytest.approx(0, abs=1e-6), "statistics are frozen: the encoder is its start"
    assert 1e-9 < lines[-1]["anchor_relational"] < 1


def test_a_method_that_hides_patches_is_refused(images):
    publish(arch="vit_tiny_patch16_224", **VIT)
    words = ["cxr_mae_tiny", "arch=null", f"model_args={VIT}", "init=start", "size=32", "batch=8", "steps=4", "warmup_steps=0"]
    with pytest.raises(InputError, match=r"hides patches: use anchor\.l2_sp"):
        build_setup(recipe(images, words, "anchor.relational=1"), "cpu")
    assert build_setup(recipe(images, words, "anchor.l2_sp=1"), "cpu").continuation.anchor


@pytest.mark.parametrize("accumulate", [1, 2])
def test_l2_sp_pulls_the_weights_to_the_start_by_its_closed_form(images, accumulate, monkeypatch):
    """With SGD and a method without gradient, d' = d (1 - lr a): the distance to the start shrinks by that factor in each step."""
    publish()
    monkeypatch.setattr("pretrain.methods.simclr.nt_xent", lambda a, b, t, ids: 0.0 * a.sum())
    sgd = "optim={kind: sgd, lr: 0.5, lr_rule: none, momentum: 0, weight_decay: 0.3, schedule: constant}"
    setup = build_setup(recipe(images, SIMCLR, sgd, "anchor.l2_sp=0.4", "warmup_steps=0", f"accumulate={accumulate}"), "cpu")
    start = backbone_state(setup)
    parameters = dict(setup.method.backbone.named_parameters())
    with torch.no_grad():
        for p in parameters.values():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    away, head = {n: p.detach() - start[n] for n, p in parameters.items()}, setup.method.head[0].weight.detach().clone()
    logged = []
    fit(setup.method, setup.batches, setup.optimizer, setup.scaler, setup.recipe, 3, 0, TrainState(),
        lambda step, **n: logged.append(float(n["anchor_distance"])), lambda s: None, StopRequest(), setup.device,
        setup.continuation)  # fmt: skip
    for name, p in parameters.items():
        torch.testing.assert_close(p.detach() - start[name], away[name] * 0.8**3, rtol=1e-4, atol=1e-6)
    total = sum(float(d.double().square().sum()) for d in away.values())
    assert logged == pytest.approx([total, total * 0.8**2, total * 0.8**4], rel=1e-4)
    torch.testing.assert_close(setup.method.head[0].weight.detach(), head * (1 - 0.5 * 0.3) ** 3)  # heads keep their weight decay


def test_anchors_need_a_start():
    with pytest.raises(InputError, match="need init=ENCODER"):
        config.load_recipe("cxr_simclr_tiny", ["anchor.l2_sp=1"])


# Averaged weights


def test_the_average_follows_the_weights_and_statistics_by_its_definition(images):
    publish()
    states = []
    setup, _ = take_steps(images, "ema=0.5", "batchnorm=train", seen=lambda setup, step: states.append(backbone_state(setup)))
    start = backbone_state(build_setup(recipe(images, SIMCLR), "cpu"))
    want = {key: value.double().numpy() for key, value in start.items()}
    for step, state in enumerate(states):
        decay = min(0.5, (1 + step) / (10 + step))
        want = {key: decay * want[key] + (1 - decay) * state[key].double().numpy() for key in want}
    average = setup.continuation.average.tensors
    assert average.keys() == want.keys()
    for key in want:
        if key.endswith("num_batches_tracked"):
            assert average[key].item() == states[-1][key].item() == 6
        else:
            np.testing.assert_allclose(average[key].numpy(), want[key], rtol=1e-4, atol=1e-6)


def test_the_decay_rises_to_the_setting():
    average = WeightAverage(torch.nn.Linear(1, 1), 0.999)
    assert [average.decay_at(step) for step in (0, 8, 10**6)] == pytest.approx([0.1, 0.5, 0.999])


# A whole run


def test_a_run_applies_every_part_and_keeps_the_start_out_of_its_checkpoints(images):
    start = publish()
    where = run(images, SIMCLR, "mine", *ALL, "save_every=1", "keep_every=1")
    saved = [checkpoint.load_checkpoint(checkpoint.checkpoint_path(where.checkpoints, step)) for step in range(1, 7)]
    assert [tiny.same_state(s["encoder"], start) for s in saved] == [True, True, False, False, False, False]
    want = {key: value.double() for key, value in start.items()}
    for step, s in enumerate(saved):
        decay = min(0.9, (1 + step) / (10 + step))
        want = {key: decay * want[key] + (1 - decay) * s["encoder"][key].double() for key in want}
    for key, value in saved[-1]["average"].items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), want[key], rtol=1e-5, atol=1e-7)
    logged = read_metrics(where.path)
    assert all(row["anchor_distance"] == 0 for row in logged[:3]), "of the weights before the step"
    distance = sum(float((saved[4]["encoder"][key] - start[key]).double().square().sum()) for key in start if "running" not in key)
    assert logged[5]["anchor_distance"] == pytest.approx(distance, rel=1e-4)
    assert logged[5]["anchor_relational"] > 1e-6
    assert not [key for s in saved for key in s["method"] if "start" in key]


# Resuming, ranks


@pytest.mark.parametrize("settings", [["head_warmup_steps=3"], ["anchor.relational=25", "anchor.l2_sp=0.1"], ALL], ids="-".join)
@pytest.mark.parametrize("lost", [2, 4])
def test_a_resumed_run_equals_the_uninterrupted_one(images, settings, lost, monkeypatch):
    publish()
    words = [*SIMCLR, *settings, "batchnorm=train", "drop_path=0.1"]
    uninterrupted, where = run(images, words, "uninterrupted"), rundir.run_dir_for("stopped")
    real, steps = train.clip_gradients, []

    def clip(*given):
        steps.append(1)
        if len(steps) == lost + 1:
            raise KeyboardInterrupt  # that step is lost, as by a kill
        return real(*given)

    monkeypatch.setattr(train, "clip_gradients", clip)
    with pytest.raises(KeyboardInterrupt):
        runs.start_run(recipe(images, words), where, "cpu")
    assert runs.resume_run(where, "cpu") == 0
    assert equal_runs(uninterrupted, where)
    assert tiny.same_state(last(uninterrupted)["average"], last(where)["average"])


def test_a_start_that_was_replaced_is_refused_when_the_run_is_resumed(images, monkeypatch):
    publish()
    where = rundir.run_dir_for("stopped")
    with monkeypatch.context() as patch:
        patch.setattr(train, "clip_gradients", stop_at(3))
        with pytest.raises(KeyboardInterrupt):
            runs.start_run(recipe(images, [*SIMCLR, "anchor.l2_sp=1"]), where, "cpu")
    (zoo_dir() / "start").rename(zoo_dir() / "old")
    with pytest.raises(InputError, match="no encoder called 'start'"):
        runs.resume_run(where, "cpu")
    publish(seed=4)
    with pytest.raises(InputError, match=r"init=start has sha256 .* the run started from .*: the encoder was replaced or changed"):
        runs.resume_run(where, "cpu")


def stop_at(step):
    """`clip_gradients` that is interrupted in the given step."""
    real, steps = train.clip_gradients, []

    def clip(*given):
        steps.append(1)
        if len(steps) == step:
            raise KeyboardInterrupt
        return real(*given)

    return clip


def steps_in_float64(images, settings):
    """The state, the average and the logged terms after six steps in float64, in which rounding does not blur the comparison."""
    setup, lines = build_setup(recipe(images, SIMCLR, *settings), "cpu"), []
    parts = setup.continuation
    setup.method.double()
    setup.method.register_forward_pre_hook(lambda m, args: ([v.double() for v in args[0]], *args[1:]))
    if parts.anchor:
        parts.anchor.start.double()
    if parts.average:
        parts.average.tensors = {key: t.double() if t.is_floating_point() else t for key, t in parts.average.tensors.items()}
    fit(setup.method, setup.batches, setup.optimizer, setup.scaler, setup.recipe, setup.steps, setup.warmup, TrainState(),
        lambda step, **n: lines.append({k: float(v) for k, v in n.items() if k.startswith("anchor")}), lambda s: None, StopRequest(),
        setup.device, parts)  # fmt: skip
    return {"state": setup.method.state_dict(), "lines": lines, "average": parts.average.tensors if parts.average else {}}


def one_rank(rank, images, out, settings):
    torch.save(steps_in_float64(images, settings), out / f"{rank}.pt")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [["head_warmup_steps=2"], ["anchor.relational=25", "anchor.l2_sp=0.1", "ema=0.9"], ALL], ids="-".join)
def test_two_ranks_take_the_steps_of_one_process(images, tmp_path, settings):
    publish()
    settings = [*settings, "batchnorm=sync"]
    run_on_two_ranks(one_rank, images, tmp_path, settings)
    want = steps_in_float64(images, settings)
    for rank in range(2):
        own = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        for kind in ("state", "average"):
            assert own[kind].keys() == want[kind].keys()
            for key, value in want[kind].items():
                torch.testing.assert_close(own[kind][key], value, rtol=1e-7, atol=1e-8, msg=lambda m, k=f"{kind} {key}": f"{k}: {m}")
        for a, b in zip(own["lines"], want["lines"], strict=True):
            assert a == pytest.approx(b, rel=1e-5, abs=1e-9)
    assert any("relational" in s for s in settings) == ("anchor_relational" in want["lines"][0])


def test_groups_of_a_method_without_the_backbone_stay_as_they_are():
    head = torch.nn.Linear(3, 2)
    groups = build_param_groups(head)
    assert split_backbone(groups, torch.nn.Linear(2, 2)) == groups
