"""The bench on small stores from end to end, and the table from its records."""

import csv
import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from encoders.runtime.config import Config
from encoders.runtime.errors import InputError
from encoders.runtime.paths import zoo_dir
from encoders.store.patient_ids import hash_patients
from encoders.store.store import Store
from encoders.store.write import save_store
from encoders.zoo import zoo
from encoders.zoo.zoo import load_encoder
from tests.transfer import toys
from transfer.bench import bench as bench_module
from transfer.bench.baselines import encoder_role
from transfer.bench.bench import BenchRequest, plan_bench, run_bench
from transfer.leakage import check
from transfer.protocols import PROTOCOLS, ProtocolEntry
from transfer.records import record
from transfer.records.episodes import read_episodes
from transfer.records.ledger import read_ledger
from transfer.records.test_usage import SplitUsage
from transfer.tables import build as table
from transfer.tables import render, result_csv, wandb_report
from transfer.tables.rows import group_sections
from transfer.tasks import load, task

NET = "random_resnet10t:size=32,channels=1,mean=0.5,std=0.25"
OTHER = "random_resnet10t:seed=1,size=32,channels=1,mean=0.5,std=0.25"


@pytest.fixture
def cohort(tmp_path):
    return toys.store(tmp_path / "toy.h5", patients=40)


def add(where, name="sick", labels=("sick",), kind="binary", classes=("sick",), **fields):
    spec = task.Task(name=name, store=[str(where)], labels=list(labels), kind=kind, classes=list(classes), modality="cxr", **fields)
    task.save_task(spec)
    return spec


def run(*encoders, **fields):
    request = BenchRequest(**{"encoders": encoders or (NET,), "baselines": [], "overrides": ["linear.steps=5"], **fields})
    return run_bench(request, plan_bench(request, lambda text: None), lambda text: None)


def test_every_cell_has_a_record_and_its_metrics_equal_those_of_scikit_learn(cohort):
    add(cohort)
    result = run()
    assert [r.identity.protocol for r in result.records] == ["knn", "linear"]
    for section in table.build_sections(result.records):
        (row,) = section.rows
        y, s, _ = row.records[0].part("test")
        assert row.metrics["auroc"].value == pytest.approx(roc_auc_score(y[:, 0], s[:, 0]), abs=1e-12)
        assert row.metrics["ap"].value == pytest.approx(average_precision_score(y[:, 0], s[:, 0]), abs=1e-12)
        assert np.isnan(row.metrics["auroc"].low), "4 patients in the smaller class"
        assert section.majority["auroc"] == 0.5
        assert section.majority["ap"] == pytest.approx(y.mean())
        assert section.majority["balanced_accuracy"] == 0.5


def test_a_second_bench_reuses_records_and_scores_no_test_split(cohort):
    add(cohort)
    first = run()
    uses = len(read_ledger())
    second = run()
    assert (first.computed, first.reused, second.computed, second.reused) == (2, 0, 0, 2)
    assert len(read_ledger()) == uses == 2
    assert run(recompute=True).computed == 2
    assert len(read_ledger()) == 4
    for a, b in zip(first.records, second.records, strict=True):
        np.testing.assert_array_equal(a.arrays["test_scores"], b.arrays["test_scores"])


def test_names_of_imagenet_weights_are_reserved(cohort):
    store, rows = Store.open(cohort), np.arange(10)
    with pytest.raises(InputError, match="reserved for ImageNet weights, and this encoder is a resnet10t"):
        publish("imagenet_resnet34", store, rows)
    mine = load_encoder(NET).card.replace(config={"seed": 0}, method="moco", source=None)
    with pytest.raises(InputError, match="and this encoder is pretrained here"):
        zoo.publish_encoder("imagenet_resnet10t", load_encoder(NET).model, mine)
    assert encoder_role("imagenet_resnet10t", mine) == "encoder"


def test_one_encoder_under_several_names_is_compared_once(cohort):
    add(cohort)
    publish("m", Store.open(cohort), np.arange(0), seed=1)
    assert [e.name for e in plan_bench(BenchRequest(encoders=["m", str(zoo_dir() / "m")], baselines=[]), print).entries] == ["m"]


