"""Several pretraining seeds of one recipe: their own row, with intervals that include the variation between seeds."""

import numpy as np
import pytest
from scipy import stats as sp

from encoders.runtime.errors import InputError
from encoders.runtime.paths import sweeps_dir
from encoders.runtime.sweep_folder import SweepFolder, SweepInfo, SweepRun
from encoders.zoo.card import Card, Preprocess
from tests.transfer.records.test_record import identity
from transfer.bench.baselines import recipe_digest
from transfer.records.record import Meta, Record
from transfer.stats import pooled_difference
from transfer.stats.estimate import Estimate, estimate_difference
from transfer.stats.factors import Position
from transfer.stats.parts import measure_part
from transfer.tables import caveats, render, result_csv, seed_rows
from transfer.tables.build import build_sections

CARD = Card(name="enc", arch="resnet18", dim=512, preprocess=Preprocess(), config={"seed": 0, "batch": 8, "threads": 1}, steps=10)


def scored(rng, patients=80, shift=1.0, each=2):
    y = np.repeat(np.arange(patients) % 2, each).astype(np.float32)
    effect = np.repeat(rng.normal(size=patients), each) * 0.7
    noise = rng.normal(size=patients * each)
    return y, effect, noise, np.repeat(np.arange(patients), each).astype(str)


def record(encoder, quality, role="encoder", recipe="", seed=0, of=0, pretraining_seed=None, **fields):
    """The same test patients for every encoder; the scores of a better encoder separate the labels more."""
    rng = np.random.default_rng(of)
    y, effect, _, patient = scored(rng)
    own = np.random.default_rng(sum(map(ord, encoder))).normal(size=len(y))
    arrays = {}
    for part in ("val", "test"):
        key = np.array([f"{part}{i}" for i in range(len(y))])
        arrays |= {f"{part}_key": key, f"{part}_patient": patient, f"{part}_y": y[:, None]}
        arrays |= {f"{part}_scores": sp.norm.cdf(quality * y + effect + own - 1)[:, None]}
    counts = {part: {"images": 160, "patients": 80} for part in ("train", "val", "test")}
    who = identity(encoder=encoder, encoder_sha256=encoder, seed=seed, **fields)
    return Record(
        Meta(
            identity=who,
            kind="binary",
            classes=["sick"],
            role=role,
            arch="r",
            recipe=recipe,
            counts=counts,
            pretraining_seed=pretraining_seed,
        ),
        arrays,
    )


def three(**fields):
    made = [
        record(name, quality, pretraining_seed=k, **fields) for k, (name, quality) in enumerate((("s0", 1.0), ("s1", 1.6), ("s2", 1.3)))
    ]
    return [*made, record("imagenet_r", 0.9, role="imagenet")]


def seeds_difference(seeds, base):
    """The mean over pretraining seeds minus `base`, each (labels, scores, patients) of one test part."""
    mine = Estimate({Position(checkpoint=i): measure_part(*seed) for i, seed in enumerate(seeds)}, 40)
    return estimate_difference(mine, Estimate({Position(): measure_part(*base)}, 40))


def with_seeds(records, seeds_of=()):
    return seed_rows.add_seed_rows(build_sections(records), seeds_of)


def test_the_recipe_of_a_card_is_all_but_its_seed_and_what_changes_no_number():
    same = CARD.replace(config={"seed": 5, "batch": 8, "threads": 2})
    assert recipe_digest(CARD) == recipe_digest(same) != ""
    assert recipe_digest(CARD.replace(config={"seed": 0, "batch": 16, "threads": 1})) != recipe_digest(CARD)
    assert recipe_digest(CARD.replace(steps=20)) != recipe_digest(CARD)
    assert recipe_digest(CARD.replace(config=None)) == ""
    random = [CARD.replace(lineage={"init": f"random:{seed}"}) for seed in (0, 1)]
    assert recipe_digest(random[0]) == recipe_digest(random[1]), "weights that the seed drew"
    assert recipe_digest(random[0]) != recipe_digest(CARD.replace(lineage={"init": "imagenet_r", "init_sha256": "a"}))
    assert recipe_digest(CARD.replace(lineage={"init": "m", "init_sha256": "a"})) != recipe_digest(
        CARD.replace(lineage={"init": "m", "init_sha256": "b"})
    )
    of = {"fingerprint": "f", "images": 40, "used": "u"}
    others = [of | {"fingerprint": "g"}, of | {"images": 80}, of | {"used": "v"}]
    assert len({recipe_digest(CARD.replace(corpus=c)) for c in [of, *others]}) == 4, "other images under the same file names"


