"""Deep ensembles from saved records: scores, paired differences by closed form, calibration against scikit-learn, and the command."""

import csv
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir
from tests.transfer import toys
from tests.transfer.cli.test_cli import call
from tests.transfer.tables.test_referral import made
from tests.transfer.tables.test_seed_rows import three
from transfer.metrics.calibration import fit_temperature
from transfer.records.average_records import average_records
from transfer.records.record import Record
from transfer.stats.factors import Position
from transfer.tables.build import build_sections
from transfer.tables.ensemble_calibration import VARIANTS, ensemble_errors, image_log_loss, list_variants
from transfer.tables.ensemble_rows import add_ensembles, parse_ensembles
from transfer.tables.row_estimates import row_estimate
from transfer.tables.seed_rows import add_seed_rows


def member(seed, kind="binary", patients=80, classes=("ill",), **fields):
    """A record of one protocol seed: equal images and labels, own noise in the logits."""
    base = made(patients=patients, kind=kind, classes=classes)
    draw, arrays = np.random.default_rng(seed), dict(base.arrays)
    for part in ("val", "test"):
        logit = np.log(arrays[f"{part}_scores"]) - (0 if kind == "multiclass" else np.log1p(-arrays[f"{part}_scores"]))
        logit = 2 * (logit + draw.normal(0, 1.5, logit.shape))
        odds = np.exp(logit)
        arrays[f"{part}_scores"] = odds / odds.sum(1, keepdims=True) if kind == "multiclass" else odds / (1 + odds)
    identity = base.identity.model_copy(update={"encoder": "net", "encoder_sha256": "sha", "protocol": "finetune", "seed": seed, **fields})
    counts = {part: {"images": 1, "patients": 1} for part in ("train", "val", "test")}
    return Record(base.meta.model_copy(update={"identity": identity, "counts": counts}), arrays)


def shuffled(r, seed=0):
    """The record with its images in another order."""
    arrays = {}
    for part in ("val", "test"):
        order = np.random.default_rng(seed).permutation(len(r.arrays[f"{part}_key"]))
        arrays |= {name: value[order] for name, value in r.arrays.items() if name.startswith(part)}
    return Record(r.meta, arrays)


def test_scores_are_the_mean_probability_whatever_the_order_of_the_images():
    members = [member(seed) for seed in range(3)]
    whole = average_records([members[0], shuffled(members[1]), members[2]], "all")
    for part in ("val", "test"):
        want = np.mean([m.arrays[f"{part}_scores"] for m in members], axis=0)
        assert whole.arrays[f"{part}_scores"] == pytest.approx(want)
        assert np.array_equal(whole.arrays[f"{part}_key"], members[0].arrays[f"{part}_key"])
    assert (whole.identity.encoder, whole.meta.role) == ("all", "ensemble")
    other = member(1)
    other.arrays["test_y"] = 1 - other.arrays["test_y"]
    with pytest.raises(InputError, match="different test images or labels"):
        _ = average_records([members[0], other], "all").arrays["test_scores"]


def test_the_row_is_compared_with_the_mean_single_member():
    members = [member(seed) for seed in range(4)]
    sections, (ensemble,) = add_ensembles(build_sections(members), ["seeds"])
    row, plain = ensemble.row, ensemble.members
    assert [r.encoder for r in sections[0].rows] == ["net", "net ensemble of 4 seeds"]
    y, scores = members[0].arrays["test_y"], [m.arrays["test_scores"] for m in members]
    each = [roc_auc_score(y, s) for s in scores]
    assert row.metrics["auroc"].value == pytest.approx(roc_auc_score(y, np.mean(scores, axis=0)))
    assert plain.metrics["auroc"].value == pytest.approx(np.mean(each))
    assert row.difference.value == pytest.approx(row.metrics["auroc"].value - np.mean(each))
    assert row.reference == "net"
    assert "4 seeds of the protocol" in row.difference.method
    assert row.difference.family == 1
    assert set(row.primary.others) == {"ap", "balanced_accuracy"}
    assert "seeds" not in row.metrics["auroc"].method, "one ensemble says nothing about others"


