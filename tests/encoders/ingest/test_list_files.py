"""Links without a target, unreadable folders and files, empty files and incomplete downloads are named and counted by every ingest."""

import builtins
import csv
import io
import os
import re

import h5py
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from encoders.cli.main import app
from encoders.ingest.list_files import describe_bad_file, find_files, list_files, match_downloads, strip_partial_suffix
from encoders.ingest.tables.table import read_table
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from encoders.store.write import save_store
from pretrain.loop.corpus import read_wanted_keys
from tests.encoders.ingest.dicom_files import build_dicom, ramp, save_dicom
from tests.encoders.ingest.wsi.slide_files import tissue_like, write_slide
from transfer.tasks.official_parts import read_official_list


@pytest.fixture
def closed(monkeypatch):
    """Makes the folder or file of a name unreadable, also for root."""

    def close(name):
        def deny(real):
            def call(path=".", *args, **options):
                if isinstance(path, str | os.PathLike) and os.path.basename(str(path)) == name:
                    raise PermissionError(13, "Permission denied", str(path))
                return real(path, *args, **options)

            return call

        monkeypatch.setattr(os, "scandir", deny(os.scandir))
        monkeypatch.setattr(io, "open", deny(io.open))
        monkeypatch.setattr(builtins, "open", deny(builtins.open))

    return close


def add_faults(folder, good, suffix):
    """Faults beside a good file; their names with a part of the reason of each."""
    (folder / f"gone{suffix}").symlink_to(folder / "nowhere" / f"x{suffix}")
    (folder / f"loop{suffix}").symlink_to(folder / f"loop{suffix}")
    (folder / "link_to_folder").symlink_to(folder / "unmounted")
    names = (f"a{suffix}.partial", f"b{suffix}.crdownload", f"c{suffix}.PART", f"e{suffix}.tmp", "Unconfirmed 1.crdownload", f"d{suffix}")
    for name in names:
        (folder / name).write_bytes(good.read_bytes()[:2000])
    (folder / f"d{suffix}.aria2").touch()
    (folder / f"f{suffix}.download").mkdir()
    (folder / f"f{suffix}.download" / f"f{suffix}").write_bytes(b"x")
    (folder / f"empty{suffix}.partial").touch()
    (folder / "shut").mkdir()
    return {
        f"gone{suffix}": "is a link to .*nowhere.*, which does not exist",
        f"loop{suffix}": "cannot be read: Too many levels of symbolic links",
        "link_to_folder": "is a link to .*unmounted, which does not exist",
        **dict.fromkeys((*names, f"empty{suffix}.partial"), "is an incomplete download"),
        f"d{suffix}": "is an incomplete download: d.*aria2 stands beside it",
        f"f{suffix}.download/f{suffix}": "is an incomplete download in a folder of Safari",
        "shut": "is a folder that cannot be read: Permission denied",
    }


