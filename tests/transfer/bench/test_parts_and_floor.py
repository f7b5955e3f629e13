"""Encoders made of parts and of stages, and the floor `pixels`, in the bench: which rows there are, leaks of parts, and every protocol."""

import shutil

import numpy as np
import pytest

from encoders.features.embed import extract_features
from encoders.runtime.errors import InputError
from encoders.runtime.paths import zoo_dir
from encoders.store.patient_ids import hash_patients
from encoders.store.store import Store
from encoders.zoo import zoo
from encoders.zoo.combine import combine_encoders
from encoders.zoo.zoo import load_encoder
from tests.transfer import toys
from transfer.bench.baselines import encoder_role, load_manifests
from transfer.bench.bench import BenchRequest, plan_bench, run_bench
from transfer.bench.bench_arguments import parse_bench_arguments
from transfer.bench.lazy_features import LazyFeatures
from transfer.bench.slurm_array import list_bench_cells
from transfer.leakage import check
from transfer.tables.build import build_sections
from transfer.tasks import load, task

NET = "random_resnet10t:size=32,channels=1,mean=0.5,std=0.25"
OTHER = "random_mobilenetv3_small_050:size=32"
SMALL = ["linear.steps=5", "fewshot.episodes=4", "mil.epochs=2", "mil.hidden=8"]


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def cohort(tmp_path):
    path = toys.store(tmp_path / "toy.h5", patients=60)
    task.save_task(task.Task(name="sick", store=[str(path)], labels=["sick"], kind="binary", classes=["sick"], modality="cxr"))
    return path


def plan(*encoders, **fields):
    return plan_bench(BenchRequest(**{"encoders": encoders, "overrides": SMALL, "near_duplicates": False, **fields}), lambda text: None)


def run(*encoders, **fields):
    request = BenchRequest(**{"encoders": encoders, "overrides": SMALL, "near_duplicates": False, **fields})
    return run_bench(request, plan_bench(request, lambda text: None), lambda text: None)


def publish(name, store, rows, seed=0, **lineage):
    """A zoo entry `name` with a manifest of pretraining on these rows of the store."""
    encoder = load_encoder(NET.replace(":", f":seed={seed},"))
    manifest = {
        "store_fingerprint": np.array([store.fingerprint]),
        "sha256": check.digests_to_bytes(store.column("sha256")[rows]),
        "phash": store.column("phash")[rows],
        "patient_hash": hash_patients(store.column("patient")[rows], store.dataset),
    }
    card = encoder.card.replace(name=name, method="moco", source=None, modality="cxr", lineage=lineage, canary=None)
    zoo.publish_encoder(name, encoder.model, card, manifest)


# --- the floor


def test_pixels_is_the_last_row_of_every_bench_with_default_baselines(cohort):
    result = run(NET, protocols=["knn", "linear"])
    floor = [r for r in result.records if r.meta.role == "floor"]
    assert [(r.identity.encoder, r.identity.protocol, r.meta.status) for r in floor] == [
        ("pixels", "knn", "ok"),
        ("pixels", "linear", "ok"),
    ]
    assert [section.rows[-1].encoder for section in build_sections(result.records)] == ["pixels", "pixels"]


@pytest.mark.parametrize("fields", [{"baselines": []}, {"baselines": [OTHER]}, {"floor": False}])
def test_pixels_is_left_out_without_default_baselines_or_on_request(cohort, fields):
    assert "pixels" not in [e.name for e in plan(NET, **fields).entries]


def test_the_options_of_the_command_line_reach_the_request():
    options = parse_bench_arguments(["--encoder", NET, "--no-floor", "--diagnose", "batchnorm"])
    assert (options.floor, list(options.diagnose)) == (False, ["batchnorm"])
    assert (options.to_request().floor, list(options.to_request().diagnose)) == (False, ["batchnorm"])
    assert parse_bench_arguments(["--encoder", NET]).to_request().floor


def test_pixels_is_scored_by_no_protocol_that_trains_a_network(cohort):
    planned = plan(NET, protocols=["knn", "finetune"])
    (floor,) = [e for e in planned.entries if e.role == "floor"]
    assert list(planned.protocols_of(floor)) == ["knn"]
    assert len(planned) == sum(len(planned.protocols_of(e)) for e in planned.entries)
    asked = run("pixels", protocols=["finetune"])
    assert [r.meta.status for r in asked.records] == ["failed"]
    assert "pixels has no weights" in asked.records[0].meta.error


