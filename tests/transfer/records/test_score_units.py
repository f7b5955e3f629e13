"""Scores by study or patient, against a loop over units; the same numbers from the command line."""

import csv

import h5py
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir
from tests.store_edits import edit_store
from tests.transfer import toys
from tests.transfer.cli.test_cli import NET, call
from tests.transfer.report.test_report import Tags, made
from transfer.records.ledger import read_ledger
from transfer.records.record import GROUP_PREFIX, Record, find_records, read_record, write_record
from transfer.records.redactor import Redactor
from transfer.records.score_units import ScoreRule, choose_score_rule, combine_record, combine_records
from transfer.tables.build import build_sections


def studied(seed=0, unknown=0.0, **more):
    """A record with two studies of two images for each pair of patients' images; labels differ within some studies."""
    one, draw = made(seed=seed, **more), np.random.default_rng(seed)
    arrays = dict(one.arrays)
    for part in ("val", "test"):
        n = len(arrays[f"{part}_key"])
        arrays[f"{part}_patient"] = np.array([f"{part}-p{i // 4}" for i in range(n)])
        arrays[f"{part}_study"] = np.array([f"study{i // 2 % 2 + 1}" for i in range(n)])  # numbered for each patient, as in CheXpert
        y = arrays[f"{part}_y"].copy()
        if one.meta.kind == "multiclass":
            y[1::2] = y[::2]
        else:
            y[draw.random(y.shape) < unknown] = np.nan
        arrays[f"{part}_y"] = y
        order = draw.permutation(n)
        arrays = {k: v[order] if k.startswith(f"{part}_") else v for k, v in arrays.items()}
    return Record(one.meta, arrays)


def by_loop(record, part, by, combine):
    """key -> (label row, score row, patient) of each unit."""
    a, units = record.arrays, {}
    for i, (key, patient, study) in enumerate(zip(a[f"{part}_key"], a[f"{part}_patient"], a[f"{part}_study"], strict=True)):
        units.setdefault((patient, study) if by == "study" else patient, []).append((key, i))
    out = {}
    for members in units.values():
        rows = [i for _, i in members]
        y = []
        for values in a[f"{part}_y"][rows].T.tolist():
            y.append(1.0 if 1.0 in values else np.nan if np.isnan(values).any() else 0.0)
        s = (np.mean if combine == "mean" else np.max)(a[f"{part}_scores"][rows], axis=0)
        out[str(min(members)[0])] = (y, s, str(a[f"{part}_patient"][rows[0]]))
    return out


@pytest.mark.parametrize("by", ["study", "patient"])
@pytest.mark.parametrize("combine", ["mean", "max"])
def test_units_are_those_of_a_loop_over_images(by, combine):
    record = studied(unknown=0.2, kind="multilabel", classes=("a", "b"))
    got, _ = combine_record(record, ScoreRule(by, combine))
    for part in ("val", "test"):
        want = by_loop(record, part, by, combine)
        assert len(got.arrays[f"{part}_key"]) == len(want) == (50 if by == "study" else 25)
        for i, key in enumerate(got.arrays[f"{part}_key"].tolist()):
            y, s, patient = want[key]
            np.testing.assert_array_equal(got.arrays[f"{part}_y"][i], y)
            np.testing.assert_allclose(got.arrays[f"{part}_scores"][i], s)
            assert got.arrays[f"{part}_patient"][i] == patient
    assert got.meta.scored_by == f"{by}, {combine} over its images"
    assert got.meta.counts["test"] == {"patients": 50, "images": 100, "studies" if by == "study" else "patients": len(want)}


def test_the_table_is_that_of_the_units():
    record = studied(skill=0.5)
    (row,) = build_sections(combine_records([record], ScoreRule("study", "max"))[0])[0].rows
    want = by_loop(record, "test", "study", "max").values()
    assert row.metrics["auroc"].value == pytest.approx(roc_auc_score([y[0] for y, _, _ in want], [s[0] for _, s, _ in want]))


def test_equal_names_of_studies_of_two_patients_are_two_studies_and_images_without_one_stand_alone():
    record = studied()
    assert len(set(record.arrays["test_study"].tolist())) == 2
    study = record.arrays["test_study"].copy().astype("<U12")
    study[:6] = ["", "nan", "N/A", "", "unknown", "None"]
    got, lines = combine_record(Record(record.meta, {**record.arrays, "test_study": study}), ScoreRule("study"))
    kept = {(p, s) for p, s in zip(record.arrays["test_patient"][6:].tolist(), study[6:].tolist(), strict=True)}
    assert len(got.arrays["test_key"]) == 6 + len(kept)
    assert any("6 test images have no study" in line for line in lines)


def test_the_order_of_images_changes_nothing():
    record = studied()
    order = np.random.default_rng(5).permutation(len(record.arrays["test_key"]))
    moved = Record(record.meta, {k: v[order] if k.startswith("test_") else v for k, v in record.arrays.items()})
    for name, values in combine_record(record, ScoreRule("study"))[0].arrays.items():
        if not name.endswith("_image_key"):
            np.testing.assert_array_equal(combine_record(moved, ScoreRule("study"))[0].arrays[name], values)