def test_seeds_of_one_recipe_get_a_row_in_front_whose_interval_holds_their_spread():
    (section,) = with_seeds(three(recipe="x"))
    first, *rest = section.rows
    assert first.seeds == ["s0", "s1", "s2"]
    assert [row.encoder for row in rest] == ["s0", "s1", "s2", "imagenet_r"]
    each = [row.metrics["auroc"].value for row in rest[:3]]
    assert first.metrics["auroc"].value == pytest.approx(np.mean(each))
    assert first.seed_std == pytest.approx(np.std(each, ddof=1))
    extra = sp.t.ppf(0.975, 2) * np.std(each, ddof=1) / np.sqrt(3)
    assert first.metrics["auroc"].value - first.metrics["auroc"].low > extra
    assert first.reference == "imagenet_r"
    assert first.difference.value == pytest.approx(np.mean([row.difference.value for row in rest[:3]]))
    assert first.difference.high - first.difference.low > 2 * extra
    shown = render.shorten_names([section])
    told = " ".join(render.describe_legend([section], shown))
    assert "s0 and 2 more seeds, prot: mean over 3 pretraining seeds of one recipe (s0, s1, s2)" in told
    assert "about this checkpoint" in told
    lines = result_csv.results_to_csv([section], {}, {}).splitlines()
    assert "recipe" in lines[1]
    assert "checkpoint" in lines[2]


def test_other_recipes_and_one_seed_give_no_such_row_and_the_option_names_them():
    records = three()
    assert all(not row.seeds for row in with_seeds(records)[0].rows)
    named = with_seeds(records, seed_rows.validate_seed_encoders(["s0", "s1"], records))[0].rows
    assert named[0].seeds == ["s0", "s1"]
    with pytest.raises(InputError, match="no encoder among the records"):
        seed_rows.validate_seed_encoders(["s0", "s9"], records)
    with pytest.raises(InputError, match="names only s0"):
        seed_rows.validate_seed_encoders(["s0"], records)


def test_the_same_seed_twice_is_no_second_training():
    twice = [record(name, 1.0, recipe="x", pretraining_seed=0) for name in ("s0", "s1")]
    assert [row.encoder for row in with_seeds(twice)[0].rows] == ["s0", "s1"]
    assert len(with_seeds(twice, ["s0", "s1"])[0].rows) == 3, "named by hand they are"


def test_a_sweep_stands_for_its_runs_as_seeds():
    sweep = SweepFolder(sweeps_dir() / "many")
    names = ["many_seed0", "many_seed1"]
    sweep.write(SweepInfo(recipe="cxr_moco", overrides=[], keys=["seed"], runs=[SweepRun(name=name, settings=[]) for name in names]))
    records = [record(name, 1.0) for name in [*names, "other"]]
    assert seed_rows.validate_seed_encoders(["many"], records) == names
    assert seed_rows.validate_seed_encoders(["many", "other", "many_seed0"], records) == [*names, "other"]
    with pytest.raises(InputError, match="no encoder among the records called 'many_seed1'"):
        seed_rows.validate_seed_encoders(["many"], records[:1])


def test_seeds_of_the_protocol_make_one_row_and_their_spread_stands_apart():
    records = [record("s0", 1.0, seed=0), record("s0", 1.5, seed=1), record("imagenet_r", 0.9, role="imagenet")]
    (section,) = with_seeds(records)
    row = section.rows[0]
    assert len(row.records) == 2
    assert row.seed_std > 0
    assert np.isnan(row.draw_std)
    assert row.difference is None  # the reference lacks a seed


def test_seeds_that_agree_add_nothing_and_the_verdict_is_that_of_the_patients():
    rng = np.random.default_rng(0)
    y, effect, noise, patient = scored(rng)
    a, b = (y, y + effect + noise, patient), (y, 0.5 * y + effect + rng.normal(size=len(y)), patient)
    alone, both = pooled_difference([[a]], [[b]]), seeds_difference([a, a, a], b)
    assert (both.low, both.value, both.high) == pytest.approx((alone.low, alone.value, alone.high))
    assert both.p == pytest.approx(alone.p, abs=1e-6)


def test_what_could_not_be_told_apart_says_what_could_have_been():
    (section,) = with_seeds([record("s0", 0.95), record("imagenet_r", 0.9, role="imagenet")])
    (row,) = (r for r in section.rows if r.role == "encoder")
    assert row.difference.verdict == "not distinguishable"
    half = (row.difference.high - row.difference.low) / 2
    want = half / sp.norm.ppf(0.975) * (sp.norm.ppf(0.975) + sp.norm.ppf(0.8))
    assert caveats.detectable_difference(row.difference) == pytest.approx(want)
    assert f"detectable with 80 % power: s0 {want:.3f}" in " ".join(render.describe_legend([section], render.shorten_names([section])))


@pytest.mark.slow
def test_a_verdict_on_a_recipe_is_rarely_false_where_seeds_alone_make_one_checkpoint_better():
    """Recipe and baseline are equally good on average; every seed of the recipe is better or worse by chance."""
    recipe_said, checkpoint_said = [], []
    for trial in range(400):
        rng = np.random.default_rng(trial)
        y, effect, noise, patient = scored(rng, patients=120)
        base = (y, y + effect + noise, patient)
        made = [(y, (1 + rng.normal(0, 0.35)) * y + effect + rng.normal(size=len(y)), patient) for _ in range(3)]
        recipe_said.append(seeds_difference(made, base).verdict != "not distinguishable")
        checkpoint_said.append(pooled_difference([[made[0]]], [[base]]).verdict != "not distinguishable")
    assert np.mean(recipe_said) <= 0.06
    assert np.mean(checkpoint_said) > 0.15  # why the recipe needs its own row
