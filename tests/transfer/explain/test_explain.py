"""Explaining images of a store and of files: equal maps, private files, nothing lost, and numbers on phantoms with masks."""

import csv
import json
import shutil
import stat
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from encoders.ingest.phantom.source import PhantomSource
from encoders.ingest.shards import ingest
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from tests.transfer.cli.test_cli import call
from tests.transfer.trained.cases import add_task, ingest_folder, png_folder, toy_task, train
from transfer.explain.evaluate import evaluate_methods
from transfer.explain.explained import explain_images
from transfer.explain.gradcam import GRADCAM
from transfer.explain.occlusion import OcclusionSettings, build_occlusion
from transfer.explain.select_images import SelectedImages, select_images
from transfer.tasks.load import load_task
from transfer.tasks.task import read_task
from transfer.trained.predict import load_trained_model, open_prediction_input

WORDS = ("--device", "cpu")
VIT = "random_test_vit:size=32,channels=1"
OCCLUSION = build_occlusion(OcclusionSettings(patch=16, stride=16), torch.zeros(1, 1, 1))


def explain(out, *paths, model="trained", **options):
    """The run of the command, and its maps."""
    given = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    done = call("explain", "--model", model, *paths, "--out", out, *given, *WORDS)
    with h5py.File(out / "maps.h5") as file:
        return done, {name: file["maps"][name][:] for name in file["maps"]} | {"key": file["key"].asstr()[:], "p": file["probability"][:]}


def table(out):
    with (out / "explanations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_files_of_a_store_have_the_maps_of_the_store(tmp_path):
    folder = png_folder(tmp_path / "files", patients=12)
    add_task(ingest_folder(folder, tmp_path / "files.h5"))
    train()
    done, maps = explain(tmp_path / "a", tmp_path / "files.h5", method="gradcam,occlusion", count=3)
    _, other = explain(tmp_path / "b", folder, method="gradcam,occlusion", count=3)
    assert done.exit_code == 0, done.output
    assert maps["gradcam"].shape == (3, 32, 32)
    assert {name: value.tolist() for name, value in maps.items()} == {name: value.tolist() for name, value in other.items()}
    _, chosen = explain(tmp_path / "c", tmp_path / "files.h5", images=",".join(maps["key"][[2, 0]]))
    assert chosen["key"].tolist() == maps["key"][[2, 0]].tolist()
    np.testing.assert_allclose(chosen["gradcam"], maps["gradcam"][[2, 0]], rtol=1e-4, atol=1e-6)
    _, again = explain(tmp_path / "d", tmp_path / "files.h5", method="gradcam,occlusion", count=3)
    assert (tmp_path / "a" / "maps.h5").read_bytes() == (tmp_path / "d" / "maps.h5").read_bytes()
    assert (tmp_path / "a" / "00001-gradcam.png").read_bytes() == (tmp_path / "d" / "00001-gradcam.png").read_bytes()
    assert again["key"].tolist() == maps["key"].tolist()


def test_an_image_that_cannot_be_read_is_listed_with_its_reason(tmp_path):
    folder = png_folder(tmp_path / "files", patients=12)
    add_task(ingest_folder(folder, tmp_path / "files.h5"))
    train()
    some = tmp_path / "some"
    some.mkdir()
    for name in ("00-0.png", "01-0.png"):
        shutil.copy(folder / name, some / name)
    (some / "00-1.png").write_bytes(b"no image")
    done, maps = explain(tmp_path / "out", some, count=0)
    assert done.exit_code == 1
    assert "2 images explained by gradcam, 1 could not be read" in done.output
    rows = {row["key"]: row for row in table(tmp_path / "out")}
    assert len(rows) == 3
    bad = rows["00-1.png"]
    assert bad["problem"]
    assert not bad["decision"] + bad["picture_gradcam"] + bad["probability_sick"]
    assert "00-1.png" not in maps["key"]
    assert not (tmp_path / "out" / f"{int(bad['number']):05d}-gradcam.png").exists()
    assert "00-1.png" in (tmp_path / "out" / "index.html").read_text()


def test_the_folder_is_private_marked_and_replaced_only_on_request(tmp_path):
    store, out = toy_task(tmp_path), tmp_path / "out"
    train()
    explain(out, store, count=1)
    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o600}
    page = (out / "index.html").read_text()
    assert "Do not share this folder" in page
    assert "default-src &#x27;none&#x27;; img-src data:" in page
    rows, facts = table(out), json.loads((out / "explanations.json").read_text())
    assert facts["mark"] == "image of a patient: do not share"
    keys = {row["key"] for row in rows}
    assert not any(key in (out / "explanations.json").read_text() for key in keys)  # what a report reads names no image
    picture = np.asarray(Image.open(out / rows[0]["picture_gradcam"]).convert("RGB"))
    assert picture.shape[0] > 300
    assert (picture[..., 0].astype(int) - picture[..., 1] > 60).any()  # the mark is red
    with pytest.raises(InputError, match="out holds explanations; choose another --out, or replace them with --replace"):
        explain(out, store, count=1)
    call("explain", "--model", "trained", store, "--out", out, "--count", "2", "--replace", *WORDS)
    assert len(table(out)) == 2
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    with pytest.raises(InputError, match="mine holds other files than explanations; name a new folder"):
        call("explain", "--model", "trained", store, "--out", tmp_path / "mine", "--replace", *WORDS)
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_probabilities_and_decisions_are_those_of_predict(tmp_path):
    store = toy_task(tmp_path, "grade", "grade")
    train(task="grade")
    explain(tmp_path / "out", store, count=4)
    call("predict", "--model", "trained", store, "--out", tmp_path / "p.csv", *WORDS)
    with (tmp_path / "p.csv").open(newline="") as file:
        predicted = {row["key"]: row for row in csv.DictReader(file)}
    for row in table(tmp_path / "out"):
        own = predicted[row["key"]]
        assert row["decision"] == f"decided {own['decision']}"
        assert row["label"] == own["decision"]
        for name in ("low", "mid", "high"):
            assert float(row[f"probability_{name}"]) == pytest.approx(float(own[f"probability_{name}"]), abs=1e-5)
    explain(tmp_path / "low", store, count=2, label="low")
    assert {row["label"] for row in table(tmp_path / "low")} == {"low"}
    with pytest.raises(InputError, match=r"no label called 'loww'; did you mean low.*of task grade"):
        explain(tmp_path / "x", store, label="loww")