def test_an_input_size_that_differs_from_the_baseline_is_noted(cohort):
    add(cohort)
    publish("m", Store.open(cohort), np.arange(0), seed=1)
    records = run("m", "random_resnet10t:size=48,channels=1", protocols=["knn"]).records
    (section,) = table.build_sections(records)
    notes = next(row.notes for row in section.rows if row.encoder == "m")
    assert any(note.startswith("m has input size 32 px, random_resnet10t:size=48,channels=1 48 px: ") for note in notes)


def test_two_encoders_of_one_name_have_separate_rows(cohort):
    add(cohort)
    first = run(protocols=["linear"]).records[0]
    other = first.identity.model_copy(update={"encoder_sha256": "f" * 64})
    scores = {**first.arrays, "test_scores": 1 - first.arrays["test_scores"]}
    (section,) = table.build_sections([first, record.Record(first.meta.model_copy(update={"identity": other}), scores)])
    names = {row.encoder: row.metrics["auroc"].value for row in section.rows}
    alone = table.build_sections([first])[0].rows[0]
    assert names == {
        f"{NET} ({first.identity.encoder_sha256[:8]})": alone.metrics["auroc"].value,
        f"{NET} (ffffffff)": pytest.approx(1 - alone.metrics["auroc"].value),
    }
    assert all("was used for 2 different encoders" in row.notes[-1] for row in section.rows)


def test_changed_patient_ids_make_a_new_record(tmp_path):
    """An official split, ingested again with the patient column: pixels, labels and parts stay equal."""
    sick = np.arange(120) % 2
    images = toys.pictures(sick.astype(float), np.zeros(120), seed=0)
    split = {"split": np.repeat(["train", "val", "test"], 40)}
    labels = {"sick": sick.astype(float)}
    save_store(tmp_path / "c.h5", images, labels=labels, meta=split)
    add(tmp_path / "c.h5", split=task.SplitRule(column="split"))
    before = run(protocols=["knn"])
    assert run(protocols=["knn"]).reused == 1
    save_store(tmp_path / "c.h5", images, patient=[f"p{i // 4}" for i in range(120)], labels=labels, meta=split)
    after = run(protocols=["knn"])
    assert (before.computed, after.computed, after.reused) == (1, 1, 0)
    assert len(set(after.records[0].arrays["test_patient"].tolist())) == 10


def test_other_settings_of_a_protocol_have_their_own_record_and_section(cohort):
    add(cohort)
    records = run(protocols=["linear"]).records + run(protocols=["linear"], overrides=["linear.steps=3"]).records
    sections = table.build_sections(records)
    assert len({s.protocol_hash for s in sections}) == len(sections) == 2
    assert len(group_sections(sections)) == 2


def test_another_version_of_a_protocol_has_its_own_hash_and_section(cohort, monkeypatch):
    from transfer.protocols import knn

    add(cohort)
    records = run(protocols=["knn"]).records
    monkeypatch.setattr(knn, "VERSION", knn.VERSION + 1)
    again = run(protocols=["knn"])
    assert (again.computed, again.reused) == (1, 0)
    sections = table.build_sections(records + again.records)
    assert len({s.protocol_hash for s in sections}) == len(sections) == len(group_sections(sections)) == 2
    assert all(len(s.rows) == 1 for s in sections)


def test_other_splits_of_a_task_have_their_own_sections(cohort):
    add(cohort)
    records = run(protocols=["knn"]).records
    task.remove_task("sick")
    add(cohort, split=task.SplitRule(seed=5))
    records += run(protocols=["knn"]).records
    sections = table.build_sections(records)
    assert len(sections) == len(group_sections(sections)) == 2
    assert all(len(s.rows) == 1 for s in sections)


class Cfg(Config):
    seed: int = 0


def test_a_cell_that_fails_is_recorded_with_its_traceback_and_the_others_continue(cohort, monkeypatch):
    def fit(cfg, train, val, select, log):
        raise ZeroDivisionError("nothing to divide")

    broken = SimpleNamespace(VERSION=1, NEEDS="pooled", Config=Cfg, fit=fit)
    monkeypatch.setitem(PROTOCOLS, "broken", ProtocolEntry("broken", "always fails", lambda: broken))
    add(cohort)
    result = run(protocols=["broken", "knn"])
    assert [r.meta.status for r in result.records] == ["failed", "ok"]
    assert result.failed[0].meta.error == "ZeroDivisionError: nothing to divide"
    assert "in fit" in result.failed[0].meta.traceback
    assert record.read_record(record.record_path(result.failed[0].identity)).meta.status == "failed"
    assert run(protocols=["broken", "knn"]).computed == 1  # only a failed cell is computed again
    text = render.results_to_markdown(table.build_sections(result.records), {}, {})
    assert "failed: ZeroDivisionError" in text


