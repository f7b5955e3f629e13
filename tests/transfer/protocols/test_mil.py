"""Slides from bags of tiles: attention against a loop written from the paper, synthetic bags, and the bench from end to end."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from encoders.runtime.errors import InputError
from encoders.store.store import Store
from tests.transfer import toys
from tests.transfer.bench.test_bench import add, run
from tests.transfer.cli.test_cli import NET, call
from transfer.protocols import mil
from transfer.protocols.common import Bags
from transfer.records.ledger import read_ledger
from transfer.records.record_ids import hide_names
from transfer.tables import build as table

QUICK = mil.Config(hidden=16, lr=(3e-3,), weight_decay=(1e-4,), epochs=15)


def bags(n=60, tiles=(6, 30), seed=0, one=False, width=8):
    """Slides of two classes. one: a single tile of a positive slide shows it, weakly enough to vanish in the mean."""
    rng = np.random.default_rng(seed)
    y = (np.arange(n) % 2).astype(np.float32)
    size = rng.integers(*tiles, n)
    ends = np.r_[0, np.cumsum(size)]
    x = rng.normal(size=(ends[-1], width)).astype(np.float32)
    for i in np.flatnonzero(y):
        x[ends[i] if one else slice(ends[i], ends[i + 1]), 0] += 4 if one else 1
    return Bags(x, ends, y[:, None], np.arange(n).astype(str), np.arange(n).astype(str), "binary")


def auc(fitted, rows):
    return roc_auc_score(rows.y[:, 0], fitted.scores(rows)[:, 0])


def test_gated_attention_is_equation_9():
    network = mil.GatedAttention(5, 4, 3, seed=1).double()
    with torch.no_grad():
        network.head.copy_(torch.arange(15).reshape(3, 5) / 7)
        network.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
    h = np.random.default_rng(0).normal(size=(7, 5))
    got, weight = network(torch.from_numpy(h))
    v, u, w, head, bias = (p.detach().numpy() for p in (network.v, network.u, network.w, network.head, network.bias))
    e = []
    for tile in h:
        e.append(sum(w[i] * np.tanh(v[i] @ tile) / (1 + np.exp(-(u[i] @ tile))) for i in range(4)))
    a = np.exp(e) / np.exp(e).sum()
    z = sum(a[k] * h[k] for k in range(7))
    np.testing.assert_allclose(weight.detach().numpy(), a, atol=1e-10)
    np.testing.assert_allclose(got.detach().numpy(), [head[c] @ z + bias[c] for c in range(3)], atol=1e-10)


@pytest.mark.parametrize("pooling", ["mean", "max", "attention"])
def test_the_order_of_tiles_does_not_matter_and_two_runs_are_equal(pooling):
    cfg = QUICK.model_copy(update={"pooling": pooling, "epochs": 3})
    train, val, test = (bags(seed=s) for s in (0, 1, 2))
    first, second = (mil.fit(cfg, train, val) for _ in range(2))
    np.testing.assert_array_equal(first.scores(test), second.scores(test))
    assert first.selection == second.selection
    order = np.concatenate(
        [np.random.default_rng(i).permutation(np.arange(a, b)) for i, (a, b) in enumerate(zip(test.ends[:-1], test.ends[1:], strict=True))]
    )
    np.testing.assert_allclose(first.scores(replace(test, x=test.x[order])), first.scores(test), atol=1e-5)
    assert auc(first, test) > 0.8


def test_another_seed_gives_other_scores():
    one, other = (mil.fit(QUICK.model_copy(update={"seed": s, "epochs": 2}), bags(), bags(seed=1)).scores(bags(seed=2)) for s in (0, 1))
    assert not np.array_equal(one, other)


def test_attention_and_maximum_beat_the_mean_when_one_tile_of_many_decides():
    train, val, test = (bags(100, (30, 40), s, one=True) for s in (0, 1, 2))
    cfg = QUICK.model_copy(update={"epochs": 10})
    fitted = {p: mil.fit(cfg.model_copy(update={"pooling": p}), train, val) for p in ("mean", "max", "attention")}
    assert auc(fitted["max"], test) > 0.9
    assert auc(fitted["attention"], test) > 0.9
    assert auc(fitted["mean"], test) < 0.85
    chosen = fitted["attention"]
    h = mil.standardise_bags(test, chosen.mean, chosen.scale)
    heaviest = [int(chosen.network(h[i])[1].argmax()) for i in np.flatnonzero(test.y[:, 0])]
    assert np.mean(np.array(heaviest) == 0) > 0.8  # the weight is on the tile that decides


def test_mean_pooling_equals_scikit_learns_logistic_regression_on_means():
    train, val, test = (bags(seed=s) for s in (0, 1, 2))
    fitted = mil.fit(mil.Config(pooling="mean"), train, val)
    x, z = (np.array([of.bag(i).mean(axis=0) for i in range(len(of))]) for of in (train, test))
    mean, sd = x.mean(axis=0), x.std(axis=0)
    theirs = LogisticRegression(C=fitted.selection["C"], tol=1e-8, max_iter=5000).fit((x - mean) / sd, train.y[:, 0])
    np.testing.assert_allclose(fitted.scores(test)[:, 0], theirs.predict_proba((z - mean) / sd)[:, 1], atol=1e-3)


def test_epoch_rate_and_decay_are_those_with_the_highest_score_of_select():
    scored = []

    def select(y, scores):
        scored.append(scores)
        return float(len(scored) == 5)

    cfg = mil.Config(hidden=4, lr=(1e-3, 1e-2), weight_decay=(0.1, 0.0), epochs=2)
    val = bags(seed=1)
    fitted = mil.fit(cfg, bags(), val, select)
    assert [(r["lr"], r["weight_decay"], r["epoch"]) for r in fitted.selection["table"]] == [
        (lr, wd, e) for lr in cfg.lr for wd in cfg.weight_decay for e in (1, 2)
    ]
    assert (fitted.selection["lr"], fitted.selection["weight_decay"], fitted.selection["epoch"]) == (1e-2, 0.1, 1)
    np.testing.assert_array_equal(fitted.scores(val), scored[4])


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_several_classes_and_labels(kind):
    train, val, test = (bags(seed=s) for s in (0, 1, 2))
    wide = [replace(of, y=np.concatenate([1 - of.y, of.y], axis=1), kind=kind) for of in (train, val, test)]
    if kind == "multilabel":
        wide[0].y[::5, 0] = np.nan
    scores = mil.fit(QUICK.model_copy(update={"epochs": 6}), wide[0], wide[1]).scores(wide[2])
    assert scores.shape == (60, 2)
    assert (np.abs(scores.sum(axis=1) - 1) < 1e-6).all() == (kind == "multiclass")
    assert roc_auc_score(test.y[:, 0], scores[:, 1]) > 0.9


@pytest.fixture
def cohort(tmp_path):
    """40 patients of two slides of three tiles."""
    names = [f"s{i // 3}" for i in range(240)]
    site = [f"site {i // 6 % 2}" for i in range(240)]
    return toys.add_slides(toys.store(tmp_path / "toy.h5", patients=40, each=6), names, site=site, place=["edge", "middle", "edge"] * 80)


def test_a_bench_scores_slides_of_patients_who_were_not_trained_on(cohort, tmp_path):
    add(cohort)
    cheap = ["mil.epochs=2", "mil.hidden=8", "mil.lr=[0.001]"]
    (r,) = run(protocols=["mil"], overrides=cheap).records
    assert r.meta.status == "ok", r.meta.traceback
    store = Store.open(cohort)
    slide, patient = (store.column(c).astype(str) for c in ("slide", "patient"))
    hidden_slide, hidden_patient = hide_names(slide), hide_names(patient)  # records hold pseudonyms
    owner, sick = dict(zip(hidden_slide, hidden_patient, strict=True)), dict(zip(hidden_slide, store.labels("sick"), strict=True))
    assert (len(owner), len(set(owner.values()))) == (len(set(slide)), len(set(patient)))
    for part in ("val", "test"):
        key, patients, y = (r.arrays[f"{part}_{c}"] for c in ("key", "patient", "y"))
        assert len(set(key)) == len(key)  # one row per slide
        assert [owner[k] for k in key] == patients.tolist()
        assert [sick[k] for k in key] == y[:, 0].tolist()
        assert all((patients == p).sum() == 2 for p in set(patients))  # the slides of a patient are in one part
    assert not set(r.arrays["val_patient"]) & set(r.arrays["test_patient"])
    assert set(r.groups) == {"site"}  # `place` varies within a slide
    assert read_ledger()[-1]["protocol"] == "mil"
    (section,) = table.build_sections([r])
    assert section.rows[0].metrics["auroc"].value == pytest.approx(roc_auc_score(r.arrays["test_y"], r.arrays["test_scores"]))
    again = run(protocols=["mil"], overrides=cheap)
    assert again.reused == 1
    np.testing.assert_array_equal(again.records[0].arrays["test_scores"], r.arrays["test_scores"])


def test_shifted_slides_from_the_command_line_and_in_the_report(cohort, tmp_path):
    call("tasks", "add", "sick", cohort, "--label", "sick")
    words = ["--protocol", "mil,knn", "--encoder", NET, "--baseline", "none", "--device", "cpu", "--shift", "noise", "--strengths", "3"]
    done = call("bench", "mil.pooling=max", *words)
    assert done.exit_code == 0, done.output
    assert "mil" in done.stdout
    call("report", "--out", tmp_path / "r.html", "--store", cohort)
    assert "slides, MIL" in (tmp_path / "r.html").read_text()


ODD = np.arange(80) % 2


@pytest.mark.parametrize(
    ("names", "label", "message"),
    [
        (None, "sick", "no column `slide`"),
        ([*(f"s{i // 2}" for i in range(79)), ""], "sick", "1 of the 80 tiles .* have no slide"),
        (["s0" if i in (0, 4) else f"s{i + 1}" for i in range(80)], "sick", "tiles of 1 slides .*'s0', are of two patients"),
        ([f"s{i // 2}" for i in range(80)], "odd", "tiles of [0-9]+ slides .* have different labels"),
    ],
)
def test_tiles_without_valid_slides_are_refused_before_anything_is_embedded(tmp_path, monkeypatch, names, label, message):
    where = toys.add_slides(toys.store(tmp_path / "toy.h5", patients=40, odd=ODD.astype(float)), names)
    add(where, labels=(label,), classes=(label,))
    monkeypatch.setattr("encoders.features.embed.extract_features", None)
    with pytest.raises(InputError, match=message):
        run(protocols=["mil"])


def test_a_slide_name_in_two_stores_is_refused(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        toys.add_slides(toys.store(tmp_path / f"{name}.h5", patients=40, seed=seed), [f"s{i // 2}" for i in range(80)])
    add(f"{tmp_path}/*.h5", labels=("sick",))
    with pytest.raises(InputError, match=r"the slide 's0' of task .* is in .*a\.h5 and in .*b\.h5"):
        run(protocols=["mil"])