def test_equal_members_are_no_better_than_one_of_them():
    members = [member(0), Record(member(1).meta, member(0).arrays)]
    _, (ensemble,) = add_ensembles(build_sections(members), ["seeds"])
    assert (ensemble.row.difference.value, ensemble.row.difference.reported_verdict) == (0, "not distinguishable")


def test_draws_have_an_ensemble_each_and_folds_that_lack_a_member_none():
    members = [member(seed, draw=draw, fraction=0.5) for seed in range(2) for draw in range(3)]
    _, (ensemble,) = add_ensembles(build_sections(members), ["seeds"])
    assert set(row_estimate(ensemble.row.records, "auroc").parts) == {Position(0, draw, 0, 0) for draw in range(3)}
    assert ensemble.size == 2
    with pytest.raises(InputError, match="no row with several members"):
        add_ensembles(build_sections(members[:-1]), ["seeds"])


def test_pretraining_seeds_are_averaged_from_the_row_about_the_recipe():
    sections = add_seed_rows(build_sections(three(recipe="r")))
    added, (ensemble,) = add_ensembles(sections, ["pretraining"])
    assert ensemble.row.encoder == "s0 ensemble of 3 pretraining seeds"
    assert ensemble.members.seeds == ["s0", "s1", "s2"]
    assert "3 pretraining seeds" in ensemble.row.difference.method
    scores = [r.arrays["test_scores"] for r in three()[:3]]
    assert ensemble.row.metrics["auroc"].value == pytest.approx(roc_auc_score(three()[0].arrays["test_y"], np.mean(scores, axis=0)))
    plain = {r.encoder: r for r in sections[0].rows}
    for row in added[0].rows:
        if row.encoder in plain:
            assert [c.reference for c in row.comparisons] == [c.reference for c in plain[row.encoder].comparisons]
    with pytest.raises(InputError, match="--seed 1, --seed 2"):
        add_ensembles(sections, ["seeds"])


def test_scores_that_are_no_probabilities_are_not_averaged():
    members = [member(seed) for seed in range(2)]
    members[1].arrays["val_scores"] = members[1].arrays["val_scores"] * 7
    with pytest.raises(InputError, match="whose scores are probabilities"):
        add_ensembles(build_sections(members), ["seeds"])


@pytest.mark.parametrize(("kind", "classes"), [("binary", ("ill",)), ("multilabel", ("a", "b")), ("multiclass", ("a", "b", "c"))])
def test_errors_are_those_of_scikit_learn(kind, classes):
    members = [member(seed, kind, classes=classes) for seed in range(3)]
    _, (ensemble,) = add_ensembles(build_sections(members), ["seeds"])
    found, y = ensemble_errors(ensemble), members[0].arrays["test_y"]
    for x, same in zip(found, list_variants(members), strict=True):
        columns = range(y.shape[1])
        if kind == "multiclass":
            want = np.mean([log_loss(y.argmax(1), p, labels=columns) for p in same])
        else:
            want = np.mean([log_loss(y[:, c], p[:, c], labels=[0, 1]) for p in same for c in columns])
        assert x.log_loss == pytest.approx(want)
        assert x.brier == pytest.approx(np.mean([brier_score_loss(y[:, c], p[:, c]) for p in same for c in columns]))
        d = x.log_loss_difference
        assert d.value == pytest.approx(x.log_loss - found[1].log_loss)
        assert d.low <= d.value <= d.high
    by_name = dict(zip(VARIANTS, found, strict=True))
    assert by_name["ensemble"].log_loss < by_name["mean single member"].log_loss, "Jensen"
    pooled = list_variants(members)[4][0]
    val = np.mean([m.arrays["val_scores"] for m in members], axis=0)
    temperature = fit_temperature(members[0].arrays["val_y"], val, kind)
    assert fit_temperature(y, pooled, kind) != 1
    logit = np.log(np.mean([m.arrays["test_scores"] for m in members], axis=0))
    assert pooled.argmax(1).tolist() == logit.argmax(1).tolist()
    assert temperature > 0


