"""An encoder beside the encoder that it was initialised from: the table says what differs between their preprocessing."""

import pytest

from encoders.zoo import backbone, publish, zoo
from encoders.zoo.card import Card, Preprocess
from tests.transfer import toys
from transfer.bench.bench import BenchRequest, plan_bench, run_bench
from transfer.bench.start_check import find_ancestors, list_start_differences
from transfer.tasks import task

START = Preprocess(size=224, interpolation="bicubic", crop_pct=0.875, channels=3, mean=(0.5,) * 3, std=(0.25,) * 3)


def card(name, init=None, **changes):
    return Card(name=name, arch="resnet10t", dim=512, preprocess=START.model_copy(update=changes), lineage={"init": init})


@pytest.mark.parametrize(
    ("changes", "want"),
    [
        ({}, None),
        ({"interpolation": "bilinear"}, "interpolation bilinear, was bicubic"),
        ({"crop_pct": 1.0}, "crop_pct 1.0, was 0.875"),
        ({"resize": "pad", "crop_pct": 1.0}, "resize pad, was crop"),
        ({"size": 64}, "size 64, was 224"),
        ({"mean": (0.1, 0.5, 0.5)}, "mean [0.1, 0.5, 0.5], was [0.5, 0.5, 0.5]"),
        ({"std": (0.2,) * 3}, "std [0.2, 0.2, 0.2], was [0.25, 0.25, 0.25]"),
        ({"size": 64, "interpolation": "bilinear"}, "size 64, was 224, interpolation bilinear, was bicubic"),
    ],
)
def test_each_difference_is_named(changes, want):
    start, mine = card("imagenet_resnet10t"), card("mine", "imagenet_resnet10t", **changes)
    sentence = f"mine is compared with imagenet_resnet10t, from which it comes, under different preprocessing: {want}"
    assert list_start_differences(mine, [start], [mine, start]) == ([sentence] if want else [])


def test_the_most_similar_variant_of_the_start_counts():
    start, small = card("imagenet_resnet10t"), card("imagenet_resnet10t:size=64", size=64)
    mine = card("mine", "imagenet_resnet10t", size=64)
    assert list_start_differences(mine, [start], [start, mine, small]) == []
    rough = card("rough", "imagenet_resnet10t", size=64, interpolation="bilinear")
    (sentence,) = list_start_differences(rough, [start], [start, small, rough])
    assert "imagenet_resnet10t:size=64, from which it comes, under different preprocessing: interpolation bilinear, was bicubic" in sentence


def test_a_start_that_is_not_in_the_table_and_an_unrelated_encoder_are_not_compared():
    start, mine, other = card("imagenet_resnet10t"), card("mine", "imagenet_resnet10t", size=64), card("other", size=96)
    assert list_start_differences(mine, [start], [mine, other]) == []
    assert list_start_differences(other, [], [mine, other, start]) == []


def test_a_folded_start_is_the_same_function_as_its_three_channels():
    """`imagenet_vit:channels=1` has the features of `imagenet_vit` on gray images, so mean and std are those of the folded start."""
    folded = card("imagenet_vit:channels=1", channels=1, mean=(0.0,), std=(1.0,))
    mine, colour = card("mine", "imagenet_vit:channels=1", channels=1, mean=(0.0,), std=(1.0,)), card("imagenet_vit")
    assert list_start_differences(mine, [folded], [mine, colour]) == []
    other = card("other", "imagenet_vit:channels=1", channels=1, mean=(0.3,), std=(1.0,))
    assert "mean [0.3], was [0.0]" in list_start_differences(other, [folded], [other, colour])[0]


@pytest.fixture
def published():
    """`first`, `second` that comes from it, and `third` that comes from `second`, in the zoo."""
    for seed, (name, init, changes) in enumerate(
        [("first", None, {}), ("second", "first", {"interpolation": "bilinear"}), ("third", "second", {"interpolation": "bilinear"})]
    ):
        network = backbone.build_backbone("resnet10t", channels=3, size=32, seed=seed)
        publish.publish_encoder(name, network.eval(), card(name, init, size=32, **changes))


def test_the_records_of_a_bench_warn_about_every_ancestor_that_differs(published, tmp_path):
    spec = task.Task(
        name="sick",
        store=[str(toys.store(tmp_path / "toy.h5", patients=40))],
        labels=["sick"],
        kind="binary",
        classes=["sick"],
        modality="cxr",
    )
    task.save_task(spec)
    assert [c.name for c in find_ancestors("third")] == ["second", "first"]
    request = BenchRequest(encoders=("first", "second", "third"), protocols=("knn",), baselines=[])
    result = run_bench(request, plan_bench(request, lambda text: None), lambda text: None)
    warnings = {r.identity.encoder: [w for w in r.meta.warnings if "preprocessing" in w] for r in result.records}
    differs = "is compared with first, from which it comes, under different preprocessing: interpolation bilinear, was bicubic"
    assert warnings["first"] == []
    assert warnings["second"] == [f"second {differs}"]
    assert warnings["third"] == [f"third {differs}"]  # like `second`, unlike `first`


def test_the_imagenet_baseline_of_a_run_has_its_preprocessing():
    start = zoo.find_encoder("imagenet_resnet18").card
    mine = card("mine", "imagenet_resnet18").replace(arch="resnet18", preprocess={**start.preprocess.model_dump(), "size": 64})
    baseline = zoo.find_encoder(zoo.baseline_name("imagenet", mine)).card
    assert list_start_differences(mine, [start], [mine, baseline]) == []
    assert list_start_differences(mine, [start], [mine, start]) != []
