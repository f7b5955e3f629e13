"""The doctor on stores with known problems, and on the Kermany radiographs."""

import csv
import hashlib
import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from encoders.cli.main import app
from encoders.doctor.checks import examine_store, find_nearest_pairs
from encoders.doctor.text import sparkline
from encoders.similarity.perceptual_hash import phash256, pixel_sha256
from encoders.store.store import Store
from encoders.store.write import full_range_unit, pixel_fingerprint, write_store


def scene(seed, size=48):
    """A smooth image, different for each seed."""
    rng = np.random.default_rng(seed)
    low = Image.fromarray(rng.integers(20, 235, (6, 6), np.uint8))
    return np.asarray(low.resize((size, size), Image.Resampling.BICUBIC))[..., None]


def store_of(path, images, patients=None, splits=None, labels=None) -> Store:
    """A store of (H, W, 1) uint8 images; patients default to the keys."""
    keys = [f"i{k:02d}" for k in range(len(images))]
    sha = [pixel_sha256(image) for image in images]
    index = {"key": keys, "patient": patients or keys, "sha256": sha, "phash": np.stack([phash256(image) for image in images])}
    index |= {"split": splits} if splits else {}
    attrs = {"modality": "cxr", "dataset": "made", "codec": "raw", "geometry": {"resize": "none"}, "channels": 1}
    attrs |= {"unit": full_range_unit(np.dtype(np.uint8)), "recipe": {}, "fingerprint": pixel_fingerprint(sha)}
    write_store(path, images, images[0].shape, np.uint8, attrs, index, {}, labels or {})
    return Store.open(path)


def finding_counts(report):
    return {row["finding"]: row["count"] for row in report["findings"]}


def test_a_clean_store_has_no_findings(tmp_path):
    images = [scene(k) for k in range(8)]
    store = store_of(tmp_path / "a.h5", images, [f"p{k // 2}" for k in range(8)], ["train"] * 4 + ["test"] * 4, {"mass": [0, 1] * 4})
    report = examine_store(store, seconds=0.01)
    assert report["findings"] == []
    assert report["patients"] == {"patients": 4, "median": 2.0, "most": 2, "with_several": 4, "images_without_patient": 0}
    assert report["splits"]["splits"] == {"train": {"images": 4, "patients": 2}, "test": {"images": 4, "patients": 2}}


def test_every_planted_problem_is_found(tmp_path):
    images = [scene(k) for k in range(8)]
    images.append(images[0])  # 8: identical, another patient, another split, another label
    images.append(np.clip(images[1].astype(int) + 2, 0, 255).astype(np.uint8))  # 9: nearly identical, another split
    images.append(np.full_like(images[0], 9))  # 10: constant
    patients = [f"p{k}" for k in range(8)] + ["q0", "q1", "p3"]
    splits = ["train"] * 8 + ["test"] * 3
    labels = {"mass": [0.0, 1.0] * 4 + [1.0, 1.0, np.nan], "same": [1.0] * 11, "none": [np.nan] * 11}
    report = examine_store(store_of(tmp_path / "a.h5", images, patients, splits, labels), seconds=0.01)
    assert finding_counts(report) == {
        "constant images": 1,
        "exact duplicates": 1,
        "near duplicates": 1,
        "patients in several splits": 1,
        "duplicates across splits": 1,
        "near duplicates across splits": 1,
        "duplicates across patients": 1,
        "conflicting labels": 1,
        "useless labels": 2,
    }
    assert report["constant"] == ["i10"]
    assert report["exact"]["keys"] == [["i00", "i08"]]
    assert report["near"]["nearest"][0][:2] == ["i01", "i09"]
    assert report["splits"]["who"] == ["p3"]
    assert report["splits"]["their_images"] == 2


def test_duplicates_of_unknown_patients_are_not_reported_across_patients(tmp_path):
    report = examine_store(store_of(tmp_path / "a.h5", [scene(0), scene(1), scene(0)]), seconds=0.01)
    assert finding_counts(report) == {"exact duplicates": 1}


def test_the_label_summary_counts_known_values(tmp_path):
    labels = {"mass": [1, 0, np.nan, 1], "grade": [1.5, 2.5, 4.0, np.nan], "kind": ["a", "b", "", "b"]}
    store = store_of(tmp_path / "a.h5", [scene(k) for k in range(4)], None, ["train", "train", "test", "test"], labels)
    rows = {row["label"]: row for row in examine_store(store, seconds=0.01)["labels"]}
    assert rows["mass"]["spread"] == {"positive": 2, "prevalence": 0.6667}
    assert rows["mass"]["by_split"] == {"train": {"positive": 1, "prevalence": 0.5}, "test": {"positive": 1, "prevalence": 1.0}}
    assert rows["grade"]["spread"] == {"min": 1.5, "mean": 2.6667, "max": 4.0}
    assert rows["kind"]["spread"] == {"a": 1, "b": 2}
    assert (rows["kind"]["known"], rows["kind"]["unknown"]) == (3, 1)


def test_histogram_mean_and_std_equal_those_of_the_pixels(tmp_path):
    images = [scene(k) for k in range(5)]
    intensity = examine_store(store_of(tmp_path / "a.h5", images), seconds=0.01)["intensity"]
    values = np.stack(images) / 255
    np.testing.assert_allclose(intensity["histogram"], np.histogram(values, 32, (0, 1))[0] / values.size, atol=1e-5)
    assert intensity["mean"] == pytest.approx(values.mean(), abs=1e-4)
    assert intensity["std"] == pytest.approx(values.std(), abs=1e-4)


