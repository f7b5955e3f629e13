"""Which file a table means: every spelling of its path finds it, and a path of another file never does."""

import time

import pytest

from encoders.ingest.tables.file_finder import FileFinder, clean_path, stem_of

TREE = ["a/1.png", "a/2.png", "b/1.png", "deep/er/3.jpg"]


@pytest.mark.parametrize(
    ("value", "file"),
    [
        ("a/1.png", "a/1.png"),
        ("./a/1.png", "a/1.png"),
        ("a\\1.png", "a/1.png"),
        ("C:\\data\\set\\a\\1.png", "a/1.png"),
        ("\\\\server\\share\\a\\1.PNG", "a/1.png"),
        ("/home/x/a/1.png", "a/1.png"),
        ("file:///home/x/a/1.png", "a/1.png"),
        ("Set-v1.0/train/a/1.png", "a/1.png"),
        ("a//1.png", "a/1.png"),
        ("a/1", "a/1.png"),
        ("a/1.dcm", "a/1.png"),
        ("2", "a/2.png"),
        ("2.png", "a/2.png"),
        ("3.JPG", "deep/er/3.jpg"),
        ("er/3", "deep/er/3.jpg"),
        ("/other/place/3.jpg", "deep/er/3.jpg"),
        ("1.png", None),
        ("c/1.png", None),
        ("b/2.png", None),  # b exists, and 2.png is not in it
        ("4.png", None),
        ("", None),
    ],
)
def test_a_path_finds_the_file_that_it_means(value, file):
    assert FileFinder(TREE).match([value]).files.get(value) == file


def test_a_name_in_two_folders_says_so():
    found = FileFinder([*TREE, "c/1.png"]).match(["1.png", "a/1.png"])
    assert found.files == {"a/1.png": "a/1.png"}
    assert found.reasons["1.png"].startswith("3 files are called 1.png: a/1.png, b/1.png, ...")
    assert FileFinder(TREE).match(["1"]).reasons["1"].startswith("two files are called 1: a/1.png, b/1.png")


def test_a_missing_file_is_not_taken_for_that_of_another_patient_or_part():
    files = ["patient1/study1/view1.jpg"]
    here, other = "CheX/train/patient1/study1/view1.jpg", "CheX/train/patient2/study1/view1.jpg"
    found = FileFinder(files).match([other, here])
    assert found.files == {here: files[0]}
    assert "end like one file" in found.reasons[other]
    assert FileFinder(["valid/p1/v.jpg"]).match(["train/p1/v.jpg"]).files == {}
    assert FileFinder(["valid/p1/v.jpg", "train/p2/v.jpg"]).match(["train/p1/v.jpg"]).files == {}
    assert FileFinder(["1.png"]).match(["train/1.png", "test/1.png"]).files == {}


def test_a_match_by_the_end_alone_is_reported():
    found = FileFinder(["images_001/1.png"]).match(["/home/bob/images/1.png", "images_001/1.png"][:1])
    assert found.files == {"/home/bob/images/1.png": "images_001/1.png"}
    assert found.by_end == ["/home/bob/images/1.png"]


def test_the_folder_in_front_of_other_paths_tells_files_of_one_name_apart():
    files = ["x.png", "a/x.png", "b/y.png"]
    assert FileFinder(files).match(["/abs/x.png", "/abs/b/y.png"]).files == {"/abs/x.png": "x.png", "/abs/b/y.png": "b/y.png"}
    assert FileFinder(files, root="/abs").match(["/abs/x.png"]).files == {"/abs/x.png": "x.png"}


def test_accents_of_a_mac_are_those_of_a_table():
    assert FileFinder(["Mu\u0308ller/1.png"]).match(["M\u00fcller/1.png"]).files == {"M\u00fcller/1.png": "Mu\u0308ller/1.png"}


def test_the_last_number_of_an_identifier_is_no_suffix():
    assert FileFinder(["1.2.3.4", "1.2.3.5"]).match(["1.2.3.4"]).files == {"1.2.3.4": "1.2.3.4"}
    assert (stem_of("1.2.3.4.dcm.png"), stem_of("1.2.3.4"), stem_of("x.nii.gz")) == ("1.2.3.4", "1.2.3.4", "x")
    assert clean_path(".\\a\\.\\b.png") == "a/b.png"


@pytest.mark.parametrize("front", ["", "/mnt/data/images/", "D:\\set\\"])
def test_the_work_does_not_grow_with_the_square_of_the_number_of_paths(front):
    files = [f"images_{i % 12:03d}/images/{i:08d}_000.png" for i in range(30_000)]
    start = time.process_time()
    found = FileFinder(files).match([f"{front}{i:08d}_000.png" for i in range(30_000)])
    assert len(found.files) == 30_000
    assert time.process_time() - start < 20  # under a second of CPU time; every path with every file would take minutes


@pytest.mark.parametrize(
    ("folder", "value", "file"),
    [
        ("/data/a", "1.png", "a/1.png"),  # b has one of that name too
        ("/data/b", "1.png", "b/1.png"),
        ("/data/tables", "../b/1.png", "b/1.png"),
        ("/data/tables/x", "..\\..\\a\\1.png", "a/1.png"),
        ("/lists", "../data/a/1.png", "a/1.png"),
        ("/data", "./a/./1.png", "a/1.png"),
        ("/data/b", "a/1.png", "a/1.png"),  # relative to the folder of the images comes first
        ("/data/tables", "../../other/1.png", None),
        ("/elsewhere", "1.png", None),
    ],
)
def test_a_path_may_begin_in_the_folder_of_the_table(folder, value, file):
    assert FileFinder(["a/1.png", "b/1.png"], "/data", [folder]).match([value]).files.get(value) == file


def test_without_a_root_nothing_is_looked_up_beside_the_table():
    assert FileFinder(["a/1.png", "b/1.png"], "", ["/data/a"]).match(["1.png"]).files == {}
