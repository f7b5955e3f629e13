"""A folder of DICOM files becomes a store with the right pixels, columns and labels, and without identities."""

import csv

import numpy as np
import pytest
from typer.testing import CliRunner

from encoders.ingest.dicom.header import parse_wanted_views, patient_age, pseudonym, read_view, reveals_identity
from encoders.ingest.dicom.labels import DicomLabels
from encoders.ingest.dicom.pixels import parse_window
from encoders.ingest.dicom.source import DicomSource
from encoders.ingest.shards import ingest
from encoders.ingest.source import Unreadable
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from tests.encoders.ingest.dicom_files import build_dicom, mixed_folder, ramp, save_dicom


def ingest_dicom(folder, out, labels=None, **options):
    summary = ingest(DicomSource(folder, labels, **{"size": 0, **options}), out)
    return Store.open(out), summary


def write_table(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_good_files_are_stored_and_broken_ones_are_quarantined_with_a_reason(tmp_path):
    names = mixed_folder(tmp_path / "archive")
    store, summary = ingest_dicom(tmp_path / "archive", tmp_path / "a.h5")
    assert store.column("key").tolist() == names["good"]
    reasons = dict(summary.quarantined)
    assert sorted(reasons) == sorted(names["broken"])
    assert summary.exit_code == 1
    for name, text in {
        "b/native_cut.dcm": "decoded",
        "b/header_cut.dcm": "no pixels",
        "b/jpeg_cut.dcm": "truncated",
        "b/report.dcm": "Basic Text SR",
        "c/flat.dcm": "constant",
        "c/text.dcm": "not a DICOM file",
    }.items():
        assert text in reasons[name], (name, reasons[name])
    with (tmp_path / "a.h5.quarantine.csv").open() as file:
        assert all(row["traceback"] == "" for row in csv.DictReader(file))  # every reason is known


def test_pixels_in_the_store_are_those_of_the_files(tmp_path):
    mixed_folder(tmp_path / "archive")
    store, _ = ingest_dicom(tmp_path / "archive", tmp_path / "a.h5")
    assert store.dtype == np.uint16
    np.testing.assert_allclose(store.to_unit(store.images([0]))[0, ..., 0], ramp() / 4095, atol=1e-5)
    np.testing.assert_allclose(store.to_unit(store.images([1]))[0, ..., 0], ramp()[::-1] / 4095, atol=1e-5)


def test_an_eight_bit_jpeg_and_twelve_bits_share_a_store_and_a_unit(tmp_path):
    mixed_folder(tmp_path / "archive")
    store, _ = ingest_dicom(tmp_path / "archive", tmp_path / "a.h5")
    eight, twelve = store.to_unit(store.images([2])), store.to_unit(store.images([0]))
    assert np.abs(eight - twelve).max() < 0.03


def test_every_row_records_the_processing_of_its_file(tmp_path):
    folder = tmp_path / "archive"
    tags = {"RescaleSlope": 2, "RescaleIntercept": -1000, "WindowCenter": 40, "WindowWidth": 400, "PatientSex": "F", "PatientAge": "034Y"}
    save_dicom(build_dicom(ramp(), BitsStored=12, PhotometricInterpretation="MONOCHROME1", **tags), folder / "1.dcm")
    store, _ = ingest_dicom(folder, tmp_path / "a.h5")
    row = {name: store.column(name)[0] for name in store.columns()}
    assert row["dicom_photometric"] == "MONOCHROME1"
    assert row["dicom_voi"] == "window of the file"
    numbers = [
        row[f"dicom_{k}"] for k in ("window_center", "window_width", "rescale_slope", "rescale_intercept", "inverted", "bits_stored")
    ]
    assert numbers == [40, 400, 2, -1000, 1, 12]
    assert row["dicom_transfer_syntax"] == "Explicit VR Little Endian"
    assert (row["sex"], row["age"]) == ("F", 34)
    assert store.attrs["recipe"]["voi"] == "auto"
    assert "brightest" in store.attrs["unit"]["meaning"]


def test_no_identifying_tag_reaches_the_store_unless_asked_for(tmp_path):
    folder = tmp_path / "archive"
    secret = {
        "PatientID": "MRN-778899",
        "PatientName": "Curie^Marie",
        "PatientBirthDate": "18671107",
        "AccessionNumber": "ACC4711",
        "InstitutionName": "Radium Institute",
        "ReferringPhysicianName": "Becquerel^Henri",
        "StudyInstanceUID": "1.2.840.99.1",
        "StationName": "ROOM9",
    }
    save_dicom(build_dicom(ramp(), "1.2.840.99.7", **secret), folder / "curie_marie" / "1.dcm")
    save_dicom(build_dicom(ramp()[::-1], "1.2.840.99.8", **secret), folder / "x" / "18671107.dcm")
    save_dicom(build_dicom(ramp() // 2, "1.2.840.99.9", **secret), folder / "x" / "scan.dcm")
    ingest_dicom(folder, tmp_path / "a.h5")
    raw = (tmp_path / "a.h5").read_bytes().lower()
    leaks = [*secret.values(), "curie", "marie", "becquerel", "1.2.840.99.7"]
    assert [word for word in leaks if word.lower().encode() in raw] == []
    store, _ = ingest_dicom(folder, tmp_path / "b.h5", keep_tags=["StationName"])
    assert store.column("StationName").tolist() == ["ROOM9"] * 3
    with pytest.raises(InputError, match="did you mean StationName"):
        DicomSource(folder, keep_tags=["StationNam"])


def test_two_workers_write_the_same_bytes_as_one(tmp_path):
    folder = tmp_path / "archive"
    for n in range(30):  # more than one shard
        save_dicom(build_dicom(np.roll(ramp(), n), f"1.2.9.{n}", PatientID=f"P{n // 2}"), folder / f"{n:02d}.dcm")
    labels = DicomLabels(write_table(tmp_path / "l.csv", "file,mass", *(f"{n:02d},{n % 2}" for n in range(30))), label=["mass"])
    ingest(DicomSource(folder, labels, views="UNKNOWN", size=0), tmp_path / "one.h5", workers=1)
    ingest(DicomSource(folder, labels, views="UNKNOWN", size=0), tmp_path / "two.h5", workers=2)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()


def test_keys_are_file_names_or_hashes(tmp_path):
    folder = tmp_path / "archive"
    save_dicom(build_dicom(ramp(), PatientID="P-0042"), folder / "p0042_1.dcm")
    save_dicom(build_dicom(ramp()[::-1], PatientID="P-0042"), folder / "scan.dcm")
    keys = {key: ingest_dicom(folder, tmp_path / f"{key}.h5", key=key)[0].column("key").tolist() for key in ("auto", "file", "hash")}
    assert keys["file"] == ["p0042_1.dcm", "scan.dcm"]
    assert keys["auto"][0].startswith("hidden-")
    assert keys["auto"][1] == "scan.dcm"
    assert all(key.startswith("hidden-") for key in keys["hash"])


def test_patients_are_pseudonyms_that_repeat_and_depend_on_data_set_and_salt(tmp_path):
    mixed_folder(tmp_path / "archive")
    plain, _ = ingest_dicom(tmp_path / "archive", tmp_path / "a.h5", dataset="ward")
    again, _ = ingest_dicom(tmp_path / "archive", tmp_path / "b.h5", dataset="ward")
    other, _ = ingest_dicom(tmp_path / "archive", tmp_path / "c.h5", dataset="clinic")
    salted, _ = ingest_dicom(tmp_path / "archive", tmp_path / "d.h5", dataset="ward", salt="s" * 32)
    who = plain.column("patient").tolist()
    assert who[0] == who[1] != who[2]
    assert who[0] == pseudonym("ward", "ana")
    assert who == again.column("patient").tolist()
    assert not set(who) & {*other.column("patient"), *salted.column("patient")}
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize("text", ["", "ANONYMOUS", "None", "N/A", "Anonymized", "nan"])
def test_an_unknown_patient_is_a_patient_of_their_own(tmp_path, text):
    for n in range(2):
        save_dicom(build_dicom(ramp() // (n + 1), PatientID=text), tmp_path / "archive" / f"{n}.dcm")
    save_dicom(build_dicom(ramp() // 3, PatientID="ana"), tmp_path / "archive" / "2.dcm")
    store, summary = ingest_dicom(tmp_path / "archive", tmp_path / "a.h5", dataset="ward")
    assert store.column("patient").tolist() == ["0.dcm", "1.dcm", pseudonym("ward", "ana")]
    assert any(f"column 'patient': 2 unknown: {text!r} 2 (of 3 images)" in note for note in summary.notes)
    assert summary.patients == 3


def test_spaces_and_decomposed_accents_of_an_identifier_make_no_other_pseudonym(tmp_path):
    write_table(tmp_path / "t.csv", "file,who", "0.dcm,Jose\u0301", "1.dcm,Jos\u00e9")
    for n in range(2):
        save_dicom(build_dicom(ramp() // (n + 1)), tmp_path / "archive" / f"{n}.dcm")
    labels = DicomLabels(tmp_path / "t.csv", join="file", patient="who")
    store, _ = ingest_dicom(tmp_path / "archive", tmp_path / "a.h5", labels, dataset="ward")
    assert set(store.column("patient").tolist()) == {pseudonym("ward", "Jos\u00e9")}


@pytest.mark.parametrize(
    ("tags", "want"),
    [
        ({"ViewPosition": "PA"}, "PA"),
        ({"ViewPosition": "ap"}, "AP"),
        ({"ViewPosition": "LL"}, "LATERAL"),
        ({"ViewPosition": "LATERAL"}, "LATERAL"),
        ({"ViewPosition": "RAO"}, "OBLIQUE"),
        ({"ViewPosition": "LLO"}, "OBLIQUE"),
        ({"ViewPosition": "", "PatientOrientation": ["L", "F"]}, "FRONTAL"),
        ({"PatientOrientation": ["P", "F"]}, "LATERAL"),
        ({"ViewPosition": "XTABLE"}, "OTHER"),
        ({}, "UNKNOWN"),
    ],
)
def test_the_view_is_read_from_the_header(tags, want):
    assert read_view(build_dicom(ramp(), **tags)) == want


def test_a_coded_view_is_read_by_its_meaning():
    from pydicom.dataset import Dataset

    code = Dataset()
    code.CodeMeaning = "postero-anterior"
    assert read_view(build_dicom(ramp(), ViewCodeSequence=[code])) == "PA"


def test_only_wanted_views_are_stored_and_the_others_are_counted(tmp_path):
    names = mixed_folder(tmp_path / "archive")
    source = DicomSource(tmp_path / "archive", views="PA,AP", size=0)
    summary = ingest(source, tmp_path / "a.h5")
    assert Store.open(tmp_path / "a.h5").column("view").tolist() == ["PA", "AP"]
    assert any("1 LATERAL" in note for note in source.notes)
    assert {"c/text.dcm", "b/header_cut.dcm"} <= {name for name, _ in summary.quarantined} <= set(names["broken"])
    assert parse_wanted_views("frontal") == {"FRONTAL", "PA", "AP"}
    with pytest.raises(InputError, match="LATERAL"):
        parse_wanted_views("LATERALL")


@pytest.mark.parametrize("join", ["file", "stem", "uid", "patient"])
def test_labels_are_joined_on_whatever_the_column_holds(tmp_path, join):
    folder = tmp_path / "archive"
    for n, who in enumerate(["ana", "ana", "bo"]):
        save_dicom(build_dicom(np.roll(ramp(), n), f"1.2.9.{n}", PatientID=who), folder / f"f{n}.dcm")
    values = {"file": ["f0.dcm", "f2.dcm"], "stem": ["f0", "f2"], "uid": ["1.2.9.0", "1.2.9.2"], "patient": ["ana", "bo"]}[join]
    path = write_table(tmp_path / "labels.csv", "which,mass,split", f"{values[0]},1,train", f"{values[1]},0,test", "nobody,1,train")
    source = DicomSource(folder, DicomLabels(path, join="which", label=["mass"]), size=0)
    ingest(source, tmp_path / "a.h5")
    store = Store.open(tmp_path / "a.h5")
    np.testing.assert_array_equal(store.labels("mass"), [1, 1 if join == "patient" else np.nan, 0])
    assert store.column("split").tolist() == ["train", "train" if join == "patient" else "", "test"]
    assert any("2 of 3 rows have a file" in note for note in source.notes)


def test_a_csv_that_matches_no_file_raises(tmp_path):
    mixed_folder(tmp_path / "archive")
    path = write_table(tmp_path / "labels.csv", "SOPInstanceUID,mass", "9.9.9,1")
    with pytest.raises(InputError, match="--join-column"):
        DicomSource(tmp_path / "archive", DicomLabels(path))


def test_a_patient_column_of_the_csv_is_hashed_too(tmp_path):
    save_dicom(build_dicom(ramp(), PatientID="acquisition-7"), tmp_path / "archive" / "f.dcm")
    path = write_table(tmp_path / "labels.csv", "file,patient,label", "f.dcm,ana,1")
    store, _ = ingest_dicom(tmp_path / "archive", tmp_path / "a.h5", DicomLabels(path, patient="patient"), dataset="ward")
    assert store.column("patient").tolist() == [pseudonym("ward", "ana")]


def test_a_window_by_name_reaches_the_store(tmp_path):
    values = ramp(np.int16, -1100, 400)
    save_dicom(build_dicom(values, Modality="CT", RescaleSlope=1, RescaleIntercept=0), tmp_path / "ct" / "1.dcm")
    save_dicom(build_dicom(values, Modality="CR"), tmp_path / "ct" / "2.dcm")
    store, summary = ingest_dicom(tmp_path / "ct", tmp_path / "a.h5", window=parse_window("lung"))
    assert store.attrs["recipe"]["window"] == {"center": -600.0, "width": 1500.0, "name": "lung"}
    np.testing.assert_allclose(store.to_unit(store.images([0]))[0, ..., 0], np.clip((values + 600.5) / 1499 + 0.5, 0, 1), atol=1e-4)
    assert [name for name, _ in summary.quarantined] == ["2.dcm"]


def test_borders_are_cropped_on_request_and_recorded(tmp_path):
    pixels = np.zeros((60, 50), np.uint16)
    pixels[10:50, 5:45] = ramp(shape=(40, 40), low=500)
    save_dicom(build_dicom(pixels, BitsStored=12), tmp_path / "archive" / "1.dcm")
    kept, _ = ingest_dicom(tmp_path / "archive", tmp_path / "a.h5")
    cut, _ = ingest_dicom(tmp_path / "archive", tmp_path / "b.h5", crop_borders=True)
    assert (kept.shape, cut.shape) == ((60, 50, 1), (40, 40, 1))
    assert (cut.column("dicom_cropped_rows")[0], cut.column("dicom_cropped_columns")[0]) == (20, 10)
    np.testing.assert_array_equal(cut.image(0), kept.image(0)[10:50, 5:45])
    assert cut.attrs["geometry"]["borders"] == "cropped"


def test_a_file_without_the_marker_is_read_when_it_begins_like_dicom(tmp_path):
    path = save_dicom(build_dicom(ramp(), BitsStored=12), tmp_path / "archive" / "1.dcm")
    path.write_bytes(path.read_bytes()[132:])
    store, _ = ingest_dicom(tmp_path / "archive", tmp_path / "a.h5")
    np.testing.assert_allclose(store.to_unit(store.images([0]))[0, ..., 0], ramp() / 4095, atol=1e-5)


@pytest.mark.parametrize(("text", "years"), [("034Y", 34), ("018M", 1.5), ("62", 62), ("101Y", 90), ("", None), ("old", None)])
def test_ages_are_years_and_stop_at_ninety(text, years):
    assert patient_age(build_dicom(ramp(), PatientAge=text)) == years


def test_values_that_violate_the_standard_cause_no_warning(tmp_path, recwarn):
    """RSNA writes ages as "62"; pydicom would warn for each of a hundred thousand files."""
    save_dicom(build_dicom(ramp(), PatientAge="62", BodyPartExamined="chest, the"), tmp_path / "archive" / "1.dcm")
    store, _ = ingest_dicom(tmp_path / "archive", tmp_path / "a.h5")
    assert store.column("age").tolist() == [62]
    assert not list(recwarn)


def test_a_short_identifier_does_not_hide_every_file_name():
    assert not reveals_identity("a/1.dcm", build_dicom(ramp(), PatientID="1"))
    assert reveals_identity("a/Curie_M/1.dcm", build_dicom(ramp(), PatientName="Curie^M"))


def test_the_command_prints_a_summary_and_fails_on_a_wrong_window(tmp_path, monkeypatch):
    from encoders.cli.main import app

    mixed_folder(tmp_path / "archive")
    result = CliRunner().invoke(
        app, ["ingest", "dicom", str(tmp_path / "archive"), str(tmp_path / "a.h5"), "--size", "32", "--view", "PA,LATERAL"]
    )
    assert result.exit_code == 1, result.output
    for words in (
        "1 files skipped: .txt",
        "files left out: 2 AP, 2 UNKNOWN",
        "2 images of 1 patients, 32 x 32 x 1 uint16",
        "3 quarantined",
        "pseudonymous",
    ):
        assert words in result.output, result.output
    failed = CliRunner().invoke(app, ["ingest", "dicom", str(tmp_path / "archive"), str(tmp_path / "b.h5"), "--window", "lungs"])
    assert isinstance(failed.exception, InputError)
    assert "did you mean lung" in str(failed.exception)
    assert not (tmp_path / "b.h5").exists()


def test_images_that_use_little_of_the_range_cause_a_warning(tmp_path):
    """A CT of 16 bits without a window: its 2,000 Hounsfield units are 3 % of what the bits allow."""
    from encoders.cli.main import app

    save_dicom(build_dicom(ramp(np.int16, -1000, 1000), Modality="CT"), tmp_path / "ct" / "1.dcm")
    result = CliRunner().invoke(app, ["ingest", "dicom", str(tmp_path / "ct"), str(tmp_path / "a.h5"), "--modality", "ct"])
    assert "1 images use less than 10% of the range" in result.output
    result = CliRunner().invoke(app, ["ingest", "dicom", str(tmp_path / "ct"), str(tmp_path / "b.h5"), "--window", "0,2000"])
    assert "of the range" not in result.output
    assert result.exit_code == 0


def test_dicom_and_eight_bit_arrays_open_as_one_store(tmp_path):
    """Stores of different bit depth that are opened as one give values with the same unit."""
    import h5py

    from encoders.ingest.hdf5 import Hdf5Source

    save_dicom(build_dicom(ramp(np.uint8, 0, 255)), tmp_path / "archive" / "1.dcm")
    ingest_dicom(tmp_path / "archive", tmp_path / "deep.h5")
    with h5py.File(tmp_path / "array.h5", "w") as file:
        file["images"] = ramp(np.uint8, 0, 255)[None]
    ingest(Hdf5Source([tmp_path / "array.h5"], "images", modality="cxr"), tmp_path / "shallow.h5")
    both = Store.open([tmp_path / "deep.h5", tmp_path / "shallow.h5"])
    values = both.unit_images([0, 1])
    np.testing.assert_allclose(values[0], values[1], atol=1e-6)


@pytest.mark.real
def test_the_three_real_files_make_one_store(tmp_path, data_dir):
    store, summary = ingest_dicom(data_dir / "dicom_cxr", tmp_path / "a.h5", size=128)
    quarantined = {name for name, _ in summary.quarantined}
    assert quarantined == set()  # PROVENANCE.md is skipped
    keys = store.column("key").tolist()
    assert len(keys) == 3
    one, two = (store.image(next(i for i, k in enumerate(keys) if k.startswith(start))) for start in ("1.2.276", "Fake"))
    assert (
        np.abs(one.astype(int) + two.astype(int) - 65535).max() <= 1
    )  # the same numbers with the opposite photometric interpretation: negatives
    assert store.column("view").tolist() == ["PA"] * 3
    assert len(set(store.column("patient"))) == 2


def test_a_file_that_ends_within_a_value_of_its_header_is_quarantined(tmp_path):
    save_dicom(build_dicom(ramp()), tmp_path / "whole.dcm")
    whole = (tmp_path / "whole.dcm").read_bytes()
    for end in (133, 142, 143, 160, len(whole) // 3):
        (tmp_path / "cut.dcm").write_bytes(whole[:end])
        source = DicomSource(tmp_path)
        with pytest.raises(Unreadable):
            source.read(next(item for item in source.items() if item.name == "cut.dcm"))