def test_a_missing_default_baseline_is_a_row_and_a_missing_requested_one_is_an_error(cohort, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    add(cohort)
    result = run("random_resnet18:size=32", baselines=None, protocols=["knn"])
    (name,) = result.missing
    assert name.startswith("imagenet_resnet18")
    assert "put model.safetensors" in result.missing[name]
    assert [r.meta.role for r in result.records] == ["random", "floor"]
    with pytest.raises(zoo.WeightsUnavailable):
        run("random_resnet18:size=32", baselines=["imagenet_resnet18"], protocols=["knn"])


def test_encoders_of_one_network_share_one_random_baseline(cohort, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    add(cohort)
    third = OTHER.replace("seed=1", "seed=2")
    entries = plan_bench(BenchRequest(encoders=[OTHER, third]), print).entries
    assert [e.name for e in entries if e.requested] == [OTHER, third]
    assert [e.card.lineage["seed"] for e in entries if not e.requested and e.role == "random"] == [0]
    assert sum(e.role == "random" for e in plan_bench(BenchRequest(encoders=[NET]), print).entries) == 1  # it is its own baseline


def publish(name, store, rows, seed=0, lineage=None):
    """A zoo entry `name` with a manifest of pretraining on these rows of the store."""
    encoder = load_encoder(NET.replace(":", f":seed={seed},") if seed else NET)
    manifest = {
        "store_fingerprint": np.array([store.fingerprint]),
        "sha256": check.digests_to_bytes(store.column("sha256")[rows]),
        "phash": store.column("phash")[rows],
        "patient_hash": hash_patients(store.column("patient")[rows], store.dataset),
    }
    card = encoder.card.replace(name=name, method="moco", source=None, modality="cxr", lineage=lineage or {}, canary=None)
    zoo.publish_encoder(name, encoder.model, card, manifest)


def test_pretraining_on_test_images_is_refused_and_marked_when_allowed(cohort):
    add(cohort)
    store = Store.open(cohort)
    publish("greedy", store, np.arange(len(store)))
    with pytest.raises(InputError, match=r"(?s)images between the pretraining of greedy and test.*--allow-leakage"):
        run("greedy")
    assert read_ledger() == []
    result = run("greedy", allow_leakage=True, protocols=["knn"])
    assert any("greedy" in line for line in result.records[0].meta.leakage)
    sections = table.build_sections(result.records)
    assert "LEAKAGE ALLOWED" in render.results_to_markdown(sections, {}, {})
    assert "greedy" in next(csv.DictReader(io.StringIO(result_csv.results_to_csv(sections, {}, {}))))["leakage"]


def test_a_leak_is_inherited_from_the_encoder_that_one_was_initialised_from(cohort):
    add(cohort)
    store = Store.open(cohort)
    publish("parent", store, np.arange(len(store)))
    train = np.flatnonzero(bench_module.load_task(task.read_task("sick")).split.part == "train")
    publish("child", store, train, seed=3, lineage={"init": "parent"})
    with pytest.raises(InputError, match="the pretraining of parent"):
        run("child")


def test_pretraining_on_the_train_part_only_is_not_a_leak(cohort):
    add(cohort)
    store = Store.open(cohort)
    publish("fair", store, np.flatnonzero(bench_module.load_task(task.read_task("sick")).split.part == "train"))
    result = run("fair", protocols=["knn"], near_duplicates=False)
    assert result.records[0].meta.leakage == []
    assert result.records[0].meta.role == "encoder"


def test_multilabel_targets_with_unknown_values_run_to_the_table(cohort):
    add(cohort, "both", ("sick", "rare"), "multilabel", ("sick", "rare"))
    result = run()
    for section in table.build_sections(result.records):
        y, s, _ = section.rows[0].records[0].part("test")
        assert np.isnan(y).any()
        want = [roc_auc_score(y[k, c], s[k, c]) for c in range(2) if len(set(y[k := ~np.isnan(y[:, c]), c])) == 2]
        assert section.rows[0].metrics["auroc"].value == pytest.approx(np.mean(want), abs=1e-12)


def test_a_multiclass_auroc_is_one_against_rest_macro(cohort):
    add(cohort, "grade", ("grade",), "multiclass", ("high", "low", "mid"))
    (section,) = table.build_sections(run(protocols=["linear"]).records)
    y, s, _ = section.rows[0].records[0].part("test")
    want = roc_auc_score(y.argmax(1), s / s.sum(1, keepdims=True), multi_class="ovr", average="macro")
    assert section.rows[0].metrics["auroc"].value == pytest.approx(want, abs=0.02)  # renormalising rows may swap near ties
    assert section.rows[0].metrics["auroc"].value == pytest.approx(np.mean([roc_auc_score(y[:, c], s[:, c]) for c in range(3)]), abs=1e-12)


def test_folds_have_one_seal_each_and_one_row_together(cohort):
    add(cohort)
    result = run(protocols=["knn"], folds=4)
    assert len(result.records) == len({r.identity.split for r in result.records}) == 4
    (section,) = table.build_sections(result.records)
    areas = [roc_auc_score(r.arrays["test_y"][:, 0], r.arrays["test_scores"][:, 0]) for r in result.records]
    assert section.rows[0].metrics["auroc"].value == pytest.approx(np.mean(areas))
    assert toys.times_scored(result.records) == [(1, 1)] * 4
    assert section.counts == {"test": {"images": 80, "patients": 40}}, "of all folds"
    assert section.majority["ap"] == pytest.approx(np.mean([r.arrays["test_y"].mean() for r in result.records]))


def test_numbers_of_patients_have_their_own_rows_over_folds_too(cohort):
    add(cohort)
    result = run(protocols=["knn"], patients=[8], fractions=[1.0], folds=2)
    (section,) = table.build_sections(result.records)
    assert [len(row.records) for row in section.rows] == [2, 2]
    few = next(row for row in section.rows if row.fraction < 1)
    assert {r.meta.counts["train"]["patients"] for r in few.records} == {8}
    assert "knn 8 patients" in render.results_to_markdown([section], {}, {})


def test_label_fractions_have_their_own_rows_with_a_standard_deviation(cohort):
    add(cohort)
    result = run(protocols=["linear"], fractions=[0.25, 1.0], draws=3)
    (section,) = table.build_sections(result.records)
    rows = {r.fraction: r for r in section.rows}
    assert (len(rows[0.25].records), len(rows[1.0].records)) == (3, 1)
    assert rows[0.25].draw_std >= 0
    assert np.isnan(rows[1.0].draw_std)
    assert [k.size for k in {tuple(r.arrays["test_key"]): r.arrays["test_key"] for r in result.records}.values()] == [
        len(result.records[0].arrays["test_key"])
    ]


def scored(encoder, role, quality, arch="resnet18", seed=0, n=80):
    """A record with synthetic test scores; the larger `quality`, the better they separate the classes."""
    draw = np.random.default_rng(seed)
    y = np.repeat([0.0, 1.0], n)[:, None]
    arrays = {}
    for part in ("val", "test"):
        key = np.array([f"{part}{i}" for i in range(len(y))])
        noise = draw.normal(size=y.shape)
        arrays |= {f"{part}_key": key, f"{part}_patient": key, f"{part}_y": y, f"{part}_scores": 1 / (1 + np.exp(-quality * y - noise))}
    base = {name: "x" for name, field in record.Identity.model_fields.items() if field.is_required()}
    identity = record.Identity(**{**base, "encoder": encoder, "task": "t", "protocol": "knn"})
    counts = {part: {"images": 2 * n, "patients": 2 * n} for part in ("train", "val", "test")}
    meta = record.Meta(identity=identity, kind="binary", classes=["sick"], role=role, arch=arch, counts=counts)
    order = draw.permutation(len(y))
    return record.Record(meta, {k: v[order] for k, v in arrays.items()})


def test_the_difference_is_to_imagenet_of_the_same_network_with_an_honest_verdict():
    records = [
        scored("mine", "encoder", 3.0, seed=1),
        scored("poor", "encoder", 0.2, seed=2),
        scored("equal", "encoder", 1.0, seed=4),
        scored("imagenet_resnet18", "imagenet", 1.0, seed=3),
        scored("imagenet_vit", "imagenet", 0.0, arch="vit"),
        scored("random_resnet18", "random", 0.0, seed=5),
    ]
    (section,) = table.build_sections(records)
    rows = {r.encoder: r for r in section.rows}
    assert {r.reference for r in section.rows if r.role == "encoder"} == {"imagenet_resnet18"}
    assert rows["mine"].difference.verdict == "better"
    assert rows["poor"].difference.verdict == "worse"
    assert rows["equal"].difference.verdict == "not distinguishable"
    assert rows["imagenet_vit"].difference is None
    mine, base = rows["mine"].metrics["auroc"].value, rows["imagenet_resnet18"].metrics["auroc"].value
    assert rows["mine"].difference.value == pytest.approx(mine - base, abs=1e-12)  # rows were in unlike order
    (named,) = table.build_sections(records, baseline="mine")
    assert {r.reference for r in named.rows if r.difference} == {"mine"}


def test_markdown_and_csv_equal_the_rows():
    records = [scored("mine|x", "encoder", 2.0, seed=1), scored("imagenet_resnet18", "imagenet", 1.0, seed=3)]
    sections = table.build_sections(records)
    usage = {"x": SplitUsage(np.array([7, 7, 9]), np.array([2, 2, 2]), np.array([1, 1, 1]))}
    text = render.results_to_markdown(sections, usage, {"imagenet_vit": "put FILE at PATH"})
    assert "the median test image was scored at least 7 times, by 2 encoders and 1 protocol; most: 9" in text
    assert "| imagenet_vit |  | not available |" in text
    assert "put FILE at PATH" in text
    assert "mine\\|x" in text
    assert len({line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}) == 1
    lines = list(csv.DictReader(io.StringIO(result_csv.results_to_csv(sections, usage, {}))))
    mine = next(line for line in lines if line["encoder"] == "mine|x")
    assert float(mine["auroc"]) == pytest.approx(sections[0].rows[0].metrics["auroc"].value, abs=1e-6)
    assert mine["versus"] == "imagenet_resnet18"
    assert (mine["test_image_scored_at_least"], mine["test_image_scored_most"]) == ("7", "9")


def test_wandb_receives_numbers_and_the_words_of_verdicts_only():
    records = [scored("mine", "encoder", 2.0, seed=1), scored("imagenet_resnet18", "imagenet", 1.0, seed=3)]
    flat = wandb_report.wandb_summary(table.build_sections(records), "mine")
    assert {"bench/t/knn/auroc", "bench/t/knn/auroc_low", "bench/t/knn/auroc_high", "bench/t/knn/difference"} <= set(flat)
    words = {name: v for name, v in flat.items() if not isinstance(v, float)}
    assert {name.rsplit("/", 1)[-1] for name in words} == {"versus", "verdict"}
    assert set(words.values()) == {"imagenet_resnet18", "better"}
    assert "test0" not in json.dumps(flat)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"protocols": ["lineal"]}, "did you mean linear"),
        ({"encoders": ["random_resnet1"]}, "resnet1"),
        ({"encoders": []}, "--encoder"),
        ({"tasks": ["sic"]}, "did you mean sick"),
        ({"overrides": ["linear.stepz=3"]}, "did you mean steps"),
        ({"overrides": ["linea.steps=3"]}, "did you mean linear"),
    ],
)
def test_a_wrong_request_is_refused_before_anything_is_computed(cohort, fields, message):
    add(cohort)
    with pytest.raises(InputError, match=message):
        plan_bench(BenchRequest(**{"encoders": [NET], "baselines": [], **fields}), print)


