"""Published results: shown only for the official split, each with a source, and never in a comparison."""

import csv
import io
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from encoders.runtime.config import validate_config
from encoders.runtime.errors import InputError
from encoders.runtime.paths import home_dir
from encoders.store.store import Store
from tests.store_edits import edit_store
from tests.transfer.report.studies import add_task, make_record, make_store
from transfer.cli.main import app
from transfer.records.record import ExternalSource, write_record
from transfer.report.published.sets import PublishedSet, read_published_sets
from transfer.report.published.tables import PUBLISHED_MARK, find_published_results, published_to_csv
from transfer.tables import result_csv
from transfer.tables.build import build_sections
from transfer.tasks.recipes import RECIPES
from transfer.tasks.task import SplitRule

BREAST = {"train": 546, "val": 78, "test": 156}
SMALL = {"train": 40, "val": 12, "test": 24}
TOY = PublishedSet(
    title="Toy",
    datasets=["toyset"],
    labels=["Sick Lung"],
    development=52,
    test=24,
    split="the file's test part",
    sources={"a": {"citation": "Doe 2024", "table": "Table 1", "address": "https://example.org", "protocol": "linear"}},
    results=[
        {"method": "Net", "pretraining": "none", "source": "a", "training": "linear probe", "input": "28 px", "metrics": {"auroc": 0.91}}
    ],
)


def toy_task(sizes=None, dataset="toyset", label="sick_lung", **more):
    return add_task(make_store(sizes or SMALL, label, dataset), "toy", label, **more)


def found(*records, sets=(TOY,)):
    (block,) = find_published_results(build_sections(list(records)), sets)
    return block


def test_results_are_shown_for_the_official_split():
    block = found(make_record(toy_task()))
    assert block.known == TOY
    assert block.task == "toy"


def test_the_shipped_results_of_breastmnist_are_shown_for_a_store_of_its_sizes():
    task = add_task(make_store(BREAST))
    block = found(make_record(task), sets=None)
    assert block.known.title == "BreastMNIST"


@pytest.mark.parametrize("part", ["train", "val", "test"])
def test_one_image_less_in_any_part_is_another_split(part):
    block = found(make_record(toy_task({**SMALL, part: SMALL[part] - 1})))
    assert block.known is None
    assert "officially has 52 and 24" in block.reason


def test_an_unknown_data_set_is_not_mentioned():
    assert not find_published_results(build_sections([make_record(toy_task(dataset="ours"))]), [TOY])


def test_a_task_that_is_not_registered_is_not_mentioned():
    record = make_record(toy_task())
    (home_dir() / "tasks" / "toy.yaml").unlink()
    assert not find_published_results(build_sections([record]), [TOY])


def test_a_random_split_is_not_official():
    block = found(make_record(toy_task(split=SplitRule())))
    assert block.known is None
    assert "at random" in block.reason


def test_validation_and_test_part_may_not_be_exchanged_even_if_they_have_equal_sizes():
    equal = {"train": 28, "val": 24, "test": 24}
    assert found(make_record(toy_task(equal))).known == TOY
    swapped = found(make_record(toy_task(equal, split=SplitRule(column="split", names={"val": "test", "test": "val"}))))
    assert swapped.known is None
    assert "is val of the source" in swapped.reason


def test_other_labels_are_not_the_published_task():
    block = found(make_record(toy_task(label="cough")))
    assert block.known is None
    assert "other labels: Sick Lung" in block.reason


def test_labels_that_changed_since_the_records_are_noticed():
    record = make_record(toy_task())
    with edit_store(home_dir() / "toyset.h5") as file:
        values = file["labels"]["sick_lung"]
        values[...] = 1 - values[...]
    block = found(record)
    assert block.known is None
    assert "other labels than the records" in block.reason


def test_a_record_of_other_images_is_noticed():
    record = make_record(toy_task())
    other = replace(record, meta=record.meta.model_copy(update={"identity": record.identity.model_copy(update={"store": "other"})}))
    assert "other images" in found(other).reason


@pytest.mark.parametrize("drop", [1, 5])
def test_a_record_without_all_official_test_images_is_noticed(drop):
    record = make_record(toy_task())
    arrays = {k: v[drop:] if k.startswith("test") else v for k, v in record.arrays.items()}
    block = found(replace(record, arrays=arrays))
    assert block.known is None
    assert f"{24 - drop} images were scored" in block.reason


def test_as_many_images_as_the_official_ones_must_be_the_official_ones():
    record = make_record(toy_task())
    store = Store.open(home_dir() / "toyset.h5")
    like = np.flatnonzero(store.labels("sick_lung")[: SMALL["train"]] == record.arrays["test_y"][0, 0])[0]
    key = record.arrays["test_key"].copy()
    key[0] = store.column("key")[like]
    block = found(replace(record, arrays={**record.arrays, "test_key": key}))
    assert block.known is None
    assert "not exactly the 24 official test images" in block.reason


def test_labels_of_a_csv_file_are_not_those_of_the_data_set():
    path = make_store(SMALL, "sick_lung", "toyset")
    store = Store.open(path)
    rows = zip(store.column("key"), store.labels("sick_lung"), strict=True)
    (home_dir() / "labels.csv").write_text("key,sick_lung\n" + "".join(f"{k},{v:g}\n" for k, v in rows))
    block = found(make_record(add_task(path, "toy", "sick_lung", csv="labels.csv")))
    assert block.known is None
    assert "CSV file" in block.reason


