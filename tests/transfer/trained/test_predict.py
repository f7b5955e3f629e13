"""Predicting: a store and its files give the same table, no image is lost, and the table equals what the benchmark measures."""

import shutil
import stat
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics

from encoders.ingest.dicom.source import DicomSource
from encoders.ingest.shards import ingest
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.zoo import zoo
from tests.encoders.ingest.dicom_files import build_dicom, save_dicom
from tests.transfer import toys
from tests.transfer.cli.test_cli import call
from tests.transfer.trained.cases import QUICK, START, add_task, ingest_folder, png_folder, read_table, toy_task, train
from transfer.records.record import find_records, read_record
from transfer.tasks.load import load_task
from transfer.tasks.task import read_task
from transfer.trained import image_files
from transfer.trained.predict import iterate_predictions, load_trained_model, open_prediction_input
from transfer.trained.prediction_table import write_predictions


def predict(out, *paths, model="trained", workers=0):
    """The rows of the predictions of a store, a folder or files."""
    trained = load_trained_model(model)
    summary = write_predictions(iterate_predictions(trained, open_prediction_input(paths, trained), workers), trained.head, out)
    return read_table(out), summary


@pytest.mark.parametrize(
    ("files", "options"),
    [
        ({}, {}),
        ({"colour": True}, {"codec": "jpeg", "modality": "histology"}),
        ({"colour": True}, {"channels": 1, "resize": "crop"}),
        ({"deep": True}, {"resize": "squash"}),
        ({"deep": True}, {"bits": 16, "size": 40}),
    ],
)
def test_the_files_of_a_store_have_the_predictions_of_the_store(tmp_path, files, options):
    folder = png_folder(tmp_path / "files", patients=12, **files)
    add_task(ingest_folder(folder, tmp_path / "files.h5", **options))
    channels = Store.open(tmp_path / "files.h5").channels
    train(encoder=f"random_test_resnet:size=32,channels={channels}")
    rows, summary = predict(tmp_path / "store.csv", tmp_path / "files.h5")
    assert (summary.images, summary.trained_on, len(summary.problems)) == (24, 20, 0)
    assert predict(tmp_path / "folder.csv", folder)[1].trained_on == 20  # the hashes of the pixels are those of the store
    assert (tmp_path / "folder.csv").read_bytes() == (tmp_path / "store.csv").read_bytes()
    some = [folder / "03-1.png", folder / "00-0.png"]
    chosen = predict(tmp_path / "some.csv", *some)[0]
    assert [row["key"] for row in chosen] == [str(path) for path in some]
    by_key = {row["key"]: row for row in rows}
    for row in chosen:
        assert float(row["probability_sick"]) == pytest.approx(float(by_key[Path(row["key"]).name]["probability_sick"]), abs=1e-6)


def test_dicom_files_have_the_predictions_of_their_store(tmp_path):
    draw, folder = np.random.default_rng(0), tmp_path / "dicom"
    for i in range(24):
        pixels = np.clip(draw.normal(2000, 300, (40, 48)) + 800 * (i % 2) * np.sin(np.arange(48) * np.pi / 2), 0, 4095).astype(np.uint16)
        save_dicom(build_dicom(pixels, uid=f"1.2.{i}", PatientID=f"p{i}"), folder / f"{i:02d}")  # without a suffix
    (tmp_path / "labels.csv").write_text("\n".join(["file,sick", *(f"{i:02d},{i % 2}" for i in range(24))]) + "\n")
    ingest(DicomSource(folder, size=32, voi="none", crop_borders=True, key="file"), tmp_path / "dicom.h5")
    add_task(tmp_path / "dicom.h5", csv=[str(tmp_path / "labels.csv")])
    train()
    (form,) = load_trained_model("trained").head.images
    assert (form.command, form.voi, form.crop_borders, form.dtype) == ("ingest dicom", "none", True, "uint16")
    predict(tmp_path / "store.csv", tmp_path / "dicom.h5")
    predict(tmp_path / "folder.csv", folder)
    assert (tmp_path / "folder.csv").read_bytes() == (tmp_path / "store.csv").read_bytes()