def test_without_a_task_the_error_names_the_command_that_adds_one():
    with pytest.raises(InputError, match="transfer tasks add"):
        plan_bench(BenchRequest(encoders=[NET], baselines=[]), print)


def test_fine_tuning_uses_the_same_seal_and_record(cohort):
    add(cohort)
    (r,) = run(protocols=["finetune"], overrides=["finetune.min_steps=4", "finetune.max_steps=4", "finetune.evaluations=2"]).records
    assert r.meta.status == "ok", r.meta.traceback
    assert r.meta.selection
    assert toys.times_scored([r]) == [(1, 1)]


def test_a_reused_record_is_marked_with_a_new_leak_without_another_use_of_the_test_split(cohort):
    add(cohort)
    store = Store.open(cohort)
    rows = np.arange(len(store))
    train = np.flatnonzero(bench_module.load_task(task.read_task("sick")).split.part == "train")
    publish("late", store, train)
    before = run("late", protocols=["knn"], near_duplicates=False).records[0]
    manifest = zoo.manifest_path("late")
    manifest.unlink()
    np.savez(manifest, sha256=check.digests_to_bytes(store.column("sha256")[rows]))
    with pytest.raises(InputError, match="the pretraining of late"):
        run("late", protocols=["knn"], near_duplicates=False)
    after = run("late", protocols=["knn"], near_duplicates=False, allow_leakage=True).records[0]
    assert before.meta.leakage == []
    assert "late" in after.meta.leakage[0]
    assert record.read_record(record.record_path(after.identity)).meta.leakage == after.meta.leakage
    assert len(read_ledger()) == 1