def test_a_part_is_that_of_the_task_and_its_store(tmp_path):
    store = toy_task(tmp_path)
    train()
    model = load_trained_model("trained")
    given, loaded = open_prediction_input([store], model), load_task(read_task("sick"))
    chosen = select_images(given, model, [], 0, "test")
    assert chosen.rows.tolist() == sorted(loaded.split.rows("test").tolist())
    some = select_images(given, model, [], 3, "test").rows.tolist()
    assert len(some) == 3
    assert set(some) < set(chosen.rows.tolist())
    key = str(loaded.key[loaded.split.rows("train")[0]])
    with pytest.raises(InputError, match=f"{key} is not in the part test of task sick"):
        select_images(given, model, [key], 0, "test")
    with pytest.raises(InputError, match="no image called '0000001'; did you mean"):
        select_images(given, model, ["0000001"], 0, None)
    folder = png_folder(tmp_path / "files", patients=2)
    with pytest.raises(InputError, match="--part test is of the store of task sick, and files were given"):
        select_images(open_prediction_input([folder], model), model, [], 0, "test")


def test_a_vit_is_explained_by_its_attention(tmp_path):
    store = toy_task(tmp_path)
    train(encoder=VIT)
    before = load_trained_model("trained")
    done, maps = explain(tmp_path / "out", store, method="all", count=1)
    assert done.exit_code == 0, done.output
    assert {"rollout", "gradient_rollout", "occlusion"} < set(maps)
    assert "explained by rollout, gradient_rollout, occlusion" in done.output
    x = torch.zeros(1, 1, 32, 32)
    given = open_prediction_input([store], before)
    first = before.probabilities(x)
    list(explain_images(before, select_images(given, before, [], 2, None), [GRADCAM][:0]))
    assert np.array_equal(before.probabilities(x), first)