def run(*words, code):
    done = CliRunner().invoke(app, ["ingest", *map(str, words)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return " ".join(done.output.replace("│", " ").split())


def check(store, expected):
    """The quarantine of a store has exactly these files, each with its reason and without a traceback."""
    with store.with_name(store.name + ".quarantine.csv").open() as file:
        found = {row["file"]: row for row in csv.DictReader(file)}
    assert found.keys() == expected.keys()
    assert {name: found[name] for name, why in expected.items() if not re.search(why, found[name]["reason"])} == {}
    assert {name for name, row in found.items() if row["traceback"]} == set()


def test_files_and_what_cannot_be_read_are_listed_once(tmp_path, closed):
    (tmp_path / "good.png").write_bytes(b"x" * 3000)
    expected = add_faults(tmp_path, tmp_path / "good.png", ".png")
    for name in ("good.png.part1.rar", "other.aria2", "notes.txt"):  # a control file without its download is a file
        (tmp_path / name).touch()
    (tmp_path / "again").symlink_to(tmp_path / "good.png")
    os.mkfifo(tmp_path / "pipe")
    closed("shut")
    found = find_files(tmp_path)
    assert [path.name for path in found.files] == ["again", "good.png", "good.png.part1.rar", "notes.txt", "other.aria2"]
    expected |= {"pipe": "is neither a file nor a folder"}
    assert [each.name for each in found.broken] == sorted(expected)
    assert [each for each in found.broken if not re.search(expected[each.name], each.reason)] == []
    listed = list_files(tmp_path, (".png",))
    assert (listed.names, listed.others, listed.broken) == (
        ["good.png"],
        {"no suffix": 1, ".rar": 1, ".aria2": 1, ".txt": 1},
        found.broken,
    )
    closed(tmp_path.name)
    with pytest.raises(InputError, match="is a folder that cannot be read: Permission denied; check its permissions"):
        find_files(tmp_path)


def test_a_download_has_the_name_of_the_complete_file():
    names = {"a.png.part": "a.png", "a.png": "a.png", "x/a.nii.gz.PARTIAL": "x/a.nii.gz", "a.svs.0a1b2c3d.partial": "a.svs", "b.tmp": "b"}
    assert {name: strip_partial_suffix(name) for name in names} == names


def test_what_is_wrong_with_a_named_file_is_said(tmp_path):
    (tmp_path / "a.csv.crdownload").write_text("file,y\n")
    (tmp_path / "empty.csv").touch()
    (tmp_path / "gone.csv").symlink_to(tmp_path / "nowhere.csv")
    (tmp_path / "good.csv").write_text("file,y\n1.png,0\n")
    expected = {
        "a.csv": "does not exist, but a.csv.crdownload does, an incomplete download",
        "a.csv.crdownload": "is an incomplete download (.crdownload): finish it, or remove it",
        "empty.csv": "is empty (0 bytes)",
        "gone.csv": f"is a link to {tmp_path}/nowhere.csv, which does not exist",
        "none.csv": "does not exist",
        ".": "is a folder",
    }
    for name, reason in expected.items():
        assert describe_bad_file(tmp_path / name) == reason
        with pytest.raises(InputError, match="cannot read the labels .*" + re.escape(reason)):
            read_table(tmp_path / name)
    assert describe_bad_file(tmp_path / "good.csv") == ""
    assert match_downloads(str(tmp_path / "*.csv")) == [tmp_path / "a.csv.crdownload"]
    assert match_downloads(str(tmp_path / "a.csv")) == []


def test_lists_of_names_that_are_incomplete_are_refused(tmp_path):
    ingested = tmp_path / "s.h5"
    save_store(ingested, np.random.default_rng(0).integers(0, 255, (2, 8, 8, 1), dtype=np.uint8))
    store = Store.open(ingested)
    (tmp_path / "train.txt.part").write_text(f"{store.column('key')[0]}\n")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "gone.txt").symlink_to("nowhere.txt")
    for name, reason in {
        "train.txt.part": "is an incomplete download",
        "train.txt": "does not exist, but train.txt.part does, an incomplete download",
        "empty.txt": "is empty",
        "gone.txt": "is a link to nowhere.txt, which does not exist",
    }.items():
        with pytest.raises(InputError, match=f"cannot read the official list .*{reason}"):
            read_official_list(str(tmp_path / name))
        with pytest.raises(InputError, match=f"cannot read data.keys=.*{reason}"):
            read_wanted_keys(str(tmp_path / name), store)


def test_ingest_folder_quarantines_them(tmp_path, closed):
    (tmp_path / "in").mkdir()
    Image.fromarray(tissue_like(64, 64)).save(tmp_path / "in" / "good.png")
    expected = add_faults(tmp_path / "in", tmp_path / "in" / "good.png", ".png") | {"empty.png": "is empty"}
    (tmp_path / "in" / "empty.png").touch()
    closed("shut")
    output = run("folder", tmp_path / "in", tmp_path / "s.h5", "--size", "32", "--workers", "1", code=1)
    check(tmp_path / "s.h5", expected)
    assert f"{len(expected)} quarantined" in output
    assert f"{len(expected) + 1} inputs: 1 stored, {len(expected)} quarantined, 0 left out" in output
    (tmp_path / "in" / "good.png").unlink()
    (tmp_path / "in" / "empty.png").unlink()
    with pytest.raises(
        InputError, match=f"but 0 other files, and {len(expected) - 1} that cannot be read .first: Unconfirmed 1.crdownload"
    ):
        run("folder", tmp_path / "in", tmp_path / "t.h5", code=2)


def test_a_file_without_permission_is_quarantined(tmp_path, closed):
    (tmp_path / "in").mkdir()
    for name in ("good.png", "locked.png"):
        Image.fromarray(tissue_like(64, 64)).save(tmp_path / "in" / name)
    save_dicom(build_dicom(ramp()), tmp_path / "in" / "good.dcm")
    save_dicom(build_dicom(ramp()), tmp_path / "in" / "locked.dcm")
    closed("locked.png")
    run("folder", tmp_path / "in", tmp_path / "s.h5", "--size", "32", "--workers", "1", code=1)
    check(tmp_path / "s.h5", {"locked.png": "cannot be read: Permission denied"})
    closed("locked.dcm")
    for name in ("good.png", "locked.png"):
        (tmp_path / "in" / name).unlink()
    run("dicom", tmp_path / "in", tmp_path / "d.h5", "--size", "32", "--workers", "1", code=1)
    check(tmp_path / "d.h5", {"locked.dcm": "cannot be read.*Permission denied"})


def test_a_broken_file_that_the_table_names_is_counted_once_with_its_reason(tmp_path, closed):
    (tmp_path / "in" / "x").mkdir(parents=True)
    Image.fromarray(tissue_like(64, 64)).save(tmp_path / "in" / "good.png")
    expected = add_faults(tmp_path / "in", tmp_path / "in" / "good.png", ".png")
    (tmp_path / "in" / "good.png.part").touch()  # left over beside the complete file
    (tmp_path / "in" / "x" / "good.png").symlink_to(tmp_path / "nowhere.png")
    closed("shut")
    rows = "good.png,1\ngone,2\n/data/a.png,3\nx/good.png,4\nmissing.png,5\n"  # by stem, by a prefixed path, and a folder that matters
    (tmp_path / "t.csv").write_text(f"file,patient\n{rows}")
    output = run("folder", tmp_path / "in", tmp_path / "s.h5", "--size", "32", "--labels", tmp_path / "t.csv", "--workers", "1", code=1)
    named = {"a.png": "a.png.partial is an incomplete download", "x/good.png": "is a link to .*nowhere.png", "missing.png": "no such file"}
    del expected["a.png.partial"]
    expected |= named | {"good.png.part": "incomplete download", "gone.png": "^is a link|gone.png is a link"}
    check(tmp_path / "s.h5", expected)
    assert f"{len(expected) + 1} inputs: 1 stored, {len(expected)} quarantined, 0 left out" in output
    with h5py.File(tmp_path / "s.h5") as file:
        assert file["index/key"].asstr()[:].tolist() == ["good.png"]


def test_ingest_dicom_quarantines_them(tmp_path, closed):
    (tmp_path / "in").mkdir()
    save_dicom(build_dicom(ramp()), tmp_path / "in" / "good.dcm")
    expected = add_faults(tmp_path / "in", tmp_path / "in" / "good.dcm", ".dcm") | {"empty.dcm": "is empty"}
    (tmp_path / "in" / "empty.dcm").touch()
    closed("shut")
    output = run("dicom", tmp_path / "in", tmp_path / "s.h5", "--size", "32", "--workers", "1", code=1)
    check(tmp_path / "s.h5", expected)
    assert f"{len(expected) + 1} inputs: 1 stored, {len(expected)} quarantined, 0 left out" in output


def test_ingest_wsi_quarantines_them(tmp_path, closed):
    good = write_slide(tmp_path / "in" / "good.tiff", [tissue_like(512, 512)], mpp=0.5)
    expected = add_faults(tmp_path / "in", good, ".tiff") | {"empty.svs": ""}
    (tmp_path / "in" / "empty.svs").touch()
    closed("shut")
    output = run("wsi", tmp_path / "in", tmp_path / "out", "--workers", "1", code=1)
    assert f"4 tiles of 1 of {len(expected) + 1} slides" in output
    check(tmp_path / "out" / "slides", expected)
    html = re.sub('base64,[^"]*', "", (tmp_path / "out" / "overview.html").read_text())
    assert html.count('<td class="bad">') == len(expected)
    assert html.count("is an incomplete download") == sum("is an incomplete download" in why for why in expected.values())
    assert "is a link to (file).tiff, which does not exist" in html
    assert "is a folder that cannot be read: Permission denied" in html
    assert not any(word in html for word in (*expected, "nowhere", "unmounted", "good"))  # a slide is called by its row in slides.csv
    assert len((tmp_path / "out" / "slides.csv").read_text().splitlines()) == len(expected) + 2
    good.unlink()
    (tmp_path / "in" / "empty.svs").unlink()
    with pytest.raises(InputError, match="holds no slide .* and 12 that cannot be read .first: Unconfirmed 1.crdownload is an incomplete"):
        run("wsi", tmp_path / "in", tmp_path / "other", code=2)


def test_a_slide_whose_regions_are_broken_is_not_tiled_whole(tmp_path):
    for name in "ab":
        write_slide(tmp_path / "in" / f"{name}.tiff", [tissue_like(512, 512)], mpp=0.5)
    square = '{"type":"Feature","properties":{},"geometry":{"type":"Polygon","coordinates":[[[0,0],[512,0],[512,512],[0,512],[0,0]]]}}'
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "a.geojson").write_text(square)
    for fault in ("b.geojson", "b.geojson.part"):
        (tmp_path / "drawn" / fault).symlink_to("nowhere")
        run("wsi", tmp_path / "in", tmp_path / fault, "--regions", tmp_path / "drawn", "--workers", "1", code=1)
        check(tmp_path / fault / "slides", {"b.tiff": "its regions b.geojson.* cannot be read"})
        (tmp_path / "drawn" / fault).unlink()


