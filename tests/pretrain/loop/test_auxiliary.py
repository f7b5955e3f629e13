"""Labels in pretraining: the terms against NumPy through the loop, exact when resumed, equal on two ranks, stated on card and manifest."""

import numpy as np
import pytest
import torch

from encoders.loading.batches import Batches
from encoders.runtime import checkpoint
from encoders.runtime.errors import InputError
from encoders.runtime.metrics_log import read_metrics
from encoders.runtime.paths import zoo_dir
from encoders.runtime.stop import StopRequest
from encoders.store.store import Store
from encoders.zoo.card import Card, list_trained_labels
from pretrain.loop import auxiliary, train
from pretrain.loop.label_use import gather_labels
from pretrain.loop.setup import build_setup
from pretrain.loop.train import TrainState, fit
from pretrain.loop.usable_labels import UsedLabel
from pretrain.methods import METHODS
from pretrain.recipe import config
from pretrain.run import lifecycle as runs
from pretrain.run import rundir
from tests.pretrain.run.test_resume import equal_runs, last, smallest
from tests.pretrain.runs import recipe, run, sigterm_at_step, store
from tests.pretrain.starts import publish
from tests.ranks import run_on_two_ranks

LABELS = ["auxiliary.finding.weight=0.5", "auxiliary.view.weight=0.2", "auxiliary.years={label: age, kind: number, weight: 0.3}"]
SUPCON = [*smallest("supcon"), "watch.images=0"]
FLOAT64 = ["batchnorm=sync", "optim={kind: sgd, lr: 0.1, lr_rule: none, weight_decay: 0.01}", "precision=fp32", "clip=null"]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return store(tmp_path_factory.mktemp("labels"))


def expected_terms(setup, features, index):
    """{name: loss} of the heads, from the features of the views (K x (B, D) arrays) and the store's own columns, image by image."""
    held, terms = Store.open(setup.corpus.store.paths[0]), {}
    columns = {"finding": held.labels("finding"), "view": held.column("view") == "PA", "years": held.column("age")}
    for label, head in zip(setup.labels.auxiliary, setup.continuation.auxiliary.heads, strict=True):
        values = np.asarray(columns[label.name], dtype=float)
        if label.name == "years":
            values = (values - values.mean()) / values.std()
        w, b, total = head.weight.detach().double().numpy(), head.bias.detach().double().numpy(), 0.0
        for view in features:
            for x, i in zip(view, index, strict=True):
                out = w @ (4.0 * x / np.linalg.norm(x)) + b
                if label.name == "years":
                    total += (out[0] - values[i]) ** 2
                elif np.isfinite(values[i]):
                    total += np.log(np.exp(out).sum()) - out[int(values[i])]
        terms[label.name] = total / (len(features) * len(index) * np.isfinite(values).mean())
    return terms


@pytest.mark.parametrize("name", METHODS)
def test_the_terms_are_those_of_the_features_of_each_image_for_every_method(name, images, monkeypatch):
    """Whatever views a method passes through its backbone, and in which order: the label of an image meets its own features."""
    setup, seen = build_setup(recipe(images, [*smallest(name), "drop_path=0"], *LABELS), "cpu"), []
    real = auxiliary.supervised_terms
    monkeypatch.setattr(auxiliary, "supervised_terms", lambda features, *more: (seen.append(len(features)), real(features, *more))[1])
    model = setup.continuation.auxiliary.train().double()
    micro = next(setup.batches.micro_batches(0))
    views = [view.double() for view in micro.views]
    torch.manual_seed(0)
    out = model(views, micro.masks, progress=0.0, **micro.image_values())
    assert model.reuses_passes == (setup.method.mask_spec() is None)
    passed = seen[0] // len(views[0])  # full-size views: the first ones of every method
    with torch.no_grad():  # the network is a ViT, without statistics of the batch
        features = [model.backbone(view).numpy() for view in views[:passed]]
    for label, value in expected_terms(setup, features, micro.index.tolist()).items():
        assert out[f"auxiliary/{label}"].item() == pytest.approx(value, rel=1e-6), label  # targets are float32
    torch.manual_seed(0)
    given = {key: value for key, value in micro.image_values().items() if key != "targets"}
    alone = setup.method(views, micro.masks, progress=0.0, **given)["loss"].item()
    added = sum(setup.recipe.auxiliary[label].weight * out[f"auxiliary/{label}"].item() for label in ("finding", "view", "years"))
    assert out["loss"].item() == pytest.approx(alone + added, rel=1e-8)