def test_a_planted_nodule_is_found_and_measured(tmp_path):
    """The head reads the brightness of the lungs' upper part by construction: no training, so the test is quick and its answer known."""
    ingest(PhantomSource("cxr_nodule", 16, 32, masks=True), tmp_path / "n.h5", workers=1)
    add_task(tmp_path / "n.h5", "nodule")
    train(task="nodule")
    model = load_trained_model("trained")
    model.network.forward = lambda x: (x[:, :, :, :16].amax((1, 2, 3)) * 20)[:, None]  # decided positive everywhere
    store = Store.open(tmp_path / "n.h5")
    result = evaluate_methods(model, SelectedImages(store, np.arange(len(store))), [OCCLUSION])
    y = store.labels("nodule")
    assert (result.images, result.masks, result.unreadable) == (len(store), int((y > 0).sum()), 0)
    rows = {(row.measure, row.baseline): row for row in result.rows}
    assert set(rows) == {
        ("deletion", "random maps"),
        ("insertion", "random maps"),
        ("pointing", "random maps"),
        ("pointing", "centre of the image"),
        ("energy", "random maps"),
        ("energy", "area of the mask"),
    }
    for (measure, _), row in rows.items():
        assert row.images == (len(store) if measure in ("deletion", "insertion") else int((y > 0).sum()))
        assert row.difference.value == pytest.approx(row.value.value - row.baseline_value)
        assert row.difference.low <= row.difference.value <= row.difference.high


def test_the_command_prints_the_table_and_the_page_has_it(tmp_path):
    store = toy_task(tmp_path)
    train()
    done = call("explain", "--model", "trained", store, "--out", tmp_path / "out", "--count", "6", "--evaluate", *WORDS)
    assert done.exit_code == 0, done.output
    assert "deletion (lower" in done.output
    assert "there are no masks of the finding" in done.output
    with (tmp_path / "out" / "evaluation.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["measure"] for row in rows} == {"deletion", "insertion", "rank correlation", "SSIM"}
    assert "Faithfulness" in (tmp_path / "out" / "index.html").read_text()


def test_no_positive_image_is_an_error_with_advice(tmp_path):
    store = toy_task(tmp_path)
    train()
    model = load_trained_model("trained")
    model.network.forward = lambda x: torch.full((len(x), 1), -50.0)
    with pytest.raises(InputError, match="the label is decided positive in none of the 4 images"):
        evaluate_methods(model, SelectedImages(Store.open(store), np.arange(4)), [GRADCAM])


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(InputError, match="--model is required"):
        call("explain", tmp_path)
    with pytest.raises(InputError, match="name the images to explain"):
        call("explain", "--model", "m")


def test_a_class_of_texts_is_written_plainly(tmp_path):
    store = toy_task(tmp_path, "view", "view")
    (name,) = train(task="view").card.head.classes
    column, _, plain = name.partition("=")
    assert column == "view"
    explain(tmp_path / "out", store, count=2, label=plain)
    assert {row["label"] for row in table(tmp_path / "out")} == {name}
    facts = json.loads((tmp_path / "out" / "explanations.json").read_text())
    assert {image["label"] for image in facts["images"]} == {plain}
    (cut,) = load_trained_model("trained").head.thresholds
    for image in facts["images"]:
        sign = "" if image["probability"] >= cut else "not "
        assert image["decision"] == f"decided {sign}{plain} (threshold {cut:.3f})"


def test_whole_slides_are_refused(tmp_path):
    toy_task(tmp_path)
    train()
    given = SimpleNamespace(store=None, files=None)
    with pytest.raises(InputError, match="whole slides were given, and a map is of an image; make tiles"):
        select_images(given, load_trained_model("trained"), [], 0, None)