def test_images_of_one_hash_are_paired_only_with_the_next(tmp_path):
    images = []
    for k in range(40):
        image = scene(0).copy()
        image[0, k] ^= 1
        images.append(image)
    report = examine_store(store_of(tmp_path / "a.h5", images), seconds=0.01)
    assert report["near"]["pairs"] == 39


def test_the_nearest_pairs_equal_a_loop_over_all_pairs(tmp_path):
    store = store_of(tmp_path / "a.h5", [scene(k) for k in range(13)])
    bits = np.unpackbits(store.column("phash"), axis=1).astype(int)
    expected = sorted((int((bits[i] != bits[j]).sum()), i, j) for i in range(13) for j in range(i + 1, 13))
    pairs, distance = find_nearest_pairs(store, 6)
    assert distance.tolist() == [d for d, _, _ in expected[:6]]
    assert pairs[0].tolist() == list(expected[0][1:])


def test_the_picture_has_one_row_per_pair(tmp_path):
    images = [scene(k) for k in range(4)]
    images.append(np.clip(images[2].astype(int) + 3, 0, 255).astype(np.uint8))
    store_of(tmp_path / "a.h5", images)
    result = CliRunner().invoke(app, ["doctor", str(tmp_path / "a.h5"), "--picture", str(tmp_path / "pairs.png")])
    assert result.exit_code == 1
    with Image.open(tmp_path / "pairs.png") as sheet:
        assert sheet.size == (600, 6 * 238 + 23)
        top = np.asarray(sheet.convert("L"), int)[65:257]  # (192, 600): the first pair, its difference on the right
    assert np.abs(top[:, 6:198] - top[:, 204:396]).mean() < 6
    assert top[:, 402:594].mean() < 6


def test_exit_codes_and_json(tmp_path):
    store_of(tmp_path / "clean.h5", [scene(k) for k in range(3)])
    store_of(tmp_path / "double.h5", [scene(0), scene(1), scene(0)])
    clean = CliRunner().invoke(app, ["doctor", str(tmp_path / "clean.h5"), "--json"])
    assert clean.exit_code == 0
    assert json.loads(clean.output)["findings"] == []
    double = CliRunner().invoke(app, ["doctor", str(tmp_path / "double.h5")])
    assert double.exit_code == 1
    assert "1 groups of images with identical pixels, 2 images in all" in double.output
    assert "i00 = i02" in double.output


def test_several_stores_are_checked_as_one(tmp_path):
    store_of(tmp_path / "a.h5", [scene(0), scene(1)], ["p", "q"], ["train"] * 2)
    store_of(tmp_path / "b.h5", [scene(0), scene(2)], ["p", "r"], ["test"] * 2)
    report = examine_store(Store.open([tmp_path / "a.h5", tmp_path / "b.h5"]), seconds=0.01)
    assert report["exact"]["across_splits"] == 1
    assert report["splits"]["patients_in_several"] == 1
    assert report["store"]["files"] == 2


def test_a_missing_store_is_a_user_error(tmp_path, capsys, monkeypatch):
    from encoders.runtime.cli import run_cli

    monkeypatch.setattr("sys.argv", ["encoders", "doctor", str(tmp_path / "no.h5")])
    with pytest.raises(SystemExit) as end:
        run_cli(app)
    assert end.value.code == 2
    assert "no store at" in capsys.readouterr().err


def test_the_sparkline_increases_with_the_fractions():
    line = sparkline([0.0, 0.01, 0.04, 0.25, 0.36])
    assert line[0] == " "
    assert list(line[1:]) == sorted(line[1:])
    assert line[-1] == "█"


@pytest.fixture
def some_of_kermany(data_dir, tmp_path) -> tuple[Path, list[dict[str, str]]]:
    """A folder with every file of Kermany whose bytes occur twice and every tenth other file, and its rows of the table of labels."""
    source = data_dir / "cxr_kermany224"
    with (source / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["bytes"] = hashlib.sha256((source / row["file"]).read_bytes()).hexdigest()
    copies = {content for content, count in Counter(row["bytes"] for row in rows).items() if count > 1}
    kept = [row for number, row in enumerate(rows) if row["bytes"] in copies or number % 10 == 0]
    folder = tmp_path / "kermany"
    (folder / "images").mkdir(parents=True)
    for row in kept:
        shutil.copyfile(source / row["file"], folder / row["file"])
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["file", "label", "patient_id", "split", "etiology"], extrasaction="ignore")
        table.writeheader()
        table.writerows(kept)
    return folder, kept


@pytest.mark.real
def test_the_copies_of_kermany_and_its_patients_in_both_splits_are_found(some_of_kermany, tmp_path):
    folder, rows = some_of_kermany
    options = ["--labels", str(folder / "labels.csv"), "--size", "64", "--resize", "squash"]
    assert CliRunner().invoke(app, ["ingest", "folder", str(folder), str(tmp_path / "k.h5"), *options]).exit_code == 0
    result = CliRunner().invoke(app, ["doctor", str(tmp_path / "k.h5"), "--json"])
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["store"]["images"] == len(rows)
    assert report["exact"]["groups"] == 30  # of the whole data set, as counted from the bytes of its files
    splits = defaultdict(set)
    for row in rows:
        splits[row["patient_id"]].add(row["split"])
    assert report["splits"]["patients_in_several"] == sum(len(names) > 1 for names in splits.values()) > 5