def test_the_table_gives_the_auroc_that_the_benchmark_of_the_same_training_measured(tmp_path):
    store = toy_task(tmp_path)
    train()
    rows, _ = predict(tmp_path / "p.csv", store)
    words = ("--baseline", "none", "--no-floor", "--device", "cpu", "--no-near")
    call("bench", "--encoder", START, "--task", "sick", "--protocol", "finetune", *words, *QUICK)
    (path,) = find_records(())
    arrays = read_record(path).arrays
    loaded = load_task(read_task("sick"))
    test = loaded.split.rows("test")
    p = {row["key"]: float(row["probability_sick"]) for row in rows}
    own = [p[key] for key in loaded.key[test].tolist()]
    truth, scores = arrays["test_y"][:, 0], arrays["test_scores"][:, 0]
    assert sklearn.metrics.roc_auc_score(loaded.y[test, 0], own) == pytest.approx(sklearn.metrics.roc_auc_score(truth, scores), abs=1e-12)


@pytest.mark.parametrize(("label", "decisions"), [("grade", ["decision"]), (("sick", "rare"), ["decision_sick", "decision_rare"])])
def test_classes_and_labels_have_a_column_each(tmp_path, label, decisions):
    store = toy_task(tmp_path, label, "task")
    head = train(task="task").card.head
    rows, summary = predict(tmp_path / "p.csv", store)
    columns = [f"probability_{name}" for name in head.classes]
    assert list(rows[0]) == ["key", *columns, *decisions, "uncertainty", "problem"]
    p = np.array([[float(row[column]) for column in columns] for row in rows])
    if head.kind == "multiclass":
        assert p.sum(axis=1) == pytest.approx(1, abs=1e-6)
        assert [row["decision"] for row in rows] == [head.classes[i] for i in p.argmax(axis=1)]
    else:
        assert [[row[column] for column in decisions] for row in rows] == (p >= np.array(head.thresholds) - 1e-7).astype(int).astype(
            str
        ).tolist()
    assert sum(summary.decisions.values()) == (len(rows) if head.kind == "multiclass" else sum(int(r[c]) for r in rows for c in decisions))
    assert all(0 <= float(row["uncertainty"]) <= 1 for row in rows)


def test_an_image_that_cannot_be_read_has_a_row_with_its_reason(tmp_path):
    folder = png_folder(tmp_path / "files", patients=12)
    add_task(ingest_folder(folder, tmp_path / "files.h5"))
    train()
    good = {row["key"]: row["probability_sick"] for row in predict(tmp_path / "good.csv", folder)[0]}
    (folder / "00-0.png").write_bytes((folder / "00-0.png").read_bytes()[:-30])
    (folder / "=1+1.png").write_bytes(b"no image")
    (folder / "scan").write_bytes(b"no DICOM either")
    (folder / "late.png.part").write_bytes(b"half")
    done = call("predict", "--model", "trained", folder, "--out", tmp_path / "p.csv", "--device", "cpu")
    rows = {row["key"]: row for row in read_table(tmp_path / "p.csv")}
    assert done.exit_code == 1
    assert "27 images; decided: sick" in done.stdout
    assert "4 could not be read; they have a row without a prediction, and are in p.csv.quarantine.csv" in done.stdout
    assert "1 files skipped: .csv" in done.stderr
    bad = {key: row["problem"] for key, row in rows.items() if row["problem"]}
    assert set(bad) == {"00-0.png", "'=1+1.png", "scan", "late.png.part"}
    assert "damaged PNG" in bad["00-0.png"]
    assert "incomplete download" in bad["late.png.part"]
    assert all(not rows[key][column] for key in bad for column in ("probability_sick", "decision_sick", "uncertainty"))
    assert {key: row["probability_sick"] for key, row in rows.items() if key not in bad} == pytest.approx(
        {key: p for key, p in good.items() if key != "00-0.png"}
    )
    assert {row["file"]: row["reason"] for row in read_table(tmp_path / "p.csv.quarantine.csv")} == bad
    for name in ("p.csv", "p.csv.quarantine.csv"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    for name in ("00-0.png", "=1+1.png", "scan", "late.png.part"):
        (folder / name).unlink()
    assert call("predict", "--model", "trained", folder, "--out", tmp_path / "p.csv", "--replace", "--device", "cpu").exit_code == 0
    assert not (tmp_path / "p.csv.quarantine.csv").exists()


def test_the_table_is_replaced_only_on_request_and_whole(tmp_path, monkeypatch):
    store = toy_task(tmp_path)
    train()
    out = tmp_path / "p.csv"
    call("predict", "--model", "trained", store, "--out", out, "--device", "cpu")
    before = out.read_bytes()
    with pytest.raises(InputError, match=r"p\.csv exists; choose another --out, or replace it with --replace"):
        call("predict", "--model", "trained", store, "--out", out, "--device", "cpu")

    def stop(*given):
        raise InputError("the network is away")

    monkeypatch.setattr("transfer.trained.predict.TrainedModel.probabilities", stop)
    with pytest.raises(InputError, match="the network is away"):
        call("predict", "--model", "trained", store, "--out", out, "--replace", "--device", "cpu")
    assert out.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "p.csv" in path.name] == ["p.csv"]


