"""Checklists: every item once, nothing claimed that the files do not state, no patient named."""

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from encoders.runtime.config import json_digest
from encoders.runtime.paths import home_dir, zoo_dir
from encoders.zoo.card import Card
from tests.store_edits import edit_store
from tests.transfer.report.studies import add_task, make_record, make_store
from transfer.cli.main import app
from transfer.records.record import ExternalSource, Record, write_record
from transfer.report.checklist.answers import answer_guideline, answer_item
from transfer.report.checklist.facts import Evidence, gather_facts
from transfer.report.checklist.guidelines import EVIDENCE, GuidelineItem, read_guidelines
from transfer.report.checklist.pages import render_checklist_html, render_checklist_markdown
from transfer.report.embedding import list_colourings
from transfer.tables.build import build_sections
from transfer.tasks.task import SplitRule

SIZES = {"train": 60, "val": 24, "test": 40}
CLAIM, TRIPOD = read_guidelines()
SILENT = [item for g in read_guidelines() for item in g.items if not item.evidence]


def facts_of(*records):
    return gather_facts(records, build_sections(list(records)))


def answers(facts, guideline=CLAIM):
    return {a.item.number: a for a in answer_guideline(guideline, facts)}


def patient_task(**more):
    """Two images per patient, named Doe-train-0, ..."""
    return add_task(make_store(SIZES, each=2), **({"split": SplitRule(column="split")} | more))


def save_card(name, **more):
    card = Card(name=name, arch="resnet18", dim=512, preprocess={"size": 224}, **more)
    folder = zoo_dir() / name
    folder.mkdir(parents=True)
    card.write(folder / "card.yaml")
    return json_digest(card)


def test_claim_has_44_items_and_tripod_ai_27_with_their_letters():
    assert [item.number for item in CLAIM.items] == [str(i) for i in range(1, 45)]
    letters = {3: 3, 5: 2, 6: 3, 8: 3, 9: 3, 12: 7, 18: 6, 20: 3, 23: 2, 27: 3}
    expected = [f"{i}{chr(97 + k)}" if i in letters else f"{i}" for i in range(1, 28) for k in range(letters.get(i, 1))]
    assert [item.number for item in TRIPOD.items] == expected


def test_every_function_is_used_by_an_item():
    assert {name for g in read_guidelines() for item in g.items for name in item.evidence} == set(EVIDENCE)


@pytest.mark.parametrize("item", SILENT, ids=lambda item: item.number)
def test_an_item_without_evidence_is_always_an_open_question(item):
    answer = answer_item("", item, facts_of(make_record(patient_task())))
    assert answer.status == "open"
    assert answer.missing == (item.asks,)
    assert not answer.known


@pytest.mark.parametrize(
    ("evidence", "asks", "status"),
    [
        (Evidence(("a",)), "", "filled"),
        (Evidence(("a",)), "More?", "partly"),
        (Evidence(("a",), ("gap",)), "", "partly"),
        (Evidence((), ("gap",)), "", "open"),
        (Evidence(("a",), related=True), "More?", "open"),
        (Evidence(("a",), related=True), "", "open"),
        (None, "", "open"),
        (None, "More?", "open"),
    ],
)
def test_the_status_of_an_item(monkeypatch, evidence, asks, status):
    monkeypatch.setitem(EVIDENCE, "made_up", lambda facts: evidence)
    item = GuidelineItem(number="1", topic="t", evidence=["made_up"], asks=asks)
    answer = answer_item("", item, facts_of(make_record(patient_task())))
    assert answer.status == status
    assert bool(answer.missing) == (status != "filled")


def test_one_unknown_of_two_makes_an_item_partly(monkeypatch):
    monkeypatch.setitem(EVIDENCE, "known", lambda facts: Evidence(("a",)))
    monkeypatch.setitem(EVIDENCE, "unknown", lambda facts: None)
    item = GuidelineItem(number="1", topic="t", evidence=["known", "unknown"])
    assert answer_item("", item, facts_of(make_record(patient_task()))).status == "partly"


# What the data state


def test_data_and_labels_are_those_of_the_store():
    found = answers(facts_of(make_record(patient_task())))
    assert any("data set breastmnist, 124 images" in line for line in found["7"].known)
    assert any("label column malignant" in line for line in found["14"].known)
    assert found["14"].status == "partly"
    assert any("test 20 patients, 40 images" in line for line in found["35"].known)


def test_a_record_without_its_task_says_what_is_not_known():
    record = make_record(patient_task())
    (home_dir() / "tasks" / "breast.yaml").unlink()
    found = answers(facts_of(record))
    assert any("not registered in this working folder" in gap for gap in found["7"].missing)
    assert found["20"].status == "partly"
    assert not any("data set" in line for line in found["7"].known)


