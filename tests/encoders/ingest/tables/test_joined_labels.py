"""Tables reach the store of a folder or of DICOM files: repeated rows, several tables, and every way to join, with counts that add up."""

import csv
import json

import numpy as np
import pytest
import typer.testing
from PIL import Image

from encoders.cli.ingest import ingest_app
from encoders.cli.ingest_formats import add_format_commands
from encoders.ingest.dicom.labels import DicomLabels
from encoders.ingest.dicom.source import DicomSource
from encoders.ingest.folder import FolderSource
from encoders.ingest.shards import ingest
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from tests.encoders.ingest.dicom_files import build_dicom, save_dicom


def make_images(folder, *names):
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 255, (16, 16), dtype=np.uint8)).save(folder / name)
    return folder


def write_lines(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def stored(source, out):
    summary = ingest(source, out)
    return Store.open(out), summary, " | ".join([*source.notes, *summary.notes])


@pytest.fixture
def images(tmp_path):
    return make_images(tmp_path / "src", "a.png", "b.png", "c.png")


RSNA = ["patientId,x,y,width,height,Target", "a,264.0,152.0,213.0,379.0,1", "a,562.0,152.0,256.0,453.0,1", "b,,,,,0", "c,1,2,3,4,1"]


def test_rows_of_boxes_merge_where_they_agree_on_the_columns_used(images, tmp_path):
    table = write_lines(tmp_path / "boxes.csv", *RSNA)
    store, summary, notes = stored(FolderSource(images, table, label=["Target"], size=0), tmp_path / "o.h5")
    assert store.labels("Target").tolist() == [1, 0, 1]
    assert "4 rows for 3 images: repeated rows merged (1 images have several)" in notes
    assert "4 rows selected, 0 of them without a file; 0 images without a row are left out" in notes
    assert summary.exit_code == 0


def test_rows_that_disagree_name_image_column_both_values_and_the_option(images, tmp_path):
    table = write_lines(tmp_path / "t.csv", "file,label", "a,0", "a,1", "b,1", "b,0", "c,1")
    with pytest.raises(
        InputError, match=r"image a.png disagree on column 'label': '0' and '1' \(2 images have such rows\); .*--combine max"
    ):
        FolderSource(images, table)
    with pytest.raises(InputError, match="disagree on column 'age': '50' and '51'"):
        FolderSource(images, write_lines(tmp_path / "t.csv", "file,age,label", "a,50,1", "a,51,1"))


@pytest.mark.parametrize("combine", ["error", "max", "majority"])
def test_an_image_of_two_patients_is_an_error_whatever_is_combined(images, tmp_path, combine):
    table = write_lines(tmp_path / "t.csv", "file,patient,label", "a,p1,1", "a,p2,1", "b,p3,0")
    with pytest.raises(InputError, match="image a.png disagree on column 'patient': 'p1' and 'p2'; an image has one patient"):
        FolderSource(images, table, combine=combine)


@pytest.mark.parametrize(
    ("combine", "cells", "value"),
    [
        ("error", ["1", "1.0", ""], 1),
        ("error", ["", "0"], 0),
        ("error", ["", "NA"], np.nan),
        ("max", ["0", "1", "0"], 1),
        ("max", ["2", "3", "", "1"], 3),
        ("any", ["0", "1", "0"], 1),
        ("any", ["0", "-1", "0"], -1),
        ("any", ["1", "-1"], 1),
        ("mean", ["0", "1", "0", "1"], 0.5),
        ("mean", ["1", "2", ""], 1.5),
        ("majority", ["0", "1", "1"], 1),
        ("majority", ["0", "1", "", "0"], 0),
        ("majority", ["0", "1"], np.nan),
    ],
)
def test_rows_are_combined_as_asked(images, tmp_path, combine, cells, value):
    table = write_lines(tmp_path / "t.csv", "file,label", *(f"a.png,{cell}" for cell in cells), "b.png,0", "c.png,1")
    store, _, _ = stored(FolderSource(images, table, combine=combine, size=0), tmp_path / "o.h5")
    np.testing.assert_array_equal(store.labels("label"), [value, 0, 1])


def test_the_majority_of_words_is_stored_with_its_agreement(images, tmp_path):
    rows = ["a,well", "a,sick", "a,sick", "a,", "b,well", "c,sick", "c,well"]
    source = FolderSource(images, write_lines(tmp_path / "t.csv", "file,label", *rows), combine="majority", size=0)
    store, _, notes = stored(source, tmp_path / "o.h5")
    assert [store.classes("label")[int(v)] if v == v else None for v in store.labels("label")] == ["sick", "well", None]
    np.testing.assert_allclose(store.column("label_agreement"), [2 / 3, 1, 0.5], atol=1e-4)
    assert "combined by majority; images: label 2; 1 ties are unknown" in notes
    assert source.recipe()["combine"] == "majority"


def test_each_reader_has_one_vote_however_many_boxes_they_drew(images, tmp_path):
    """One of three readers drew four boxes of another finding: by rows 2 of 7 are positive, by readers 2 of 3."""
    rows = ["a,R1,1", "a,R2,1", *["a,R3,0"] * 5, "b,R1,0", "c,R1,1"]
    table = write_lines(tmp_path / "t.csv", "image_id,rad_id,finding", *rows)
    store, _, notes = stored(FolderSource(images, table, label=["finding"], combine="majority", size=0), tmp_path / "o.h5")
    assert store.labels("finding").tolist() == [1, 0, 1]
    assert store.column("finding_agreement")[0] == pytest.approx(2 / 3, abs=1e-4)
    assert "one vote per rad_id" in notes
    by_row = FolderSource(images, table, label=["finding"], combine="majority", reader="", size=0)
    assert stored(by_row, tmp_path / "r.h5")[0].labels("finding").tolist() == [0, 0, 1]


@pytest.mark.parametrize("combine", ["max", "mean", "any"])
def test_words_have_no_maximum(images, tmp_path, combine):
    table = write_lines(tmp_path / "t.csv", "file,label", "a,well", "a,sick", "b,well")
    with pytest.raises(InputError, match=rf"--combine {combine} needs .* column 'label' has 'well' \(image a.png\)"):
        FolderSource(images, table, combine=combine)


def test_names_in_two_folders_are_quarantined_with_both_files(tmp_path):
    src = make_images(tmp_path / "src", "a/1.png", "b/1.png", "b/2.png")
    table = write_lines(tmp_path / "t.csv", "file,label", "1.png,1", "2.png,0", "3.png,0", "", "b/1.png,1", ",", ",")
    words = ["folder", str(src), str(tmp_path / "o.h5"), "--labels", str(table), "--size", "0"]
    result = typer.testing.CliRunner().invoke(ingest_app, words)
    assert result.exit_code == 1, result.output
    with (tmp_path / "o.h5.quarantine.csv").open() as file:
        reasons = {row["file"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons["1.png"].startswith("two files are called 1.png: a/1.png, b/1.png")
    assert reasons["3.png"] == "there is no such file"
    assert Store.open(tmp_path / "o.h5").column("key").tolist() == ["b/1.png", "b/2.png"]
    assert "t.csv: 2 empty rows left out" in result.output
    assert "4 rows selected, 2 of them without a file; 1 images without a row are left out" in result.output


def test_a_table_that_matches_nothing_shows_both_sides_and_the_column_that_would_match(images, tmp_path):
    table = write_lines(tmp_path / "t.csv", "file,stem,label", "x/9.png,a,1", "x/8.png,b,0")
    with pytest.raises(InputError, match=r"'x/9.png'.*file 'a.png'.*--file-column: stem \(2 of 2 values are a file\)"):
        FolderSource(images, table)


def test_several_tables_are_joined_on_a_study_and_then_on_images(tmp_path):
    src = make_images(tmp_path / "src", "p10/p1/s100/x1.png", "p10/p1/s100/x2.png", "p10/p2/s200/x3.png", "p10/p3/s300/x4.png")
    records = ["dicom_id,subject_id,study_id,view", "x1,1,100,PA", "x2,1,100,LL", "x3,2,200,AP", "x4,3,300,PA"]
    findings = ["subject_id,study_id,Pneumonia", "1,100,1", "2,200,", "9,900,0"]
    parts = ["dicom_id,study_id,subject_id,split", "x1,100,1,train", "x2,100,1,train", "x3,200,2,test", "x4,300,3,validate"]
    paths = [write_lines(tmp_path / f"{i}.csv", *lines) for i, lines in enumerate((records, findings, parts))]
    for on in ([], ["study_id"], ["subject_id", "study_id"]):
        options = {"on": on, "label": ["Pneumonia"], "columns": {"patient": "subject_id"}, "size": 0}
        store, _, notes = stored(FolderSource(src, paths, **options), tmp_path / f"{len(on)}.h5")
        np.testing.assert_array_equal(store.labels("Pneumonia"), [1, 1, np.nan, np.nan])
        assert store.column("patient").tolist() == ["1", "1", "2", "3"]
        assert store.column("split").tolist() == ["train", "train", "test", "validate"]
        assert store.column("view").tolist() == ["PA", "LL", "AP", "PA"]
        assert "3 of 4 rows have a row; 1 of 3 rows of 1.csv belong to none" in notes


def test_a_table_of_boxes_joins_a_table_of_images(images, tmp_path):
    people = write_lines(tmp_path / "people.csv", "image;patient", "a;p1", "b;p2", "c;p3")
    boxes = write_lines(tmp_path / "boxes.csv", "image,label", "a,1", "a,0", "b,0", "c,1")
    store, _, notes = stored(FolderSource(images, [people, boxes], on=["image"], combine="max", size=0), tmp_path / "o.h5")
    assert store.labels("label").tolist() == [1, 0, 1]
    assert store.column("patient").tolist() == ["p1", "p2", "p3"]
    assert "4 rows for 3 images" in notes


@pytest.mark.parametrize(
    ("right", "on", "message"),
    [
        (["image,label", "x,1"], ["image"], "no row of .* belongs to a row .* 'x' and 'a'"),
        (["picture,label", "a,1"], [], "no column in common; columns: image, patient and picture, label"),
        (["image,label", "a,1"], ["imag"], "did you mean image"),
        (["image,patient,label", "a,p9,1"], ["image"], "contradict each other in column 'patient': 'p1' and 'p9', for image = 'a'"),
    ],
)
def test_tables_that_do_not_belong_together_are_refused(images, tmp_path, right, on, message):
    left = write_lines(tmp_path / "l.csv", "image,patient", "a,p1")
    with pytest.raises(InputError, match=message):
        FolderSource(images, [left, write_lines(tmp_path / "r.csv", *right)], on=on)


@pytest.mark.parametrize(
    ("pattern", "lines", "way"),
    [
        (r"(?P<patient>p\d)/(?P<study>s\d)", ["patient,label", "p1,1", "p2,0"], "patient"),
        (r"(?P<patient>p\d)/(?P<study>s\d)", ["study_id,label", "s1,1", "s2,1", "s3,0"], "study"),
        (None, ["file,label", "Set-1.0/train/p1/s1,1", "Set-1.0/train/p1/s2/,1", "Set-1.0/train/p2/s3,0"], "folder"),
        (None, ["patient,label", "p1,1", "p2,0"], "folder"),
    ],
)
def test_a_row_may_stand_for_all_images_of_a_patient_a_study_or_a_folder(tmp_path, pattern, lines, way):
    src = make_images(tmp_path / "src", "p1/s1/x.png", "p1/s1/y.png", "p1/s2/x.png", "p2/s3/x.png")
    source = FolderSource(src, write_lines(tmp_path / "t.csv", *lines), pattern=pattern, size=0)
    store, _, notes = stored(source, tmp_path / "o.h5")
    assert store.labels("label").tolist() == [1, 1, 1, 0]
    assert f"joined on {way}: {len(lines) - 1} rows selected, 0 of them without an image" in notes


TAGS = {"series": "SeriesInstanceUID", "study": "StudyInstanceUID", "accession": "AccessionNumber", "patient": "PatientID"}


@pytest.fixture
def archive(tmp_path):
    for n, who in enumerate(["ana", "ana", "bo"]):
        tags = {"PatientID": who, "StudyInstanceUID": f"1.5.{who}", "SeriesInstanceUID": f"1.6.{who}", "AccessionNumber": f"A-{who}"}
        pixels = np.random.default_rng(n).integers(0, 4095, (24, 24), dtype=np.uint16)
        save_dicom(build_dicom(pixels, f"1.2.9.{n}", **tags), tmp_path / "archive" / f"{who}_{n}" / f"f{n}.dcm")
    return tmp_path / "archive"


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("SeriesInstanceUID", ["1.6.ana", "1.6.bo"]),
        ("StudyInstanceUID", ["1.5.ana", "1.5.bo"]),
        ("AccessionNumber", ["A-ana", "A-bo"]),
        ("PatientID", ["ana", "bo"]),
    ],
)
def test_dicom_files_take_labels_by_any_identifier(archive, tmp_path, column, values):
    table = write_lines(tmp_path / "t.csv", f"{column},mass", f"{values[0]},1", f"{values[0]},1.0", f"{values[1]},0", "nobody,1")
    store, _, notes = stored(DicomSource(archive, DicomLabels(table, label=["mass"]), size=0), tmp_path / "a.h5")
    assert store.labels("mass").tolist() == [1, 1, 0]
    assert f"labels joined on {column}: 3 of 3 files have a row, 3 of 4 rows have a file" in notes
    assert "3 rows for 3 images: repeated rows merged (2 images have several)" in notes


@pytest.mark.parametrize("front", ["/mnt/old/archive/", "D:\\archive\\", "set-1.0/"])
def test_dicom_files_take_labels_by_paths_of_another_machine(archive, tmp_path, front):
    names = [front + name.replace("/", "\\" if "\\" in front else "/") for name in ("ana_0/f0.dcm", "ana_1/f1.dcm", "bo_2/f2.dcm")]
    table = write_lines(tmp_path / "t.csv", "path,mass", *(f"{name},{k % 2}" for k, name in enumerate(names)))
    store, _, _ = stored(DicomSource(archive, DicomLabels(table, label=["mass"]), size=0), tmp_path / "a.h5")
    assert store.labels("mass").tolist() == [0, 1, 0]


def test_dicom_rows_that_disagree_and_several_tables_on_the_command_line(archive, tmp_path):
    studies = write_lines(tmp_path / "s.csv", "StudyInstanceUID,AccessionNumber", "1.5.ana,A-ana", "1.5.bo,A-bo")
    reads = write_lines(tmp_path / "r.csv", "AccessionNumber;mass", "A-ana;0", "A-ana;1", "A-ana;1", "A-bo;0")
    add_format_commands(app := typer.Typer())
    words = ["dicom", str(archive), str(tmp_path / "a.h5"), "--labels", str(studies), "--labels", str(reads), "--on", "AccessionNumber"]
    words += ["--label-column", "mass", "--size", "0"]
    failed = typer.testing.CliRunner().invoke(app, words)
    assert "disagree on column 'mass': '0' and '1' (2 images have such rows)" in str(failed.exception)
    done = typer.testing.CliRunner().invoke(app, [*words, "--combine", "majority"])
    assert done.exit_code == 0, done.output
    store = Store.open(tmp_path / "a.h5")
    assert store.labels("mass").tolist() == [1, 1, 0]
    np.testing.assert_allclose(store.column("mass_agreement"), [2 / 3, 2 / 3, 1], atol=1e-4)
    assert json.loads(json.dumps(store.attrs["recipe"]))["combine"] == "majority"


def test_dicom_labels_that_match_nothing_show_an_example_of_each_identifier(archive, tmp_path):
    table = write_lines(tmp_path / "t.csv", "SOPInstanceUID,Acc,mass", "9.9,A-ana,1", "9.8,A-bo,0")
    with pytest.raises(
        InputError, match=r"'9.9'.*'ana_0/f0.dcm'; SOPInstanceUID '1.2.9.0'.*PatientID 'ana'.*Acc \(2 of 2 values are a Acc"
    ):
        DicomSource(archive, DicomLabels(table, label=["mass"]))