def test_the_mean_of_calibrated_members_is_too_modest_and_its_own_temperature_corrects_that():
    """Members that are calibrated alone: their mean has a temperature below 1 (Rahaman and Thiery 2021)."""
    rng = np.random.default_rng(0)
    truth = rng.random(20000) < 0.5
    shown = [(2 * truth - 1) * 0.5 + rng.normal(0, 1, 20000) for _ in range(5)]
    members = [1 / (1 + np.exp(-2 * 0.5 * x)) for x in shown]  # the posterior of one observation
    y = truth[:, None].astype(float)
    assert [fit_temperature(y, p[:, None]) for p in members] == pytest.approx([1] * 5, abs=0.06)
    assert fit_temperature(y, np.mean(members, axis=0)[:, None]) < 0.6


def test_validation_images_without_an_error_determine_no_temperature():
    members = [member(seed) for seed in range(2)]
    for m in members:
        m.arrays["val_scores"] = np.where(m.arrays["val_y"] > 0.5, 0.8, 0.3)
    test, own, (pooled,), (after,), (tempered,) = list_variants(members)
    assert all(np.allclose(a, b) for a, b in zip(test, own, strict=True))
    assert tempered == pytest.approx(pooled)
    assert after == pytest.approx(pooled)


def test_unknown_labels_have_no_loss():
    y, p = np.array([[1.0, np.nan], [0.0, 1.0]]), np.array([[0.8, 0.3], [0.1, 0.5]])
    assert image_log_loss(y, p, "multilabel") == pytest.approx(-np.log([[0.8, np.nan], [0.9, 0.5]]), nan_ok=True)
    assert np.isnan(image_log_loss(np.array([[np.nan, np.nan]]), p[:1], "multiclass")).all()


def test_two_encoders_of_one_short_name_have_rows_of_their_own():
    members = [member(seed, encoder=f"net:size={size}", encoder_sha256=str(size)) for size in (32, 64) for seed in range(2)]
    sections, found = add_ensembles(build_sections(members), ["seeds"])
    assert len({row.encoder for row in sections[0].rows}) == 4
    assert replace(found[0], kind="pretraining").size == 2


@pytest.mark.parametrize("text", ["", "all", "seeds,x", ","])
def test_other_kinds_are_one_sentence(text):
    with pytest.raises(InputError, match="expected seeds"):
        parse_ensembles(text)
    assert parse_ensembles("seeds, pretraining") == ["seeds", "pretraining"]


def test_the_command_prints_and_writes_them(tmp_path):
    call("tasks", "add", "sick", toys.store(tmp_path / "toy.h5", patients=60), "--label", "sick")
    encoder = "random_test_resnet:size=32,channels=1"
    for seed in ("0", "1"):
        more = ("finetune.max_steps=4", "finetune.min_steps=2", "finetune.evaluations=2", "finetune.batch=8")
        options = ("--protocol", "finetune", "--baseline", "none", "--no-floor", "--device", "cpu", "--seed", seed)
        call("bench", "--encoder", encoder, *options, *more)
    done = call("compare", "--ensemble", "seeds", "--refer", "20%", "--sets", "0.9")
    assert "Deep ensembles" in done.stdout
    assert "random_test_resnet ensemble of 2 seeds" in " ".join(done.stdout.split())
    with (records_dir() / "ensembles.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["probabilities"] for line in lines] == list(VARIANTS)
    with (records_dir() / "referrals.csv").open(newline="") as file:
        assert any("ensemble" in line["encoder"] for line in csv.DictReader(file)), "other tables have the row as well"
    again = call("compare", "--ensemble", "seeds")
    assert "Deep ensembles" in again.stdout
    with (records_dir() / "ensembles.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == lines
