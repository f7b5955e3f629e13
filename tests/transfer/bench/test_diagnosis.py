"""`--diagnose batchnorm`: the encoders that are added, their scores, and what the report says about the difference."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from encoders.zoo import backbone, zoo
from encoders.zoo.card import Card, Preprocess
from tests.transfer import toys
from transfer.bench.bench import BenchRequest, plan_bench, run_bench
from transfer.bench.diagnosis import find_start
from transfer.records.looks import gather_looks
from transfer.records.test_usage import count_split_usage
from transfer.report.page import render_page
from transfer.tables.build import build_sections
from transfer.tables.diagnosis_rows import CHANGES, describe_diagnosis, gather_diagnoses
from transfer.tasks import task

SMALL = ["linear.steps=5"]


@pytest.fixture(autouse=True)
def _offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def cohort(tmp_path):
    """A task whose label is right for three of four images, so that no encoder is perfect."""
    noisy = np.where(np.random.default_rng(1).random(400) < 0.25, 1 - np.arange(400) % 2, np.arange(400) % 2).astype(float)
    path = toys.store(tmp_path / "toy.h5", patients=400, each=1, noisy=noisy)
    task.save_task(task.Task(name="noisy", store=[str(path)], labels=["noisy"], kind="binary", classes=["noisy"], modality="cxr"))


def publish(
    name: str,
    seed: int,
    spoil: bool = False,
    arch: str = "resnet10t",
    size: int = 32,
    weights_of: int | None = None,
    preprocess: Preprocess | None = None,
    **lineage,
):
    """An encoder with random weights. spoil: its running statistics let hardly any signal through."""
    model = backbone.build_backbone(arch, channels=3, size=size, seed=seed if weights_of is None else weights_of)
    for key, buffer in model.named_buffers():
        if spoil and key.endswith("running_var"):
            buffer.fill_(1e6)
        if spoil and key.endswith("running_mean"):
            buffer.copy_(torch.linspace(-3, 3, len(buffer)))
    card = Card(name=name, arch=arch, dim=1, preprocess=preprocess or Preprocess(size=size), method="moco", modality="cxr", lineage=lineage)
    zoo.publish_encoder(name, model, card)


def plan(*encoders, lines=None, **fields):
    request = BenchRequest(
        **{"encoders": encoders, "baselines": [], "diagnose": ["batchnorm"], "overrides": SMALL, "near_duplicates": False, **fields}
    )
    return request, plan_bench(request, lambda text: lines.append(text) if lines is not None else None)


def run(*encoders, **fields):
    request, planned = plan(*encoders, **fields)
    return run_bench(request, planned, lambda text: None)


def test_three_encoders_are_added_and_only_on_request(cohort):
    publish("start", 1)
    publish("mine", 2, init="start")
    assert [(e.name, e.role) for e in plan("mine")[1].entries] == [
        ("mine", "encoder"),
        ("start", "encoder"),
        ("mine~statistics=start", "diagnosis"),
        ("mine~weights=start", "diagnosis"),
    ]
    assert [e.name for e in plan("mine", diagnose=[])[1].entries] == ["mine"]
    assert [e.name for e in plan("mine", "start")[1].entries] == ["mine", "start", "mine~statistics=start", "mine~weights=start"]


def test_a_built_in_start_is_that_of_the_baselines(cohort):
    publish("mine", 2, init="imagenet_resnet10t")
    names = [e.name for e in plan("mine", baselines=None)[1].entries]
    start = "imagenet_resnet10t:size=32,crop_pct=1.0"
    assert names.count(start) == 1
    assert f"mine~weights={start}" in names
    assert find_start(zoo.find_encoder("mine").card).name == start


@pytest.mark.parametrize(
    ("lineage", "arch", "says"),
    [
        ({}, "resnet10t", "trained from random weights"),
        ({"init": "random:3"}, "resnet10t", "trained from random weights"),
        ({"init": "gone"}, "resnet10t", "its start gone does not exist here"),
        ({"init": "other"}, "resnet10t", "its start other is another network"),
        ({"init": "vit"}, "vit_tiny_patch16_224", "has no BatchNorm"),
    ],
)
def test_an_encoder_that_cannot_be_diagnosed_is_named_with_the_reason(cohort, lineage, arch, says):
    publish("other", 1, arch="mobilenetv3_small_050")
    publish("vit", 1, arch="vit_tiny_patch16_224")
    publish("mine", 2, arch=arch, **lineage)
    lines = []
    planned = plan("mine", lines=lines)[1]
    assert [e.name for e in planned.entries] == ["mine"]
    assert any(line.startswith("no BatchNorm diagnosis of mine:") and says in line for line in lines)


def test_a_start_of_the_zoo_is_compared_at_the_size_of_the_encoder(cohort):
    publish("start", 1, size=64)
    publish("mine", 2, init="start")
    lines = []
    assert [e.name for e in plan("mine", lines=lines)[1].entries][1:] == [
        "start:size=32",
        "mine~statistics=start:size=32",
        "mine~weights=start:size=32",
    ]
    assert not any("differ" in line for line in lines)


def test_another_preprocessing_of_the_start_is_named(cohort):
    publish("start", 1, preprocess=Preprocess(size=32, resize="pad"))
    publish("mine", 2, init="start")
    lines = []
    plan("mine", lines=lines)
    assert any("mine and its start start differ in resize as well as" in line for line in lines)


def test_differences_are_those_of_the_scores_and_the_report_names_the_cause(cohort):
    """The encoder has its start's weights and spoilt statistics: all of the difference is due to statistics."""
    publish("start", 1)
    publish("mine", 2, spoil=True, weights_of=1, init="start")
    result = run("mine", protocols=["linear"])
    assert [r.meta.error for r in result.failed] == []
    sections = build_sections(result.records)
    lines = gather_diagnoses(sections)
    assert [line.change for line in lines] == list(CHANGES)
    records = {r.identity.encoder: r for r in result.records}
    area = {n: roc_auc_score(r.arrays["test_y"][:, 0], r.arrays["test_scores"][:, 0]) for n, r in records.items()}
    a, b, c, d = (area[n] for n in ("mine", "start", "mine~statistics=start", "mine~weights=start"))
    assert [line.difference.value for line in lines] == pytest.approx([a - b, d - b, c - b, a - c, a - d], abs=1e-9)
    assert c == pytest.approx(b)  # only the statistics differ, so with the start's statistics it is the start
    assert d == pytest.approx(a)
    assert a < b - 0.1
    assert describe_diagnosis(lines) == "the statistics alone lower the AUROC; an effect of the weights alone is not significant"
    intervals = [(d.low, d.value, d.high) for d in (line.difference for line in lines) if abs(d.value) > 1e-9]
    assert len(intervals) == 3  # between encoders of equal scores there is none
    assert all(low < value < high for low, value, high in intervals)
    assert {line.difference.family for line in lines} == {len(CHANGES)}
    page = render_page(result.records, sections, count_split_usage(result.records, gather_looks(result.records)))
    assert "What the difference to the start is made of" in page
    assert "the statistics alone lower the AUROC" in page


def test_the_rows_of_a_diagnosis_add_no_comparison_to_the_table(cohort):
    publish("start", 1)
    publish("mine", 2, spoil=True, init="start")
    with_rows, without = run("mine", "start", protocols=["knn"]), run("mine", "start", protocols=["knn"], diagnose=[])
    families = [
        {(row.encoder, c.reference, c.difference.family) for s in build_sections(r.records) for row in s.rows for c in row.comparisons}
        for r in (with_rows, without)
    ]
    assert families[0] == families[1]
    assert np.isfinite([c for *_, c in families[0]]).all()
    assert gather_diagnoses(build_sections(without.records)) == []
    page = render_page(without.records, build_sections(without.records), {})
    assert "What the difference to the start is made of" not in page