@pytest.mark.parametrize(
    ("labels", "kind", "classes"),
    [
        (["rare"], "binary", ["rare"]),
        (["part"], "multiclass", ["a", "b", "c"]),
        (["sick", "rare"], "multilabel", ["sick", "rare"]),
    ],
)
def test_no_protocol_scores_unknown_labels(tmp_path, labels, kind, classes):
    draw = np.random.default_rng(4)
    part = np.where(draw.random(80) < 0.25, "", np.array(["a", "b", "c"])[np.repeat(np.arange(40), 2) % 3])
    add(toys.store(tmp_path / "toy.h5", patients=40, part=part), labels=labels, kind=kind, classes=classes)
    quick = ["linear.steps=3", "fewshot.episodes=20", "fewshot.shots=[1,2]"]
    quick += ["finetune.min_steps=2", "finetune.max_steps=2", "finetune.evaluations=1", "finetune.batch=8"]
    result = run(protocols=["knn", "linear", "fewshot", "finetune"], overrides=quick)
    assert [r.meta.error for r in result.records] == [None] * 4
    for section in table.build_sections(result.records):
        y, s, _ = section.rows[0].records[0].part("test")
        known = np.isfinite(y)
        assert known.all() == (kind != "multilabel")
        assert known.any(axis=1).all()
        areas = [roc_auc_score(y[known[:, c], c], s[known[:, c], c]) for c in range(y.shape[1])]
        row = section.rows[0]
        if row.shots is None:
            assert row.metrics["auroc"].value == pytest.approx(np.mean(areas), abs=1e-12)
        else:
            assert row.metrics["auroc"].value == pytest.approx(read_episodes(row.records[0])[row.shots].mean, abs=1e-6)