def test_a_task_that_was_changed_since_is_not_evidence():
    record = make_record(patient_task())
    with edit_store(home_dir() / "breastmnist.h5") as file:
        file["labels"]["malignant"][...] = 1 - file["labels"]["malignant"][...]
    assert any("other labels than the records" in gap for gap in answers(facts_of(record))["14"].missing)


def test_disjoint_patients_are_counted_and_filled_only_with_named_patients():
    named = answers(facts_of(make_record(patient_task())))["20"]
    assert named.status == "filled"
    assert any(line.startswith("breast: 0 patients") for line in named.known)
    alone = answers(facts_of(make_record(add_task(make_store(SIZES)))))["20"]
    assert alone.status == "partly"
    assert any("124 of 124 images name no patient" in line for line in alone.known)


def test_a_patient_in_two_parts_and_an_allowed_leak_are_gaps():
    record = make_record(patient_task())
    arrays = dict(record.arrays)
    arrays["val_patient"] = arrays["val_patient"].copy()
    arrays["val_patient"][0] = arrays["test_patient"][0]
    shared = answers(facts_of(replace(record, arrays=arrays)))["20"]
    assert shared.status == "partly"
    assert any("1 patients of breast in two parts" in gap for gap in shared.missing)
    leak = answers(facts_of(replace(record, meta=record.meta.model_copy(update={"leakage": ["3 patients, e.g. Doe-test-1"]}))))["20"]
    assert leak.status == "partly"
    assert any("3 patients" in gap for gap in leak.missing)
    assert not any("Doe" in text for text in (*leak.known, *leak.missing))


def test_a_random_split_is_described_completely_and_a_stored_one_is_not():
    assert answers(facts_of(make_record(patient_task(split=SplitRule(seed=7)))))["19"].status == "filled"
    stored = answers(facts_of(make_record(patient_task())))["19"]
    assert stored.status == "partly"
    assert any("how the source of breast made the stored split" in gap for gap in stored.missing)


def test_unknown_labels_and_unlabeled_images_are_counted():
    path = make_store(SIZES, each=2)
    with edit_store(path) as file:
        file["labels"]["malignant"][:5] = np.nan
    found = answers(facts_of(make_record(add_task(path))))
    assert any("124 images in the store; 5 of them without a usable label (excluded); 119 used in the parts" in s for s in found["8"].known)


def test_subgroups_and_sites_are_named_with_their_numbers():
    facts = facts_of(make_record(patient_task()))
    assert any("sex: F 20, M 20" in line for line in answers(facts)["36"].known)
    assert any("site: north" in line for line in answers(facts, TRIPOD)["6a"].known)


@pytest.mark.parametrize("column", ["patient_name", "site_date", "wardround"])
def test_columns_of_names_and_dates_in_records_of_earlier_versions_are_not_shown(column):
    record = make_record(patient_task())
    n = len(record.arrays["test_key"])
    people = [f"Miller {i % 2}" for i in range(n)] if column == "patient_name" else [f"2021-03-{10 + i % 2}" for i in range(n)]
    arrays = {**record.arrays, f"test_group_{column}": np.array(people)}
    shown = Record(record.meta, arrays)
    facts = facts_of(shown)
    answered = [*answers(facts).values(), *answers(facts, TRIPOD).values()]
    lines = [line for each in answered for line in (*each.known, *each.missing)]
    assert any("sex: F 20, M 20" in line for line in lines)
    assert [line for line in lines if "Miller" in line or "2021-03" in line or f"{column}:" in line or f" {column}" in line] == []
    colourings = list_colourings(shown, np.arange(n))
    assert [title for title, *_ in colourings if column in title] == []
    assert any(title == "by sex" for title, *_ in colourings)


# What the models and results state


def test_an_encoder_without_its_card_is_a_gap_and_with_it_the_origin_is_stated():
    task = patient_task()
    unknown = answers(facts_of(make_record(task)))["24"]
    assert unknown.status == "partly"
    assert any("the card is not available" in gap for gap in unknown.missing)
    digest = save_card("mine", method="moco", lineage={"init": "imagenet_resnet18"}, corpus={"dataset": "ours", "fingerprint": "f" * 64})
    known = answers(facts_of(make_record(task, card=digest)))["24"]
    assert known.status == "filled"
    assert any("method moco" in s and "initialised from imagenet_resnet18" in s and "pretraining data ours" in s for s in known.known)