def test_a_method_that_hides_patches_or_mixes_images_gets_a_pass_of_its_own(images):
    assert build_setup(recipe(images, smallest("mae"), *LABELS), "cpu").continuation.auxiliary.reuses_passes is False
    views = [torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8), torch.rand(4, 1, 4, 4)]
    assert auxiliary.are_views(torch.cat(views[:2]), views)
    assert auxiliary.are_views(views[1], views)
    assert not auxiliary.are_views(views[0].flip(0), views)
    assert not auxiliary.are_views(torch.cat(views[:2])[:6], views)
    assert not auxiliary.are_views(torch.cat([views[0], views[0] * 0.5 + views[1] * 0.5]), views)


def test_the_log_states_loss_accuracy_and_error_of_a_step_in_micro_batches(images):
    lines, words = [], [*smallest("simclr"), "accumulate=2"]
    setup = build_setup(recipe(images, words, "auxiliary.view.weight=1.0", "auxiliary.years={label: age, kind: number}"), "cpu")
    fit(setup.method, setup.batches, setup.optimizer, setup.scaler, setup.recipe, 2, 1, TrainState(),
        lambda step, **n: lines.append({k: float(v) for k, v in n.items()}), lambda s: None, StopRequest(), setup.device,
        setup.continuation)  # fmt: skip
    assert len(lines) == 2
    for line in lines:
        assert not [key for key in line if ":" in key]
        assert line["auxiliary/view_accuracy"] in [pytest.approx(i / 16) for i in range(17)]  # two views of eight images
        assert 0 < line["auxiliary/years_error"] < 50


def test_accuracy_is_of_labeled_images_and_the_error_is_in_years():
    torch.manual_seed(0)
    x, head, linear = torch.randn(6, 5), torch.nn.Linear(5, 3), torch.nn.Linear(5, 1)
    target = torch.tensor([0.0, 2.0, float("nan"), 1.0, 2.0, float("nan")])
    kind = UsedLabel("kind", "auxiliary", 1.0, "kind", np.zeros(6), ("a", "b", "c"), 2 / 3)
    age = UsedLabel("age", "auxiliary", 1.0, "age", np.zeros(6), None, 2 / 3, mean=50.0, std=12.0)
    step = {f"auxiliary/kind:{k}": v for k, v in auxiliary.supervised_terms(x, target, head, kind).items()}
    step |= {f"auxiliary/age:{k}": v for k, v in auxiliary.supervised_terms(x, target, linear, age).items()}
    told = auxiliary.summarise_terms(step)
    unit = (4 * x / x.norm(dim=1, keepdim=True)).double().numpy()
    known = np.isfinite(target.numpy())
    guess = (unit @ head.weight.double().detach().numpy().T + head.bias.double().detach().numpy()).argmax(1)
    years = (unit @ linear.weight.double().detach().numpy().T)[:, 0] + linear.bias.item()
    assert told["auxiliary/kind_accuracy"].item() == pytest.approx((guess == target.numpy())[known].mean())
    assert told["auxiliary/age_error"].item() == pytest.approx(12 * np.abs(years - target.numpy())[known].mean(), rel=1e-5)


def test_a_step_without_a_labeled_image_has_no_accuracy_and_a_zero_loss():
    scalars = {"auxiliary/a": torch.tensor(0.0), "auxiliary/a:labeled": torch.tensor(0.0), "auxiliary/a:correct": torch.tensor(0.0)}
    assert list(auxiliary.summarise_terms({**scalars, "loss": torch.tensor(1.0)})) == ["auxiliary/a", "loss"]


@pytest.mark.parametrize("words", [[*smallest("simclr"), *LABELS], [*SUPCON, *LABELS[:1], "accumulate=2"], [*smallest("mae"), *LABELS[:2]]])
def test_a_resumed_run_equals_the_run_never_stopped(words, images, monkeypatch):
    uninterrupted, where = run(images, words, "uninterrupted"), rundir.run_dir_for("stopped")
    sigterm_at_step(monkeypatch, 3)
    assert runs.start_run(recipe(images, words), where, "cpu") == 75
    heads = last(where)["auxiliary"]
    assert runs.resume_run(where, "cpu") == 0
    assert equal_runs(uninterrupted, where)
    ended = last(where)["auxiliary"]
    assert all(torch.equal(value, ended[key]) for key, value in last(uninterrupted)["auxiliary"].items())
    assert not all(torch.equal(value, ended[key]) for key, value in heads.items())
    assert "auxiliary/finding" in read_metrics(where.path)[0]


def test_the_pretrained_weights_differ_from_those_without_labels_and_only_the_encoder_is_exported(images):
    plain, labeled = run(images, smallest("simclr"), "plain"), run(images, smallest("simclr"), "labeled", *LABELS)
    a, b = (checkpoint.load_newest(r.checkpoints)[0] for r in (plain, labeled))
    assert a["auxiliary"] == {}
    assert a["encoder"].keys() == b["encoder"].keys()
    assert any(not torch.equal(a["encoder"][key], b["encoder"][key]) for key in a["encoder"])