def test_every_split_of_a_block_is_checked():
    """A second record with fewer test images hides behind a good one."""
    good = make_record(toy_task())
    meta = good.meta.model_copy(update={"identity": good.identity.model_copy(update={"split": "other", "encoder": "zz", "fraction": 0.5})})
    bad = replace(good, meta=meta, arrays={k: v[3:] if k.startswith("test") else v for k, v in good.arrays.items()})
    assert found(good, bad).known is None


def test_cross_validation_and_external_training_are_not_official():
    record = make_record(toy_task())
    source = ExternalSource(task="other", store="s", labels="l", split="h", label_map={})
    for field, value, words in (("folds", 5, "cross-validation"), ("selected_on", source, "trained on another data set")):
        changed = record.meta.model_copy(update={"identity": record.identity.model_copy(update={field: value})})
        block = found(replace(record, meta=changed))
        assert block.known is None
        assert words in block.reason


def test_published_numbers_change_no_table_and_no_verdict():
    task = toy_task()
    sections = build_sections([make_record(task, skill=2.0), make_record(task, "imagenet_x", "imagenet", 0.1)])
    before = result_csv.results_to_csv(sections, {}, {})
    find_published_results(sections, [TOY])
    assert result_csv.results_to_csv(sections, {}, {}) == before
    assert PUBLISHED_MARK not in before


def test_compare_prints_them_below_the_table_and_writes_them_with_their_sources():
    task = add_task(make_store(BREAST))
    write_record(make_record(task))
    done = CliRunner().invoke(app, ["compare"], env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    assert done.output.index("task breast") < done.output.index(PUBLISHED_MARK)
    assert "MedMNIST" in done.output
    rows = list(csv.DictReader(io.StringIO((home_dir() / "records" / "published.csv").read_text())))
    assert len(rows) == len(next(s for s in read_published_sets() if s.title == "BreastMNIST").results)
    assert all(row["source"] and row["table"] and row["protocol"] and row["origin"] == PUBLISHED_MARK for row in rows)


def test_the_report_shows_them_beside_ones_own_rows():
    task = add_task(make_store(BREAST))
    write_record(make_record(task))
    out = home_dir() / "report.html"
    done = CliRunner().invoke(app, ["report", "--out", str(out)])
    assert done.exit_code == 0, done.output
    part = out.read_text().split("Published results, not rerun", 2)[2].split("<h3", 1)[0]
    assert part.index("this benchmark") < part.index(PUBLISHED_MARK)
    assert "DenseNet-121" in part
    assert "arXiv:2404.15786" in part


def test_csv_has_an_empty_cell_where_the_source_has_no_number():
    (row,) = csv.DictReader(io.StringIO(published_to_csv([found(make_record(toy_task()))])))
    assert (row["auroc"], row["accuracy"], row["auroc_sd"]) == ("0.91", "", "")


# The shipped files


@pytest.mark.parametrize("known", read_published_sets(), ids=lambda s: s.title)
def test_a_shipped_file_agrees_with_the_recipe_of_its_data_set(known):
    counts = [c for recipe in RECIPES.values() for name, c in recipe.counts.items() if name in known.datasets]
    for c in counts:
        assert c["test"] == known.test
        assert c["train"] + c["val"] == known.development
    assert len(counts) == (1 if known.title.endswith("MNIST") else 0)
    assert {row.source for row in known.results} == set(known.sources), "a source without a result"
    assert len(set(known.datasets)) == len(known.datasets)


def test_recipe_and_published_labels_are_the_same_task():
    by_name = {name: s for s in read_published_sets() for name in s.datasets}
    for recipe, dataset in (("nih_chestxray14", "nih"), ("chexpert", "chexpert"), ("pcam", "pcam")):
        assert sorted(RECIPES[recipe].labels) == sorted(by_name[dataset].labels)
    assert by_name["nih"].test == RECIPES["nih_chestxray14"].counts["*"]["test"]


def test_no_data_set_is_in_two_files():
    names = [name for s in read_published_sets() for name in s.datasets]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": "b"}, "no source called 'b'"),
        ({"metrics": {"auroc": 91.0}}, "fraction of 1"),
        ({"metrics": {}}, "at least one metric"),
        ({"sd": {"accuracy": 0.1}}, "standard deviation without its metric"),
        ({"per_label": {"Cough": 0.8}}, "label that the data set lacks"),
    ],
)
def test_a_malformed_result_is_refused(change, words):
    content = TOY.model_dump(mode="json")
    content["results"][0] |= change
    with pytest.raises(InputError, match=words):
        validate_config(PublishedSet, content, "toy.yaml")


@pytest.mark.parametrize(("row", "shown"), [(0, True), (SMALL["train"] + SMALL["val"], False)], ids=["train", "test"])
def test_an_unlabeled_image_matters_only_in_the_test_part(row, shown):
    path = make_store(SMALL, "sick_lung", "toyset")
    with edit_store(path) as file:
        file["labels"]["sick_lung"][row] = np.nan
    block = found(make_record(add_task(path, "toy", "sick_lung")))
    assert (block.known == TOY) == shown
    assert shown or "23 images were scored" in block.reason
