"""The sections of the report: present only with their data; numbers checked against scikit-learn or manual computation."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import roc_auc_score

from encoders.runtime.html import VOID_TAGS, tag
from encoders.store.store import Store
from encoders.store.write import save_store
from tests.transfer.report.test_report import EVIL, PATIENTS, Tags, call, drawn, made, pair
from transfer.metrics import choose_on_validation
from transfer.records import record
from transfer.records.record import GROUP_PREFIX, Record
from transfer.report import curves, embedding, label_savings
from transfer.report.page import render_page
from transfer.report.sections import REPORT_SECTIONS, ReportSection
from transfer.tables import labels_needed, render, shift_curves
from transfer.tables.build import build_sections
from transfer.tables.rows import group_sections
from transfer.tables.seed_rows import add_seed_rows

WHO = np.repeat(np.arange(PATIENTS), 2)


def known(one, **columns):
    """The record with group columns of its test patients."""
    return Record(one.meta, {**one.arrays, **{GROUP_PREFIX + name: np.asarray(values)[WHO] for name, values in columns.items()}})


def shifted(one, strength, noise):
    """The record of the same cell on shifted images."""
    meta = one.meta.model_copy(update={"identity": one.identity.model_copy(update={"shift": "noise", "strength": strength})})
    s = one.arrays["test_scores"]
    draw = np.random.default_rng(strength)
    return Record(meta, {**one.arrays, "test_scores": np.clip((1 - noise) * s + noise * draw.random(s.shape), 0, 1)})


def everything():
    """Records for every section of the page that needs no store."""
    sex = np.where(np.arange(PATIENTS) % 2, "F", "M")
    rows = [known(r, sex=sex, site=[EVIL] * PATIENTS) for r in pair()]
    few = [r for d in (0, 1) for r in pair(fraction=0.2, draw=d, seed=d, counts={"train": {"patients": 10, "images": 20}})]
    return [*rows, *few, *(shifted(r, s, s / 6) for r in rows for s in (1, 5))]


class Balance(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.wrong = [], [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        if tag not in VOID_TAGS:
            self.open.append(tag)
        self.ids += [v for k, v in attrs if k == "id"]
        self.links += [v.removeprefix("#") for k, v in attrs if k == "href"]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_every_tag_is_closed_and_every_link_of_the_contents_leads_somewhere():
    page = Balance(drawn(everything()))
    assert not page.open
    assert not page.wrong
    assert len(page.links) > 8
    assert len(set(page.ids)) == len(page.ids)
    assert set(page.links) == set(page.ids)


def test_a_page_with_every_part_is_escaped_names_no_patient_and_fetches_nothing():
    text = drawn(everything())
    assert "<script" not in text
    assert "Doe" not in text
    assert not re.search(r"(src|href|url\()[=\"' ]*(https?:)?//", text)
    assert EVIL in Tags(text).text


@pytest.mark.parametrize("scope", ["task", "page"])
def test_a_section_added_to_the_registry_is_on_the_page_and_in_its_contents(monkeypatch, scope):
    new = ReportSection(
        "Notes of the reader", lambda block, context: tag("p", f"{len(block)} sections, {len(context.records)} records"), scope
    )
    monkeypatch.setitem(REPORT_SECTIONS, "notes", new)
    text = drawn([*pair(), *pair(protocol="knn")])
    assert text.count("Notes of the reader") == 2
    contents, body = text.split("</nav>")
    address = re.search(r'href="#([^"]+)">Notes of the reader', contents).group(1)
    assert f'id="{address}">Notes of the reader' in body
    assert "2 sections, 4 records" in body
    monkeypatch.setitem(REPORT_SECTIONS, "notes", new._replace(build=lambda block, context: None))
    assert "Notes of the reader" not in drawn(pair())


def test_sections_are_on_the_page_in_the_order_of_the_registry():
    titles = re.findall(r"<h[23] id=[^>]*>(.*?)</h", drawn(everything()))
    in_order = [section.title for section in REPORT_SECTIONS.values() if section.title in titles]
    assert [title for title in titles if title in in_order] == in_order
    assert set(titles) <= {"Task lungs", *in_order}
    assert len(in_order) > 8


@pytest.mark.parametrize("part", ["Labels saved", "Label efficiency", "Robustness to acquisition shifts", "Subgroups of test images"])
def test_a_part_is_there_when_its_records_are_and_absent_otherwise(part):
    assert part in Tags(drawn(everything())).text
    assert part not in Tags(drawn(pair())).text


def test_every_chart_says_what_it_is_to_those_who_cannot_see_it():
    text = drawn(everything())
    charts = text.count("<svg") - text.count('aria-hidden="true"')
    assert charts >= 8
    assert len(re.findall(r"<svg[^>]*><title>", text)) == charts
    assert "<title>ROC, linear probe</title><desc>sensitivity from 0 to 1 over 1 − specificity from 0 to 1</desc>" in text


def test_the_groups_shown_are_those_of_scikit_learn_with_their_sizes():
    sex = np.where(np.arange(PATIENTS) % 2, "F", "M")
    one = known(made(), sex=sex)
    y, s, _ = one.part("test")
    text = " ".join(Tags(drawn([one])).text.split())
    for name in ("F", "M"):
        mask = sex[WHO] == name
        area = roc_auc_score(y[mask, 0], s[mask, 0])
        assert f"sex: {name} 25 patients, 50 images {area:.3f} [" in text


def test_reliability_bins_are_those_of_scikit_learn():
    truth, sure = curves.gather_probabilities([made()])
    got = curves.reliability_bins(truth, sure)
    frequency, confidence = calibration_curve(truth, sure, n_bins=10, strategy="quantile")
    np.testing.assert_allclose(got["frequency"], frequency)
    np.testing.assert_allclose(got["confidence"], confidence)


def test_risk_is_the_error_among_the_surest_answers():
    one = made()
    y, s, _ = one.part("test")
    found = curves.pooled_risk_coverage([one])
    cut = choose_on_validation(*one.part("val")[:2], "binary").threshold[0]
    order = np.argsort(-np.abs(s[:, 0] - cut))
    wrong = ((s[:, 0] >= cut) != (y[:, 0] > 0.5))[order]
    np.testing.assert_allclose(found["risk"], np.cumsum(wrong) / np.arange(1, len(wrong) + 1))
    np.testing.assert_allclose(found["coverage"], np.arange(1, len(wrong) + 1) / len(wrong))


def test_labels_saved_are_read_off_straight_over_the_logarithm():
    labeled = np.array([10.0, 100.0, 1000.0])
    area = np.array([[0.6, 0.6, 0.6, 0.6], [0.8, 0.8, 0.8, 0.8], [0.9, 0.9, 0.9, 0.9]])
    goal = np.array([0.7, 0.5, 0.95, np.nan])
    needed = labels_needed.patients_needed(labeled, area, goal)
    np.testing.assert_allclose(needed[:3], [np.sqrt(10 * 100), 10, np.inf])
    assert np.isnan(needed[3])
    assert [labels_needed.format_patients(v, 10, 1000) for v in needed] == ["32", "≤ 10", "> 1000", "unknown"]
    assert [labels_needed.format_patients(v, 10, 1000, minus=20) for v in needed] == ["+12", "≤ -10", "> +980", "unknown"]
    assert labels_needed.needed_interval(np.full(100, np.inf)) == (np.inf, np.inf)


def test_a_line_of_labels_saved_is_the_baselines_curve_at_the_encoders_auroc():
    few = {"train": {"patients": 10, "images": 20}}
    theirs = [made("imagenet_net", "imagenet", 0.1, fraction=0.2, counts=few), made("imagenet_net", "imagenet", 2.0, seed=1)]
    part = build_sections([*theirs, made(skill=0.6)])[0]
    (line,) = label_savings._savings_lines(part, render.shorten_names([part]))
    low, high, mine = (roc_auc_score(*(r.arrays[f"test_{c}"][:, 0] for c in ("y", "scores"))) for r in (*theirs, made(skill=0.6)))
    assert low < mine < high
    want = 10 * 5 ** ((mine - low) / (high - low))
    assert line[5] == f"{want:.0f}"
    assert line[7] == f"{want - 50:+.0f}"


def test_curves_of_shifts_are_drawn_with_the_numbers_of_compare():
    records = everything()
    text = " ".join(Tags(drawn(records)).text.split())
    found = shift_curves.build_shift_curves(records)
    assert len(found) == 2
    for curve in found:
        for point in curve.points:
            assert f"{point.auroc.value:.3f}" in text
    assert "noise, linear probe" in text


def test_shifted_records_alone_still_make_a_page():
    assert "Protocols" in Tags(drawn([shifted(made(), 3, 0.5)])).text


def test_several_seeds_of_a_recipe_make_a_verdict_about_the_recipe():
    seeds = [made(f"mine_{i}", skill=1.5 + i / 10, seed=i, recipe="r" * 16, pretraining_seed=i) for i in range(3)]
    records = [*seeds, made("imagenet_net", "imagenet", 0.1)]
    sections = add_seed_rows(build_sections(records))
    assert "that verdict is about the recipe" in Tags(render_page(records, sections, {})).text
    assert "that verdict is about the recipe" not in Tags(drawn(pair())).text


def test_one_reference_is_said_once_and_several_in_every_row():
    text = " ".join(Tags(drawn(pair())).text.split())
    assert "Differences and verdicts are relative to imagenet_net, on the same test patients." in text
    third = made("other", "encoder", 0.5, seed=2)
    other = Record(third.meta.model_copy(update={"arch": "another"}), third.arrays)
    random = made("random_another", "random", 0.0, seed=3)
    parts = [*pair(), other, Record(random.meta.model_copy(update={"arch": "another"}), random.arrays)]
    text = " ".join(Tags(drawn(parts)).text.split())
    assert "better than imagenet_net" in text
    assert "Differences and verdicts are relative to" not in text


def test_the_size_of_the_training_part_is_that_of_the_largest_fraction():
    few = [made(fraction=0.2, counts={"train": {"patients": 10, "images": 20}}), made()]
    assert build_sections(few)[0].counts["train"]["patients"] == PATIENTS


def test_mixed_hashes_are_visible_wherever_a_table_goes():
    parts = build_sections([*pair(), *pair(protocol_hash="q" * 16)])
    assert len(group_sections(parts)) == 2
    assert "linear was run with 2 different settings or versions (hashes pppppppp, qqqqqqqq)" in render.results_to_markdown(parts, {}, {})
    assert render.mixed_hash_warnings(build_sections(pair())) == []


def test_the_tables_go_to_csv_and_markdown_too(tmp_path):
    for r in pair():
        record.write_record(r)
    done = call("--out", tmp_path / "r.html", "--csv", tmp_path / "t.csv", "--markdown", tmp_path / "t.md")
    assert done.exit_code == 0, done.output
    parts = build_sections(pair())
    value = parts[0].rows[0].metrics["auroc"].value
    assert f"{value:.6f}" in (tmp_path / "t.csv").read_text()
    assert render.format_interval(parts[0].rows[0].metrics["auroc"]) in (tmp_path / "t.md").read_text()


def test_maps_colour_patients_without_names_and_need_the_encoder_that_was_benched(tmp_path, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 255, (2 * PATIENTS, 16, 16, 1), dtype=np.uint8)
    save_store(tmp_path / "s.h5", pixels, patient=made().arrays["test_patient"].tolist(), labels={"sick": np.zeros(2 * PATIENTS)})
    store = Store.open(tmp_path / "s.h5")
    sex = np.where(np.arange(PATIENTS) % 2, "F", "M")
    records = [known(Record(r.meta, {**r.arrays, "test_key": store.column("key")}), sex=sex) for r in pair(store=store.fingerprint)]
    assert "mine is not shown: no encoder called" in " ".join(Tags(drawn(records, store=store)).text.split())
    monkeypatch.setattr(embedding, "embed_rows", lambda one, store, rows: store.unit_images(rows).reshape(len(rows), -1))
    text = drawn(records, store=store)
    assert "Doe-" not in text
    found = Tags(text).text
    for title in ("by label", "by patient", "by sex", "patient 1", "Nearest test images of other patients"):
        assert title in found
    assert "Embedding of the test images" not in Tags(drawn(records)).text
    assert text == drawn(records, store=store)  # seeded


def test_neighbours_are_the_nearest_by_cosine_of_other_patients():
    x = np.random.default_rng(0).normal(size=(30, 5))
    patient = np.repeat(np.arange(10), 3).astype(str)
    got = embedding.find_neighbours(x, patient)
    u = x / np.linalg.norm(x, axis=1, keepdims=True)
    for i in range(30):
        others = [j for j in np.argsort(-u @ u[i]) if patient[j] != patient[i]]
        np.testing.assert_array_equal(got[i], others[: embedding.NEIGHBOURS_SHOWN])