def test_card_and_manifest_name_the_labels_and_their_images(images):
    run(images, SUPCON, "named", "method.label=finding", *LABELS[1:])
    card = Card.read(zoo_dir() / "named" / "card.yaml")
    columns = card.lineage["labels"]["columns"]
    assert [(c["column"], c["role"], c["weight"]) for c in columns] == [
        ("finding", "positives", 1.0), ("view", "auxiliary", 0.2), ("age", "auxiliary", 0.3)
    ]  # fmt: skip
    assert list_trained_labels(card) == ["finding (positives, 60 images)", "view (auxiliary, 80 images)", "age (auxiliary, 80 images)"]
    held = Store.open(images)
    known = np.isfinite(held.labels("finding"))
    assert sum(columns[0]["images"].values()) == len(held)
    assert columns[0]["images"]["without a label"] == int((~known).sum())
    with np.load(zoo_dir() / "named" / "manifest.npz") as manifest:
        assert manifest["label_names"].tolist() == ["finding", "view", "age"]
        assert np.array_equal(manifest["labeled"], np.stack([known, np.ones(80, bool), np.ones(80, bool)], axis=1))
    run(images, smallest("simclr"), "unlabeled")
    with np.load(zoo_dir() / "unlabeled" / "manifest.npz") as manifest:
        assert "labeled" not in manifest.files
    assert "labels" not in Card.read(zoo_dir() / "unlabeled" / "card.yaml").lineage


def steps_in_float64(images, words):
    """The weights after three steps of the real loop in float64, with the heads, and the logged lines."""
    setup, lines = build_setup(recipe(images, words), "cpu"), []
    setup.continuation.outermost(setup.method).double()
    setup.continuation.outermost(setup.method).register_forward_pre_hook(lambda m, args: ([v.double() for v in args[0]], *args[1:]))
    fit(setup.method, setup.batches, setup.optimizer, setup.scaler, setup.recipe, 3, 0, TrainState(),
        lambda step, **n: lines.append({k: float(v) for k, v in n.items() if k.startswith("auxiliary")}), lambda s: None, StopRequest(),
        setup.device, setup.continuation)  # fmt: skip
    heads = setup.continuation.auxiliary.heads.state_dict() if setup.continuation.auxiliary else {}
    return {"state": setup.method.state_dict(), "heads": heads}


def one_rank(rank, images, out, cases):
    torch.save([steps_in_float64(images, words) for words in cases], out / f"{rank}.pt")


def assert_same_weights(own, want):
    for kind in ("state", "heads"):
        assert own[kind].keys() == want[kind].keys()
        for key, value in want[kind].items():
            torch.testing.assert_close(own[kind][key], value, rtol=1e-7, atol=1e-8, msg=lambda m, k=f"{kind} {key}": f"{k}: {m}")


def test_micro_batches_take_the_step_of_the_whole_batch_though_labels_are_missing_unevenly(images):
    """With a method whose own loss is a mean over images."""
    words = [*smallest("mae"), "drop_path=0", "warmup_steps=0", *FLOAT64[1:], *LABELS]
    assert_same_weights(steps_in_float64(images, [*words, "accumulate=4"]), steps_in_float64(images, words))


@pytest.mark.slow
def test_two_ranks_take_the_steps_of_one_process(images, tmp_path):
    quiet = ["drop_path=0", "warmup_steps=0", *FLOAT64]
    cases = [
        [*smallest("simclr"), *quiet, *LABELS],
        [*SUPCON, *quiet, "method.label=finding", *LABELS[1:]],
        [*smallest("mae"), *quiet, *LABELS],
    ]
    run_on_two_ranks(one_rank, images, tmp_path, cases)
    for rank in range(2):
        for own, words in zip(torch.load(tmp_path / f"{rank}.pt", weights_only=True), cases, strict=True):
            assert_same_weights(own, steps_in_float64(images, words))


def test_the_start_of_an_anchor_and_labels_go_together(images):
    publish()
    words = [
        "cxr_simclr_tiny",
        "arch=null",
        "init=start",
        "method.hidden=16",
        "method.dim=8",
        "size=32",
        "batch=8",
        "steps=5",
        "warmup_steps=1",
    ]
    setup = build_setup(recipe(images, words, "anchor.relational=25", *LABELS), "cpu")
    micro = next(setup.batches.micro_batches(0))
    out = setup.continuation.outermost(setup.method).train()(micro.views, None, progress=0.0, **micro.image_values())
    assert {"anchor_relational", "auxiliary/finding", "auxiliary/years"} <= set(out)