def test_pixels_is_an_element_of_a_job_array_except_where_it_cannot_be_scored(cohort):
    elements, _, _ = list_bench_cells([NET], ["sick"], ["knn", "finetune"], None)
    assert [e.protocol for e in elements if e.encoder == "pixels"] == ["knn"]
    elements, _, _ = list_bench_cells([NET], ["sick"], ["knn"], None, floor=False)
    assert "pixels" not in {e.encoder for e in elements}
    assert all("--no-floor" in e.arguments for e in elements)


# --- parts


def test_roles_of_encoders_made_of_parts():
    def role(name):
        return encoder_role(name, zoo.find_encoder(name).card)

    assert role(f"{NET}+{OTHER}") == "random"
    assert role("imagenet_resnet18:size=64+imagenet_resnet18:size=96") == "imagenet"
    assert role(f"imagenet_resnet18+{NET}") == "encoder"
    assert role("imagenet_resnet18+pixels") == "encoder"
    assert role("pixels") == "floor"
    assert role("imagenet_resnet18:stages=2/3") == "imagenet"
    assert role(f"{NET}~statistics={NET.replace(':', ':seed=1,')}") == "diagnosis"


def test_default_baselines_are_those_of_every_part(cohort):
    store = Store.open(cohort)
    publish("mine", store, [0], seed=3)
    entries = {e.name: e.role for e in plan(f"mine+{OTHER}").entries}
    assert entries == {
        f"mine+{OTHER}": "encoder",
        "imagenet_resnet10t:size=32,crop_pct=1.0": "imagenet",
        "random_resnet10t:size=32,channels=1": "random",
        "imagenet_mobilenetv3_small_050:size=32,crop_pct=1.0": "imagenet",
        OTHER: "random",
        "pixels": "floor",
    }


def test_the_joined_encoder_is_compared_with_the_random_weights_of_each_part(cohort):
    publish("mine", Store.open(cohort), [0], seed=3)
    result = run(f"mine+{OTHER}", "mine", protocols=["knn"])
    (section,) = build_sections(result.records)
    row = next(row for row in section.rows if "+" in row.encoder)
    assert {c.reference for c in row.comparisons} >= {"random_resnet10t:size=32,channels=1", OTHER, "pixels"}
    pairs = [{a.encoder, c.reference} for a in section.rows for c in a.comparisons]
    assert {row.encoder, "mine"} in pairs


@pytest.mark.parametrize("stored", [False, True])
def test_a_leak_of_a_part_or_of_its_start_is_a_leak_of_the_whole(cohort, stored):
    store = Store.open(cohort)
    publish("greedy", store, np.arange(len(store)))
    publish("child", store, [0], seed=3, init="greedy")
    name = f"{OTHER}+child"
    if stored:
        combine_encoders([OTHER, "child"], "both")
        shutil.rmtree(zoo_dir() / "child")  # its manifest is stored with the part
        name = "both"
    assert [images.name for images in load_manifests(name)] == ["child", "greedy"]
    with pytest.raises(InputError, match="images between the pretraining of greedy and test"):
        plan(name, baselines=[])


def test_the_bench_reads_the_features_of_parts_from_their_files(cohort):
    loaded = load.load_task(task.read_task("sick"))
    encoder = load_encoder(f"{NET}+{OTHER}")
    rows = np.array([5, 0, 17])
    want = np.concatenate(
        [
            x / np.linalg.norm(x, axis=1, keepdims=True)
            for x in (extract_features(load_encoder(n), loaded.store)[rows] for n in (NET, OTHER))
        ],
        axis=1,
    )
    assert np.array_equal(LazyFeatures(encoder, loaded, 64, 0)()[rows], want)


@pytest.mark.parametrize("name", [f"{NET}+{OTHER}", f"{NET},stages=1/3/pooled", f"{NET}+pixels"])
def test_every_protocol_on_features_scores_parts_and_stages(tmp_path, name):
    path = toys.store(tmp_path / "tiles.h5", patients=60)
    toys.add_slides(path, [f"slide{i // 2}" for i in range(120)])
    task.save_task(task.Task(name="sick", store=[str(path)], labels=["sick"], kind="binary", classes=["sick"], modality="cxr"))
    result = run(name, protocols=["knn", "fewshot", "linear", "mil"], baselines=[])
    assert {r.identity.protocol: (r.meta.status, r.meta.error) for r in result.records} == dict.fromkeys(
        ("knn", "fewshot", "linear", "mil"), ("ok", None)
    )