def test_ingest_nifti_quarantines_them(tmp_path, closed):
    nibabel = pytest.importorskip("nibabel")
    (tmp_path / "in").mkdir()
    volume = np.random.default_rng(0).integers(0, 200, (24, 24, 4)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(volume, np.eye(4)), tmp_path / "in" / "good.nii")
    expected = add_faults(tmp_path / "in", tmp_path / "in" / "good.nii", ".nii") | {"empty.nii.gz": "is empty"}
    (tmp_path / "in" / "empty.nii.gz").touch()
    closed("shut")
    run("nifti", tmp_path / "in", tmp_path / "s.h5", "--size", "16", "--workers", "1", code=1)
    check(tmp_path / "s.h5", expected)


def test_ingest_hdf5_quarantines_them(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("good", "d"):
        with h5py.File(tmp_path / "in" / f"{name}.h5", "w") as file:
            file["imgs"] = np.random.default_rng(0).integers(0, 255, (3, 8, 8, 3), dtype=np.uint8)
    (tmp_path / "in" / "gone.h5").symlink_to("nowhere")
    (tmp_path / "in" / "cut.h5").write_bytes((tmp_path / "in" / "good.h5").read_bytes()[:-100])
    (tmp_path / "in" / "empty.h5").touch()
    (tmp_path / "in" / "a.h5.part").touch()
    with h5py.File(tmp_path / "in" / "other.h5", "w") as file:
        file["coords"] = np.zeros((3, 2))
    expected = {
        "gone.h5": "is a link to nowhere, which does not exist",
        "cut.h5": "is not a readable HDF5 file",
        "empty.h5": "is empty",
        "a.h5.part": "is an incomplete download",
        "other.h5": "no dataset called 'imgs'",
    }
    output = run("hdf5", tmp_path / "in" / "*.h5", tmp_path / "s.h5", "--images", "imgs", "--workers", "1", code=1)
    check(tmp_path / "s.h5", expected)
    assert "11 inputs: 6 stored, 5 quarantined, 0 left out" in output
    with h5py.File(tmp_path / "s.h5") as file:
        assert sorted({key.split("/")[0] for key in file["index/key"].asstr()[:]}) == ["d", "good"]
    for name in ("good", "d"):
        (tmp_path / "in" / f"{name}.h5").unlink()
    with pytest.raises(InputError, match="a.h5.part is an incomplete download"):
        run("hdf5", tmp_path / "in" / "*.h5", tmp_path / "t.h5", "--images", "imgs", code=2)


def test_ingest_medmnist_says_why_its_file_cannot_be_read(tmp_path):
    (tmp_path / "pneumoniamnist.npz").symlink_to("nowhere")
    (tmp_path / "bloodmnist.npz.crdownload").write_bytes(b"PK")
    (tmp_path / "pathmnist.npz").touch()
    for name, reason in (
        ("pneumoniamnist.npz", "is a link to nowhere, which does not exist"),
        ("bloodmnist.npz", "does not exist, but bloodmnist.npz.crdownload does, an incomplete download"),
        ("pathmnist.npz", "is empty"),
    ):
        with pytest.raises(InputError, match=reason):
            run("medmnist", tmp_path / name, tmp_path / "s.h5", code=2)