def test_the_class_of_an_image_travels_with_it(images):
    setup = build_setup(recipe(images, SUPCON, "method.label=finding", *LABELS[1:], "accumulate=2"), "cpu")
    finding, age = Store.open(images).labels("finding"), np.asarray(Store.open(images).column("age"))
    for step in (0, 7):
        for micro in setup.batches.micro_batches(step):
            rows = micro.index.numpy()
            assert micro.class_ids.tolist() == np.nan_to_num(finding[rows], nan=-1).astype(int).tolist()
            assert micro.targets[:, 1].numpy() == pytest.approx((age[rows] - age.mean()) / age.std(), rel=1e-5)
            assert micro.patient_ids is None
    assert isinstance(setup.batches, Batches)


@pytest.mark.parametrize(
    "more", [[], ["auxiliary.view.weight=0.1"], ["anchor.l2_sp=0.1"], ["anchor.l2_sp=0.1", "auxiliary.view.weight=0.1"]]
)
def test_the_loop_gives_the_method_the_classes_of_the_batch(more, images):
    publish()
    words = ["cxr_supcon_tiny", "arch=null", "init=start", "method.label=finding", "method.hidden=16", "method.dim=8", "size=32", "batch=8"]
    setup, seen = build_setup(recipe(images, [*words, "steps=5", "warmup_steps=1", *more]), "cpu"), []
    setup.method.register_forward_pre_hook(lambda m, args, given: seen.append(given["class_ids"].tolist()), with_kwargs=True)
    stop = StopRequest()
    stop.requested = "one step"
    fit(setup.method, setup.batches, setup.optimizer, setup.scaler, setup.recipe, 5, 1, TrainState(), lambda *a, **k: None,
        lambda s: None, stop, setup.device, setup.continuation)  # fmt: skip
    rows = next(setup.batches.micro_batches(0)).index.numpy()
    assert seen == [np.nan_to_num(Store.open(images).labels("finding")[rows], nan=-1).astype(int).tolist()]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["auxiliary.fnding.weight=1"], "no column called 'fnding'; did you mean finding.*can be predicted: finding, age, view"),
        (["auxiliary.x.label=zzz"], r"no column called 'zzz'.*auxiliary\.x\.label.*can be predicted: finding, age, view"),
        (["auxiliary.age.weight=1"], r"auxiliary\.age\.label=age: the column holds 50 different numbers from 20 to 69; set kind=number"),
        (["auxiliary.view.kind=number"], "holds text .AP, PA., not numbers; set kind=classes"),
        (["auxiliary.patient.weight=1"], "identifies images and is no label"),
        (["auxiliary.view.wieght=1"], r"auxiliary\.view\.wieght: unknown key; did you mean weight"),
        (["auxiliary.view=1"], r"auxiliary\.view is a group of settings; write auxiliary\.view\.label=1"),
        (["auxiliary.a/b.label=view"], r"auxiliary\.a/b: names have letters"),
        (["auxiliary.view.weight=1", "data.positives=patient"], "whose label may differ; labels need data.positives=image"),
        (["auxiliary.view.weight=1", "compile=true"], "which compile=true hides"),
        (["method.name=supcon"], r"set method\.label=NAME"),
        (["method.name=supcon", "method.label=age"], "method.label=age: the column holds 50 different numbers, a measurement"),
    ],
)
def test_labels_that_cannot_be_used_are_an_error(words, message, images):
    with pytest.raises(InputError, match=message):
        build_setup(recipe(images, smallest("simclr")[:3], "size=16", "batch=8", *words), "cpu")


def test_no_label_of_the_recipe_costs_nothing_and_none_is_in_its_identity(images):
    setup = build_setup(recipe(images, smallest("simclr"), "auxiliary.nothing.weight=0"), "cpu")
    assert setup.continuation.auxiliary is None
    assert setup.labels.used == []
    assert gather_labels(setup.recipe, setup.corpus, None).notes == ()
    plain = config.recipe_identity(config.load_recipe("cxr_moco"))
    for words in (["auxiliary.view.weight=0.1"], ["data.label_keys=a.txt"]):
        assert config.recipe_identity(config.load_recipe("cxr_moco", words)) != plain


def test_settings_of_labels_cannot_change_in_a_run(images):
    where = run(images, smallest("simclr"), "fixed", "auxiliary.view.weight=0.1")
    with pytest.raises(InputError, match=r"auxiliary\.view\.weight cannot change"):
        runs.resume_run(where, "cpu", overrides=["auxiliary.view.weight=0.2"], allow_change=True)


def test_a_loop_that_leaves_the_terms_out_is_noticed(images, monkeypatch):
    """The call in `fit`: with the method alone, the log has no term."""
    monkeypatch.setattr(train.Continuation, "outermost", lambda self, method: method)
    with pytest.raises(TypeError, match="targets"):
        run(images, smallest("simclr"), "without", "auxiliary.view.weight=0.1")
