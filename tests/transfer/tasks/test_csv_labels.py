"""Labels of a task from tables: any format, several tables, repeated rows, and joins by path, study and patient."""

import gzip

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from encoders.ingest.folder import FolderSource
from encoders.ingest.shards import ingest
from encoders.runtime.errors import InputError
from encoders.similarity.perceptual_hash import hash_columns, hash_signs, pixel_sha256
from encoders.store.store import Store
from encoders.store.write import pixel_fingerprint, write_store
from tests.transfer import toys
from transfer.cli.main import app
from transfer.tasks import load
from transfer.tasks.csv_labels import read_csv_labels
from transfer.tasks.group_columns import name_groups
from transfer.tasks.task import SplitRule, TargetSpec, read_task

KEYS = ["a/1.png", "a/2.png", "b/1.png", "b/3.png"]


@pytest.fixture
def store(tmp_path):
    """Four images of three patients, in two studies."""
    images = np.random.default_rng(0).integers(0, 255, (4, 16, 16, 1), dtype=np.uint8)
    index = {"key": KEYS, "patient": ["p1", "p1", "p2", ""], "study": ["s1", "s1", "s2", "s2"]}
    index |= {"sha256": [pixel_sha256(image) for image in images], **hash_columns(np.stack([hash_signs(image) for image in images]))}
    attrs = {"modality": "cxr", "codec": "raw", "channels": 1, "dataset": "d", "geometry": {}, "recipe": {}}
    attrs["fingerprint"] = pixel_fingerprint(index["sha256"])
    attrs["unit"] = {"scale": 255.0, "offset": 0.0, "meaning": "full range"}
    write_store(tmp_path / "s.h5", images, (16, 16, 1), np.uint8, attrs, index)
    return Store.open(tmp_path / "s.h5")


def table(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    ("lines", "want"),
    [
        (["file,y", "a/1.png,1", "/x/y/a/2.png,0", "C:\\d\\b\\1.png,1"], [1, 0, 1, np.nan]),
        (["path;y", "Set/a/1.jpg;1", "3;0"], [1, np.nan, np.nan, 0]),
        (["study_id,y", "s1,1", "s2,0"], [1, 1, 0, 0]),
        (["patient,y", "p1,1", "p2,0", "b/3.png,1"], [1, 1, 0, np.nan]),  # an image without a patient is not named by its key
        (["key,y", "a/1.png,1", "a/1.png,1.0", "a/2.png,", "a/2.png,0", "b/1.png,NA"], [1, 0, np.nan, np.nan]),
    ],
)
def test_rows_are_joined_by_whatever_the_column_holds(store, tmp_path, lines, want):
    (column,), messages = read_csv_labels(table(tmp_path / "l.csv", *lines), store, ["y"])
    np.testing.assert_array_equal(column.codes, want)
    matched = int(messages[0].split(":")[1].split(" of ")[0])
    lost = sum(int(m.split()[0]) for m in messages if "match no image" in m)
    assert matched + lost == len(lines) - 1


def test_a_name_that_two_images_have_is_reported(store, tmp_path):
    _, messages = read_csv_labels(table(tmp_path / "l.csv", "file,y", "1.png,1", "2.png,0"), store, ["y"])
    assert any("two files are called 1.png: a/1.png, b/1.png" in message for message in messages)


def test_rows_that_disagree_need_a_rule(store, tmp_path):
    path = table(tmp_path / "l.csv", "key,reader,y", "a/1.png,A,0", "a/1.png,B,1", "a/1.png,B,1", "a/1.png,C,1", "b/1.png,A,0")
    with pytest.raises(InputError, match=r"'0' and '1'.*--combine max, any, mean or majority"):
        read_csv_labels(path, store, ["y"])
    (column,), messages = read_csv_labels(path, store, ["y"], combine="majority")
    np.testing.assert_array_equal(column.codes, [1, np.nan, 0, np.nan])
    assert "y: mean agreement 0.833 over 2 images" in messages  # (2 / 3 + 1) / 2