def test_classes_of_a_study_must_agree_or_have_an_order():
    classes = ("high", "low", "mid")
    record = studied(kind="multiclass", classes=classes)
    agreed, _ = combine_record(record, ScoreRule("study"))
    np.testing.assert_allclose(agreed.arrays["test_scores"].sum(axis=1), 1)
    assert set(agreed.arrays["test_y"].sum(axis=1).tolist()) == {1.0}
    with pytest.raises(InputError, match=r"of 25 patients have images of different classes.*--order"):
        combine_record(record, ScoreRule("patient"))
    graded = Record(record.meta.model_copy(update={"order": ["low", "mid", "high"]}), record.arrays)
    highest, lines = combine_record(graded, ScoreRule("patient"))
    rank = np.array([2, 0, 1])[record.arrays["test_y"].argmax(1)]
    for patient, y in zip(highest.arrays["test_patient"].tolist(), highest.arrays["test_y"], strict=True):
        assert np.array([2, 0, 1])[y.argmax()] == rank[record.arrays["test_patient"] == patient].max()
    assert any("the highest class counts" in line for line in lines)
    with pytest.raises(InputError, match="--combine max is for binary and multi-label tasks"):
        combine_record(record, ScoreRule("study", "max"))


def test_groups_of_a_study_are_their_common_group_or_mixed_and_numbers_their_mean():
    record = studied()
    n = len(record.arrays["test_key"])
    view, age = np.where(np.arange(n) % 3 == 0, "pa", "ap"), np.arange(n, dtype=float)
    age[::7] = np.nan
    got, _ = combine_record(
        Record(record.meta, {**record.arrays, GROUP_PREFIX + "view": view, GROUP_PREFIX + "age": age}), ScoreRule("patient")
    )
    for i, patient in enumerate(got.arrays["test_patient"].tolist()):
        rows = record.arrays["test_patient"] == patient
        kinds = set(view[rows].tolist())
        assert got.groups["view"][i] == (kinds.pop() if len(kinds) == 1 else "mixed")
        assert got.groups["age"][i] == pytest.approx(np.nanmean(age[rows]))


def test_images_are_the_default_and_stay_as_they_are():
    record = studied()
    assert combine_records([record], ScoreRule()) == ([record], [])
    assert choose_score_rule("study", None) == ScoreRule("study", "mean")
    with pytest.raises(InputError, match="--score-by study or patient"):
        choose_score_rule("image", "max")


def test_a_record_without_studies_says_how_to_add_them_and_units_are_never_written():
    with pytest.raises(InputError, match="transfer bench --task lungs"):
        combine_records([made()], ScoreRule("study"))
    assert len(combine_records([made()], ScoreRule("patient"))[0][0].arrays["test_key"]) == 50
    with pytest.raises(RuntimeError, match="never written"):
        write_record(combine_record(studied(), ScoreRule("study"))[0])


def test_the_keys_of_all_images_and_the_studies_stay_withheld():
    record = studied()
    other = sorted(record.arrays["test_key"].tolist())[1]  # not the first image of its study
    got, _ = combine_record(Record(record.meta, {**record.arrays, "test_study": np.array(["ward-7-monday"] * 100)}), ScoreRule("study"))
    assert other not in got.arrays["test_key"].tolist()
    assert Redactor([got])(f"odd image {other} of ward-7-monday") == "odd image (withheld) of (withheld)"


def test_bench_compare_and_report_score_studies_and_older_records_get_theirs(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    where = toys.store(tmp_path / "toy.h5", patients=40, each=4)
    bench = ("bench", "--protocol", "knn", "--encoder", NET, "--baseline", "none", "--device", "cpu")
    call("tasks", "add", "view", where, "--label", "view")  # not in the pixels, so that the area is near 0.5
    call(*bench)
    with pytest.raises(InputError, match="has no studies"):
        call("compare", "--score-by", "study")
    looks = len(read_ledger())
    with edit_store(where) as file:
        names = np.array([f"s{i // 2 % 2}" for i in range(160)], dtype=object)
        file["index"].create_dataset("study", data=names, dtype=h5py.string_dtype())
    assert "1 of 1 results from records" in call(*bench).stderr
    assert len(read_ledger()) == looks
    (path,) = find_records()
    record = read_record(path)
    done = call(*bench, "--score-by", "study", "--combine", "max")
    studies = len({*zip(record.arrays["test_patient"].tolist(), record.arrays["test_study"].tolist(), strict=True)})
    assert f"scored by study, max over its images: {studies} studies from {len(record.arrays['test_key'])} test images" in done.stderr
    want = by_loop(record, "test", "study", "max").values()
    area = roc_auc_score([y[0] for y, _, _ in want], [s[0] for _, s, _ in want])
    by_bench = (records_dir() / "table.csv").read_text()
    line = next(line for line in csv.DictReader(by_bench.splitlines()) if line["status"] == "ok" and "random" in line["encoder"])
    assert float(line["auroc"]) == pytest.approx(area, abs=1e-6)
    call("compare", "--score-by", "study", "--combine", "max", "--operating", "youden")
    assert (records_dir() / "table.csv").read_text() == by_bench
    (operating,) = csv.DictReader((records_dir() / "operating.csv").read_text().splitlines())
    assert operating["scored_by"] == "study, max over its images"
    assert "study, max over its images" in (records_dir() / "decision_curves.csv").read_text()
    by_image = roc_auc_score(record.arrays["test_y"][:, 0], record.arrays["test_scores"][:, 0])
    assert f"{by_image:.3f}" != f"{area:.3f}"
    call("report", "--score-by", "study", "--combine", "max", "--out", tmp_path / "r.html")
    page = " ".join(Tags((tmp_path / "r.html").read_text()).text.split())
    assert f"{area:.3f} [" in page
    assert f"{by_image:.3f} [" not in page
    with pytest.raises(InputError, match="remove --wandb or --score-by study"):
        call("compare", "--score-by", "study", "--wandb")
    assert read_record(path).meta.scored_by == ""