def test_the_record_has_mean_and_sd_over_episodes_for_every_number_of_shots(cohort):
    from transfer.protocols import fewshot
    from transfer.protocols.common import Features

    add(cohort, labels=["grade"], kind="multiclass", classes=["high", "low", "mid"])
    (r,) = run(protocols=["fewshot"], overrides=["fewshot.episodes=30", "fewshot.shots=[1,4]"]).records
    loaded, encoder = load.load_task(task.read_task("sick")), load_encoder(NET)
    x = encoder.encode(Store.open(cohort).images(np.arange(80))).numpy()
    every = Features(x, loaded.y, loaded.key, loaded.patient, "multiclass")
    train, val, test = (every.at(loaded.split.rows(part)) for part in ("train", "val", "test"))
    fitted = fewshot.fit(fewshot.Config(episodes=30, shots=(1, 4)), train, val)
    for shots in (1, 4):
        scores = np.concatenate([block.scores for block in fitted.score_episodes(test, shots)])
        values = [roc_auc_score(test.y, one.T) for one in scores]
        assert r.meta.episodes[str(shots)]["mean"] == pytest.approx(np.mean(values), abs=1e-4)
        assert r.meta.episodes[str(shots)]["sd"] == pytest.approx(np.std(values, ddof=1), abs=1e-4)
    rows = table.build_sections([r])[0].rows
    assert {row.shots: row.metrics["auroc"].value for row in rows} == pytest.approx({s: r.meta.episodes[str(s)]["mean"] for s in (1, 4)})
    # A record of an earlier version has no single episodes, so their mean and sd stand below the table.
    old = {name: values for name, values in r.arrays.items() if name not in record.optional_arrays(r.arrays)}
    section = table.build_sections([record.Record(r.meta.model_copy(update={"episode_supports": {}}), old)])[0]
    lines = [line for line in render.build_captions([section], {}, {}) if "1-shot" in line and "4-shot" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"{r.identity.encoder}: AUROC of single episodes")  # names the encoder, is not a warning