def test_a_card_that_differs_from_the_benchmarked_one_is_not_used():
    save_card("mine", method="moco")
    answer = answers(facts_of(make_record(patient_task(), card="another")))["24"]
    assert answer.status == "partly"
    assert not any("moco" in line for line in answer.known)


def test_the_settings_of_a_pretraining_are_listed_without_what_is_switched_off():
    config = {"method": {"name": "moco", "temperature": 0.2}, "optim": {"lr": 0.03}, "augment": {"flip": 0.5, "noise": 0.0}, "batch": 256}
    digest = save_card("mine", method="moco", steps=900, config=config)
    (line,) = [s for s in answers(facts_of(make_record(patient_task(), card=digest)))["25"].known if s.startswith("mine")]
    assert "900 steps" in line
    assert "temperature: 0.2" in line
    assert "noise" not in line


def test_software_is_filled_from_all_records():
    a = make_record(task := patient_task())
    b = make_record(task, "imagenet_x", "imagenet", versions={"torch": "2.10"})
    answer = answers(facts_of(a, b))["23"]
    assert answer.status == "filled"
    assert any("torch 2.10, 2.9" in line for line in answer.known)


def test_external_robustness_and_fairness_are_open_until_there_are_such_records():
    record = make_record(patient_task())
    found = answers(facts_of(record))
    assert (found["30"].status, found["33"].status) == ("open", "open")
    shift = record.identity.model_copy(update={"shift": "gamma", "strength": 3})
    source = ExternalSource(task="elsewhere", store="s", labels="l", split="h", label_map={})
    external = record.identity.model_copy(update={"selected_on": source, "partition": "other"})
    more = [replace(record, meta=record.meta.model_copy(update={"identity": i})) for i in (shift, external)]
    found = answers(facts_of(record, *more))
    assert (found["30"].status, found["33"].status) == ("partly", "partly")
    assert any("gamma, strengths 3" in line for line in found["30"].known)
    assert any("breast from elsewhere" in line for line in found["33"].known)


def test_results_with_intervals_are_those_of_the_table():
    record = make_record(add_task(make_store({"train": 60, "val": 60, "test": 300}, each=2)))
    sections = build_sections([record])
    interval = sections[0].rows[0].metrics["auroc"]
    answer = answers(gather_facts([record], sections))["32"]
    assert any(f"AUROC {interval.value:.3f} [{interval.low:.3f}, {interval.high:.3f}]" in line for line in answer.known)


def test_too_few_patients_leave_the_precision_incomplete():
    record = make_record(add_task(make_store({"train": 30, "val": 12, "test": 8}, each=2)))
    answer = answers(facts_of(record))["32"]
    assert answer.status == "partly"
    assert any("interval of mine" in gap for gap in answer.missing)


# The pages


def test_no_patient_and_no_path_is_on_a_page():
    record = make_record(patient_task())
    name = str(record.arrays["test_patient"][0])
    warnings = [f"2 suspected near-duplicates, e.g. {name} = Doe-elsewhere", f"{name} is odd"]
    facts = facts_of(replace(record, meta=record.meta.model_copy(update={"warnings": warnings, "protocol_config": {"note": name}})))
    for text in (render_checklist_html(facts), render_checklist_markdown(facts)):
        assert "near-duplicates" in text
        assert "Doe-" not in text
        assert str(home_dir()) not in text


def test_text_of_files_is_escaped_and_a_table_keeps_its_columns():
    record = make_record(patient_task(), "<b>a|b</b>", versions={"x|y": "<i>"})
    facts = facts_of(record)
    page, table = render_checklist_html(facts), render_checklist_markdown(facts)
    assert "<b>a|b" not in page
    assert "&lt;i&gt;" in page
    rows = [line for line in table.splitlines() if line.startswith("| ") and "---" not in line]
    assert all(line.replace("\\|", "").count("|") == 6 for line in rows)


def test_the_command_writes_both_formats_and_refuses_another():
    task = patient_task()
    write_record(make_record(task))
    for name, start in (("c.html", "<!doctype html>"), ("c.md", "# Reporting checklists")):
        done = CliRunner().invoke(app, ["report", "--out", str(home_dir() / "r.html"), "--checklist", str(home_dir() / name)])
        assert done.exit_code == 0, done.output
        text = (home_dir() / name).read_text()
        assert text.startswith(start)
        assert "CLAIM 2024" in text
        assert "TRIPOD+AI" in text
    done = CliRunner().invoke(app, ["report", "--checklist", "c.pdf"])
    assert done.exit_code != 0
    assert ".html or .md" in str(done.exception or done.output)
