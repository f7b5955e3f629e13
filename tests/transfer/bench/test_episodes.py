"""Few-shot episodes from the test rows to the record, and the pairing of two records."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from encoders.runtime.errors import InputError
from tests.transfer import toys
from tests.transfer.bench.test_bench import NET, OTHER, add, run
from transfer.bench.episodes import measure_episodes
from transfer.protocols import fewshot
from transfer.protocols.common import Features
from transfer.records import record
from transfer.records.episodes import pair_episodes, read_episodes
from transfer.stats.delong import area_components
from transfer.stats.placement_components import measure_placements, placement_components

QUICK = ["fewshot.episodes=30", "fewshot.shots=[1,4]"]


def features(n, kind, seed):
    rng = np.random.default_rng(seed)
    code = rng.integers(0, 4, n)
    x = rng.normal(size=(n, 8)) + np.random.default_rng(9).normal(size=(4, 8))[code]
    y = np.eye(4, dtype=np.float32)[code]
    names = np.arange(n).astype(str)
    if kind == "multilabel":
        y[rng.random(y.shape) < 0.2] = np.nan
        y[:, 2] = np.where(np.isnan(y[:, 2]) | (seed == 0), y[:, 2], 0)  # a label without positives in the test part
    return Features(x.astype(np.float32), y, names, (np.arange(n) // 2).astype(str), kind)


@pytest.mark.parametrize("score", ["distance", "vote"])
@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
@pytest.mark.parametrize("block", [300, 2**21])
def test_areas_are_those_of_scikit_learn_in_every_episode_and_placements_have_their_mean(kind, score, block, monkeypatch):
    monkeypatch.setattr(fewshot, "BLOCK_VALUES", block)  # several blocks of episodes, or one
    train, test = features(150, kind, 0), features(61, kind, 1)
    fitted = fewshot.fit(fewshot.Config(shots=(1, 3), episodes=25, score=score), train, features(40, kind, 2))
    measured = measure_episodes(fitted, test)
    assert list(measured) == [1, 3]
    defined = [0, 1, 3] if kind == "multilabel" else [0, 1, 2, 3]
    for shots, e in measured.items():
        scores = [[] for _ in range(4)]
        for block_of in fitted.score_episodes(test, shots):
            for one, c in zip(np.moveaxis(block_of.scores, 1, 0), range(4)[block_of.columns], strict=True):
                scores[c].extend(one)
        want = np.full((25, 4), np.nan)
        for c in defined:
            known = ~np.isnan(test.y[:, c])
            want[:, c] = [roc_auc_score(test.y[known, c], s[known]) for s in scores[c]]
            positive = known & (test.y[:, c] == 1)
            assert e.placement[positive, c].mean(dtype=np.float64) == pytest.approx(want[:, c].mean(), abs=1e-6)
            assert e.placement[known & ~positive, c].mean(dtype=np.float64) == pytest.approx(want[:, c].mean(), abs=1e-6)
            code = test.patient.astype(int)
            each = [area_components(test.y[:, c], s, code, 31) for s in scores[c]]
            got = placement_components(test.y[:, c], e.placement[:, c], code, 31)
            np.testing.assert_allclose(got.positive, np.mean([p.positive for p in each], axis=0), atol=1e-6)
            np.testing.assert_allclose(got.negative, np.mean([p.negative for p in each], axis=0), atol=1e-6)
        np.testing.assert_allclose(e.label_auroc, want, atol=1e-12)
        np.testing.assert_allclose(e.auroc, np.nanmean(want, axis=1), atol=1e-12)
        assert np.array_equal(np.isnan(e.placement), np.isnan(test.y) | ~np.isin(np.arange(4), defined))
        assert e.placement.dtype == np.float32
        assert e.supports == fitted.support_digest(shots)


def test_there_are_no_episodes_when_no_label_has_both_classes():
    train, test = features(150, "multiclass", 0), features(61, "multiclass", 1)
    fitted = fewshot.fit(fewshot.Config(shots=(1,), episodes=3), train, test)
    assert measure_episodes(fitted, test.at(test.y[:, 0] == 1)) == {}


@pytest.fixture
def cohort(tmp_path):
    add(toys.store(tmp_path / "toy.h5", patients=40), labels=["grade"], kind="multiclass", classes=["high", "low", "mid"])
    return tmp_path


def test_records_of_two_encoders_hold_the_same_episodes_and_can_be_paired(cohort):
    a, b = run(NET, OTHER, protocols=["fewshot"], overrides=QUICK).records
    assert [r.meta.error for r in (a, b)] == [None, None]
    a, b = (record.read_record(record.record_path(r.identity)) for r in (a, b))
    y, _, patient = a.part("test")
    code = np.unique(patient, return_inverse=True)[1]
    for shots in (1, 4):
        one, other = pair_episodes(a, b, shots)
        assert one.auroc.shape == other.auroc.shape == (30,)
        assert one.label_auroc.shape == (30, 3)
        assert one.placement.shape == y.shape
        assert not np.array_equal(one.auroc, other.auroc)
        assert a.meta.episodes[str(shots)] == pytest.approx({"mean": one.auroc.mean(), "sd": one.auroc.std(ddof=1)})
        areas = [[p.area for p in measure_placements(y, e.placement, code, code.max() + 1)] for e in (one, other)]
        assert np.mean(areas[0]) - np.mean(areas[1]) == pytest.approx((one.auroc - other.auroc).mean(), abs=1e-6)
    elsewhere, _ = run(NET, OTHER, protocols=["fewshot"], overrides=QUICK, seed=1).records
    with pytest.raises(InputError, match="different support sets"):
        pair_episodes(a, elsewhere, 4)
    with pytest.raises(InputError, match="has 1, 4 shots, not 8"):
        pair_episodes(a, b, 8)


def test_a_reused_record_keeps_its_episodes(cohort):
    (first,) = run(NET, protocols=["fewshot"], overrides=QUICK).records
    known = record.read_record(record.record_path(first.identity))
    record.write_record(replace(known, meta=known.meta.model_copy(update={"recipe": "another"})))
    result = run(NET, protocols=["fewshot"], overrides=QUICK)
    assert (result.reused, result.computed) == (1, 0)
    again = record.read_record(record.record_path(first.identity))
    assert again.meta.recipe == known.meta.recipe  # it was written again
    assert record.hash_arrays(again.arrays) == record.hash_arrays(known.arrays)
    assert list(read_episodes(again)) == [1, 4]


def test_scores_under_a_shift_and_other_protocols_have_no_episodes(cohort):
    records = run(NET, protocols=["knn", "fewshot"], overrides=QUICK, shifts=[("gamma", 1)]).records
    for r in records:
        expected = [1, 4] if (r.identity.protocol, r.identity.shift) == ("fewshot", None) else []
        assert list(read_episodes(r)) == expected
        assert bool(record.optional_arrays(n for n in r.arrays if "group" not in n)) == bool(expected)


def test_a_record_of_an_earlier_version_is_read_and_has_no_single_episodes(cohort):
    (r,) = run(NET, protocols=["fewshot"], overrides=QUICK).records
    old = {name: values for name, values in r.arrays.items() if name not in record.optional_arrays(r.arrays)}
    path = record.write_record(record.Record(r.meta.model_copy(update={"episode_supports": {}}), old))
    read = record.read_record(path)
    assert read.meta.episodes == r.meta.episodes
    assert read_episodes(read) == {}
    with pytest.raises(InputError, match="has no single episodes"):
        pair_episodes(read, r, 4)