def test_a_batch_is_in_memory_at_a_time_and_processes_that_read_change_nothing(tmp_path, monkeypatch):
    folder = png_folder(tmp_path / "files", patients=12)
    add_task(ingest_folder(folder, tmp_path / "files.h5"))
    train()
    monkeypatch.setattr("transfer.trained.predict.BATCH", 5)
    read, real = [], image_files.FileReader.read
    monkeypatch.setattr(image_files.FileReader, "read", lambda reader, name: read.append(name) or real(reader, name))
    trained = load_trained_model("trained")
    batches = iterate_predictions(trained, open_prediction_input([folder], trained))
    assert len(next(batches).keys) == 5
    assert len(read) == 5
    monkeypatch.setattr(image_files.FileReader, "read", real)
    alone = predict(tmp_path / "alone.csv", folder)[0]
    assert predict(tmp_path / "two.csv", folder, workers=2)[0] == alone


def test_stores_of_tiles_are_predicted_as_one_and_need_no_label(tmp_path):
    store = toy_task(tmp_path)
    train()
    tiles = tmp_path / "tiles"
    tiles.mkdir()
    for i in range(2):
        toys.store(tiles / f"slide{i}.h5", patients=3, seed=i + 1, dataset=f"slide{i}")
    rows, summary = predict(tmp_path / "p.csv", tiles)
    assert (len(rows), summary.trained_on) == (12, 0)
    with pytest.raises(InputError, match="is a store and .* is not; predict on stores and on files by a command each"):
        predict(tmp_path / "q.csv", store, png_folder(tmp_path / "files", patients=1))


def test_what_cannot_be_predicted_is_said(tmp_path):
    toy_task(tmp_path)
    train()
    for name, message in (
        (START, "has no head: train one with `transfer train --encoder random_test_resnet"),
        ("trained:size=64", "trained:size=64 has no head: that of trained was calibrated for trained as it is; write trained"),
    ):
        with pytest.raises(InputError, match=message):
            load_trained_model(name)
    with pytest.raises(InputError, match="--model is required"):
        call("predict", tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "notes.txt").write_text("none")
    with pytest.raises(InputError, match=r"holds no image \(PNG, JPEG, TIFF, DICOM\), but 1 .txt"):
        predict(tmp_path / "p.csv", empty)
    (empty / "a.svs").write_bytes(b"slide")
    with pytest.raises(InputError, match="images that are no tiles of slides, so it is not known how slides become tiles"):
        predict(tmp_path / "p.csv", empty)
    with pytest.raises(InputError, match="does not exist; name a store, a folder of images, or image files"):
        predict(tmp_path / "p.csv", tmp_path / "none.png")


def test_files_are_refused_where_the_images_of_the_task_cannot_be_imitated(tmp_path):
    folder = png_folder(tmp_path / "files", patients=12, deep=True)
    add_task(ingest_folder(folder, tmp_path / "files.h5", bits="auto"))
    train()
    with pytest.raises(InputError, match="whose bits were found by comparing all of them: ingest the files"):
        predict(tmp_path / "p.csv", folder)
    assert len(predict(tmp_path / "p.csv", tmp_path / "files.h5")[0]) == 24


def test_a_changed_or_missing_head_is_refused(tmp_path):
    toy_task(tmp_path)
    folder = train().folder
    file = folder / "head.safetensors"
    kept = file.read_bytes()
    file.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with pytest.raises(InputError, match=r"head\.safetensors has sha256 .*the file was changed or damaged"):
        load_trained_model("trained")
    file.unlink()
    with pytest.raises(InputError, match="the head of trained is not at .*; copy it again, or train it again"):
        load_trained_model("trained")
    file.write_bytes(kept)
    train("other", seed=1)
    shutil.copyfile(folder.parent / "other" / "head.safetensors", file)
    with pytest.raises(InputError, match="sha256"):
        load_trained_model("trained")
    assert zoo.load_encoder("trained").card.head is not None  # its features need no head
