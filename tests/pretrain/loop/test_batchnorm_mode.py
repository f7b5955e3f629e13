"""The setting `batchnorm`: its default, what it does to backbone, copies and heads, and where it is said."""

import shutil

import pytest
import torch
from torch import nn

import encoders
from encoders.zoo.batchnorm import is_frozen, list_statistics_layers
from pretrain.loop import batchnorm_mode
from pretrain.loop.batchnorm import SyncBatchNorm
from pretrain.loop.setup import build_setup, describe_adjustments
from pretrain.run import lifecycle as runs
from pretrain.run import rundir
from pretrain.run.plan import describe_sizes, list_warnings
from tests.pretrain import frozen
from tests.pretrain.run.test_resume import equal_runs
from tests.pretrain.runs import METHODS, SHORT, recipe, run, sigterm_at_step, store
from tests.ranks import run_on_two_ranks

MOCO = METHODS["moco"]
SIMCLR = ["cxr_simclr_tiny", "arch=test_resnet", "method.hidden=32", "method.dim=16", "drop_path=0.1", *SHORT]
BYOL = ["cxr_byol_tiny", "arch=test_resnet", "method.hidden=32", "method.dim=16", *SHORT]
DINO = ["cxr_dino_tiny", "arch=test_resnet", "model_args={}", "method.prototypes=16", "method.hidden=16", "method.bottleneck=8", *SHORT]
ACTIVATED = ["arch=mobilenetv2_050"]  # its norms are timm's BatchNormAct2d
REPRESENTATIVES = ["test_resnet", "mobilenetv2_050", "resnetv2_18d", "test_efficientnet", "repghostnet_050", "fastvit_t8"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return store(tmp_path_factory.mktemp("batchnorm"))


@pytest.fixture(scope="module")
def starts(images, tmp_path_factory):
    """A folder with encoders whose statistics are trained: `start` (ResNet) and `activated` (MobileNet)."""
    home = tmp_path_factory.mktemp("starts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOGRAFT_HOME", str(home))
        patch.setenv("WANDB_MODE", "disabled")
        run(images, MOCO, "start")
        run(images, [*SIMCLR, *ACTIVATED], "activated")
    return home


@pytest.fixture
def home(starts, tmp_path, monkeypatch):
    """A home of its own with the encoders of `starts`."""
    shutil.copytree(starts / "zoo", tmp_path / "home" / "zoo")
    monkeypatch.setenv("ISOGRAFT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def statistics(network):
    return {k: v.clone() for k, v in network.state_dict().items() if k.rpartition(".")[2] in (*frozen.STATISTICS, "num_batches_tracked")}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(
    ("words", "more", "want"),
    [
        (SIMCLR, [], "sync"),
        (MOCO, [], "train"),
        (SIMCLR, ["init=start"], "frozen"),
        (MOCO, ["init=start"], "frozen"),
        (SIMCLR, ["init=start", "batchnorm=train"], "train"),
        (MOCO, ["init=start", "batchnorm=sync"], "sync"),
        (SIMCLR, ["init=random_test_resnet", "channels=null"], "sync"),  # its statistics are those of a new network
        (SIMCLR, ["batchnorm=frozen"], "frozen"),
    ],
)
def test_the_statistics_of_trained_weights_are_frozen_by_default(images, home, words, more, want):
    setup = build_setup(recipe(images, words, *more), "cpu")
    assert setup.recipe.batchnorm == setup.card.config["batchnorm"] == setup.card.lineage["batchnorm"] == want
    assert {is_frozen(layer) for layer in list_statistics_layers(setup.method.encoder())} == {want == "frozen"}


def test_the_default_can_be_changed_for_a_modality(images, home, monkeypatch):
    monkeypatch.setattr(batchnorm_mode, "ADAPTING_MODALITIES", frozenset({"histology"}))
    modes = [build_setup(recipe(images, SIMCLR, "init=start", f"modality={m}"), "cpu").recipe.batchnorm for m in ("histology", "cxr")]
    assert modes == ["sync", "frozen"]


def test_a_network_without_statistics_says_so(images):
    setup = build_setup(recipe(images, METHODS["mae"]), "cpu")
    assert setup.card.lineage["batchnorm"] is None
    assert dict(describe_sizes(setup))["BatchNorm"] == "vit_tiny_patch16_224 has none"


def test_plan_start_message_and_card_name_the_mode(images, home, capsys):
    frozen_row = "frozen: the running statistics of start are used and kept; scale and shift are trained"
    setup = build_setup(recipe(images, SIMCLR, "init=start"), "cpu")
    assert dict(describe_sizes(setup))["BatchNorm"] == frozen_row
    assert f"BatchNorm of the backbone is {frozen_row}" in describe_adjustments(setup)
    run(images, SIMCLR, "continued", "init=start")
    assert f"note: BatchNorm of the backbone is {frozen_row}" in capsys.readouterr().err
    card = encoders.load("continued").card
    assert (card.config["batchnorm"], card.lineage["batchnorm"]) == ("frozen", "frozen")


def test_frozen_statistics_of_a_new_network_and_batch_statistics_counted_twice_are_warned_about(images, home):
    def warnings(*more):
        return [
            n for n in list_warnings(build_setup(recipe(images, SIMCLR, "steps=1000", *more), "cpu")) if "BatchNorm" in n or "mean 0" in n
        ]

    assert "use batchnorm=train" in warnings("batchnorm=frozen")[0]
    assert warnings("init=start") == []
    assert "twice per step" in warnings("init=start", "batchnorm=train", "checkpointing=true")[0]
    assert warnings("init=start", "checkpointing=true") == []  # statistics are not updated at all


@pytest.mark.parametrize(
    ("words", "init"),
    [(MOCO, "start"), (SIMCLR, "start"), (BYOL, "start"), (DINO, "start"), ([*SIMCLR, *ACTIVATED], "activated")],
    ids=["moco", "simclr", "byol", "dino, whose teacher is exported", "simclr, BatchNormAct2d"],
)
def test_a_run_keeps_the_statistics_of_its_start_to_the_bit_and_trains_the_rest(images, home, words, init):
    run(images, words, "continued", f"init={init}", "watch.images=16", "watch.every=2")
    before, after = (encoders.load(name).model for name in (init, "continued"))
    assert len(statistics(before)) > 20
    assert equal(statistics(before), statistics(after))
    changed = [not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True)]
    assert sum(changed) > 0.8 * len(changed)
    affine = [(a.weight, b.weight) for a, b in zip(*(list_statistics_layers(m) for m in (before, after)), strict=True)]
    assert any(not torch.equal(a, b) for a, b in affine), "scales are trained"


def test_heads_and_thawed_backbones_follow_the_batch(images, home):
    for mode, kept in (("frozen", True), ("train", False)):
        setup = build_setup(recipe(images, SIMCLR, "init=start", f"batchnorm={mode}"), "cpu")
        before = statistics(setup.method)
        setup.method.train()
        outputs = setup.method([torch.randn(16, 1, 32, 32) for _ in range(2)], None, 0.0)
        assert torch.isfinite(outputs["loss"])
        after = statistics(setup.method)
        same = {name: torch.equal(before[name], after[name]) for name in before}
        assert all(same[name] is kept for name in same if name.startswith("backbone"))
        assert not any(same[name] for name in same if name.startswith("head"))
        assert any(name.startswith("head") for name in same)


@pytest.mark.parametrize("words", [MOCO, SIMCLR], ids=["moco", "simclr"])
def test_a_frozen_run_stopped_and_resumed_equals_the_uninterrupted_run(images, home, words, monkeypatch):
    more = ["init=start"]
    uninterrupted, where = run(images, words, "uninterrupted", *more), rundir.run_dir_for("stopped")
    with monkeypatch.context() as patch:
        sigterm_at_step(patch, 5)
        assert runs.start_run(recipe(images, words, *more), where, "cpu") == 75
    assert runs.resume_run(where, "cpu") == 0
    assert equal_runs(uninterrupted, where)
    assert equal(statistics(encoders.load("stopped").model), statistics(encoders.load("start").model))


def test_a_run_thaws_when_it_is_resumed_with_another_mode(images, home, monkeypatch):
    where = rundir.run_dir_for("thawed")
    with monkeypatch.context() as patch:
        sigterm_at_step(patch, 5)
        assert runs.start_run(recipe(images, SIMCLR, "init=start"), where, "cpu") == 75
    assert runs.resume_run(where, "cpu", overrides=["batchnorm=train"], allow_change=True) == 0
    assert not equal(statistics(encoders.load("thawed").model), statistics(encoders.load("start").model))
    (change,) = encoders.load("thawed").card.lineage["changes"]
    assert (change["key"], change["from"], change["to"]) == ("batchnorm", "frozen", "train")


def describe_two_ranks(rank, images, folder):
    """Kinds of norm in backbone and heads of each mode, then a run with frozen statistics."""
    kinds = {}
    for words, name in ((SIMCLR, "simclr"), (MOCO, "moco")):
        for mode in ("frozen", "train", "sync"):
            method = build_setup(recipe(images, words, "init=start", f"batchnorm={mode}"), "cpu").method
            norms = [(n, m) for n, m in method.named_modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
            for part in ("backbone", "head"):
                own = {
                    "frozen" if is_frozen(m) else "sync" if isinstance(m, SyncBatchNorm) else "own" for n, m in norms if n.startswith(part)
                }
                kinds[f"{name} {mode} {part}"] = " ".join(sorted(own))
    assert runs.start_run(recipe(images, SIMCLR, "init=start"), rundir.run_dir_for("shared"), "cpu") == 0
    torch.save(kinds, folder / f"{rank}.pt")


@pytest.mark.slow
def test_two_ranks_keep_frozen_statistics_and_synchronise_the_heads(images, home, tmp_path):
    run_on_two_ranks(describe_two_ranks, images, tmp_path)
    for rank in range(2):
        kinds = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert kinds == {
            "simclr frozen backbone": "frozen",
            "simclr frozen head": "sync",
            "simclr train backbone": "own",
            "simclr train head": "own",
            "simclr sync backbone": "sync",
            "simclr sync head": "sync",
            "moco frozen backbone": "frozen",
            "moco frozen head": "",  # no norm in MoCo's head
            "moco train backbone": "own",
            "moco train head": "",
            "moco sync backbone": "sync",
            "moco sync head": "",
        }
    start, shared = (encoders.load(name).model for name in ("start", "shared"))
    assert equal(statistics(start), statistics(shared))
    assert any(not torch.equal(a, b) for a, b in zip(start.parameters(), shared.parameters(), strict=True))


@pytest.mark.parametrize("arch", REPRESENTATIVES)
def test_each_family_keeps_frozen_statistics_and_changes_others(arch):
    """A few of the networks that `tests/perf/frozen_families.py` trains."""
    kept, moved = frozen.train(arch), frozen.train(arch, frozen=False)
    assert kept.layers > 0
    assert (kept.statistics_changed, kept.others_changed) == ([], [])
    assert kept.weights_changed > 0.5 * kept.weights
    assert kept.affine_changed > 0
    assert len(moved.statistics_changed) > 2 * kept.layers


def test_a_compiled_network_keeps_frozen_statistics(images, home, monkeypatch):
    backends = []

    def compile_quickly(function, backend, fullgraph):  # the same two graphs; inductor would build C++ code for each for a minute
        backends.append(backend)
        return torch_compile(function, backend="aot_eager", fullgraph=fullgraph)

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", compile_quickly)
    # In bf16 a compiled network rounds at other places, and LARS amplifies the difference.
    plain = ("precision=fp32", "optim.kind=sgd", "optim.lr=0.05")
    same = ("init=start", "steps=2", "warmup_steps=1", "watch.images=0", *plain)
    run(images, SIMCLR, "compiled", "compile=true", *same)
    assert backends == ["inductor"]
    run(images, SIMCLR, "eager", *same)
    start, compiled, eager = (encoders.load(name).model for name in ("start", "compiled", "eager"))
    assert equal(statistics(start), statistics(compiled))
    for a, b in zip(compiled.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-4)