def test_a_task_keeps_several_tables_and_reads_them_again(tmp_path, monkeypatch):
    monkeypatch.setenv("ISOGRAFT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    toys.store(tmp_path / "c.h5", patients=40)
    keys = Store.open(tmp_path / "c.h5").column("key").tolist()
    with gzip.open(tmp_path / "images.csv.gz", "wt") as file:
        file.write("key,exam\n" + "".join(f"{key},e{i // 2}\n" for i, key in enumerate(keys)))
    table(tmp_path / "exams.csv", "exam;mass", *(f"e{i};{i % 2}" for i in range(len(keys) // 2)))
    words = ["tasks", "add", "mass", "c.h5", "--labels", "images.csv.gz", "--labels", "exams.csv", "--on", "exam", "--label", "mass"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    task = read_task("mass")
    assert (task.csv, task.csv_join) == (["images.csv.gz", "exams.csv"], ["exam"])
    y = load.load_task(task).y[:, 0]
    np.testing.assert_array_equal(y, [i // 2 % 2 for i in range(len(keys))])


def test_an_official_list_may_name_files_by_paths_of_another_machine(store, tmp_path):
    train = table(tmp_path / "train.txt", "C:\\d\\a\\1.png", "/mnt/d/a/2.png")
    rule = SplitRule(lists={"train": str(train), "test": str(table(tmp_path / "test.txt", "3", "set/b/1.jpg", "nobody.png"))})
    assert load.read_split_column(store, rule).tolist() == ["train", "train", "test", "test"]


def test_a_task_of_an_older_version_names_one_table():
    assert TargetSpec(labels=["y"], csv="l.csv", csv_on="key").csv == "l.csv"


def agreement_of(texts):
    """Majority share of each image's votes, and the number of images on which all agree, from the definition."""
    shares = [max(votes.count(v) for v in set(votes)) / len(votes) for votes in texts]
    return np.array(shares), sum(share == 1 for share in shares)


@pytest.mark.parametrize("where", ["table", "store"])
def test_the_agreement_of_readers_is_shown_by_part_and_kept_as_groups(tmp_path, monkeypatch, where):
    """Labels combined by majority when the task is added, or before, when the store was ingested."""
    monkeypatch.setenv("ISOGRAFT_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    votes = [["111", "110", "000", "100", "11", "00"][k % 6] for k in range(48)]
    images = np.random.default_rng(0).integers(0, 255, (48, 16, 16), dtype=np.uint8)
    for k, image in enumerate(images):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "in" / f"{k:02d}.png")
    rows = [f"{k:02d}.png,p{k},R{r},{v}" for k, texts in enumerate(votes) for r, v in enumerate(texts)]
    path = table(tmp_path / "l.csv", "file,patient,rad_id,mass", *rows)
    kwargs = {"labels": path, "label": ["mass"], "combine": "majority"} if where == "store" else {}
    ingest(FolderSource(tmp_path / "in", dataset="d", size=0, **kwargs), tmp_path / "s.h5")
    words = ["tasks", "add", "t", "s.h5", "--label", "mass"]
    done = CliRunner().invoke(app, words if where == "store" else [*words, "--labels", "l.csv", "--combine", "majority"])
    assert done.exit_code == 0, done.output
    shown = CliRunner().invoke(app, ["tasks", "show", "t"])
    loaded = load.load_task(read_task("t"))
    shares, _ = agreement_of(votes)
    np.testing.assert_allclose(loaded.groups["mass_agreement"], shares, atol=1e-4)
    for part in ("train", "val", "test"):
        mine, unanimous = agreement_of([votes[i] for i in loaded.split.rows(part)])
        line = f"{part} {mine.mean():.3f} (all agree on {unanimous} of {len(mine)} images)"
        for output in (done.output, shown.output):
            assert line in " ".join(output.split())
    assert set(name_groups("mass_agreement", loaded.groups["mass_agreement"])) == {"0.6667", "1"}


def test_a_label_without_readers_has_no_agreement(store, tmp_path):
    (column,), _ = read_csv_labels(table(tmp_path / "l.csv", "key,y", "a/1.png,1", "a/2.png,0"), store, ["y"])
    assert column.agreement is None
    (column,), _ = read_csv_labels(
        table(tmp_path / "l.csv", "key,y", "a/1.png,1", "a/1.png,0", "a/2.png,0"), store, ["y"], combine="majority"
    )
    np.testing.assert_array_equal(column.agreement, [0.5, 1, np.nan, np.nan])  # a tie is unknown, and half of the votes agree
    np.testing.assert_array_equal(column.codes, [np.nan, 0, np.nan, np.nan])


def test_classes_that_differ_only_in_case_are_one_and_are_named_in_any_case(store, tmp_path):
    path = table(tmp_path / "l.csv", "key,y", "a/1.png,Tumor", "a/2.png,normal", "b/1.png,tumor", "b/3.png,tumor")
    targets = load.read_targets(store, TargetSpec(labels=["y"], csv=str(path), positive="TUMOR"))
    assert targets.classes == ["y=tumor"]
    np.testing.assert_array_equal(targets.y[:, 0], [1, 0, 1, 1])
    assert "classes of 'y' that differ only in case are one: 'Tumor' (1) and 'tumor' (2) as 'tumor'" in targets.messages
    kept = load.read_targets(store, TargetSpec(labels=["y"], csv=str(path), keep=["Normal", "TUMOR"]))
    np.testing.assert_array_equal(kept.y[:, 0], [1, 0, 1, 1])
    assert not any("not kept" in message for message in kept.messages)
