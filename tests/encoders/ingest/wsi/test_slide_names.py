"""Names of slides fit into every file system, are unique there, and say what was changed."""

import os

import pytest

from encoders.ingest.wsi.discover import discover_slides
from encoders.runtime.file_names import MAX_NAME_BYTES, shorten_file_name
from encoders.store.store import Store
from tests.encoders.ingest.wsi.command import run
from tests.encoders.ingest.wsi.slide_files import draw_slide, write_slide

UUIDS = ["0e7b1f5c-77a9-4a3e-9d5e-1b2c3d4e5f60", "A91C2B3D-0000-4AAA-BBBB-CCCCDDDDEEEE", "11111111-2222-3333-4444-555555555555"]
BARCODE = "TCGA-AA-3872-01Z-00-DX1.eb3732ee-40e3-4ff0-a42b-d6a85cfbab6a"


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def names_of(folder):
    notes: list[str] = []
    slides = discover_slides(folder, notes)[0]
    return {path.relative_to(folder).as_posix(): name for name, path in slides.items()}, notes


def test_the_uuid_folder_of_the_gdc_is_left_out_unless_two_files_have_one_name(tmp_path):
    touch(tmp_path, f"{UUIDS[0]}/{BARCODE}.svs", f"brca/{UUIDS[1]}/b.svs", f"{UUIDS[2]}/c/d.svs", "not-a-uuid/e.svs", f"{UUIDS[2]}.svs")
    found, notes = names_of(tmp_path)
    assert found == {
        f"{UUIDS[0]}/{BARCODE}.svs": BARCODE,
        f"brca/{UUIDS[1]}/b.svs": "brca__b",
        f"{UUIDS[2]}/c/d.svs": f"{UUIDS[2]}__c__d",
        "not-a-uuid/e.svs": "not-a-uuid__e",
        f"{UUIDS[2]}.svs": UUIDS[2],
    }
    assert notes == [
        f"2 slides are called by their file, without the UUID folder of the GDC (first: {UUIDS[0]}/{BARCODE}.svs is called {BARCODE})"
    ]


@pytest.mark.parametrize("other", [f"{UUIDS[1]}/a.svs", f"{UUIDS[1]}/A.SVS", f"{UUIDS[1]}/a.tiff", "a.svs"])
def test_the_uuid_stays_where_the_file_name_is_not_unique(tmp_path, other):
    touch(tmp_path, f"{UUIDS[0]}/a.svs", other)
    found, notes = names_of(tmp_path)
    stem = other.replace("/", "__").rpartition(".")[0]
    assert found == {f"{UUIDS[0]}/a.svs": f"{UUIDS[0]}__a", other: stem}
    assert len(notes) == 1
    assert "keep the UUID of their folder: their file names are not unique" in notes[0]
    assert notes[0].startswith("1 " if other == "a.svs" else "2 ")


@pytest.mark.parametrize("names", [
    ("a/b.tiff", "a__b.tiff"), ("x.tif", "x.tiff", "x.tif.tiff"), ("S1.svs", "s1.svs"), ("P/s.svs", "p/s.svs"),
    ("Stra\u00dfe.svs", "STRASSE.svs"), ("caf\u00e9.svs", "cafe\u0301.svs"), ("lock.svs", "ANEW.svs"),
])  # fmt: skip
def test_names_that_are_equal_on_some_file_system_become_unique(tmp_path, names):
    touch(tmp_path, *names)
    found, notes = names_of(tmp_path)
    assert found.keys() == set(names)
    assert len({name.casefold() for name in found.values()}) == len(names)
    assert not {"lock", "anew"} & {name.casefold() for name in found.values()}
    if "lock.svs" in names:
        assert found == {"lock.svs": "lock.svs", "ANEW.svs": "ANEW.svs"}
    else:
        assert "have a hash in their name, which would not be unique otherwise" in " ".join(notes)
    assert names_of(tmp_path)[0] == found, "the same names at every run"


@pytest.mark.parametrize("name", [
    "x" * 240 + ".svs", "\u7d44\u7e54" * 40 + ".svs", "/".join(["folder" * 20] * 4) + "/s.svs",
    "\U0001f52c" * 62 + ".tiff", "e\u0301" * 80 + ".svs",
])  # fmt: skip
def test_overlong_names_are_cut_between_characters_and_stay_unique(tmp_path, name):
    head, _, suffix = name.rpartition(".")
    twin = f"{head[:-1]}y.{suffix}"
    touch(tmp_path, name, twin, "short.svs")
    found, notes = names_of(tmp_path)
    assert found["short.svs"] == "short"
    assert found[name] != found[twin]
    for made in (found[name], found[twin]):
        assert MAX_NAME_BYTES - 4 < len(made.encode()) <= MAX_NAME_BYTES
        assert head.replace("/", "__").startswith(made.rpartition("_")[0]), "whole characters"
    assert f"2 names of slides exceed {MAX_NAME_BYTES} bytes and are cut, with a hash" in notes[0]


def test_a_name_of_the_largest_size_is_kept():
    assert shorten_file_name("\u00e4" * (MAX_NAME_BYTES // 2)) == "\u00e4" * (MAX_NAME_BYTES // 2)
    assert shorten_file_name("\u00e4" * (MAX_NAME_BYTES // 2) + "a").startswith("\u00e4" * 70)


def test_slides_with_overlong_odd_or_reserved_names_are_tiled_beside_the_others(tmp_path):
    tissue = draw_slide(768, 768, [(0, 0, 640, 640)])
    first = write_slide(tmp_path / "in" / "good.tiff", [tissue])
    odd = ["/".join(["\u7d44\u7e54" * 30] * 2) + "/a.tiff", "lock.tiff", os.fsdecode(b"caf\xe9.tiff"), "Good.tiff", "z" * 250 + ".tif"]
    for name in odd:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        os.link(first, tmp_path / "in" / name)
    output = run(tmp_path / "in", tmp_path / "out", "--mpp", 0.25, "--tile", 128, "--workers", 1)
    assert "of 6 of 6 slides" in output
    store = Store.open(f"{tmp_path}/out/*.h5")
    assert len({*store.column("slide")}) == 6
    assert "caf\ufffd" in store.column("slide")
    assert len(list((tmp_path / "out" / "slides").glob("*.jpg"))) == 6


def test_masks_are_found_by_the_name_of_the_store_and_by_the_path(tmp_path):
    from encoders.ingest.wsi.find_slides import find_mask

    touch(tmp_path, f"{UUIDS[0]}__a.png", "b.png", f"{UUIDS[0]}/c.png")
    assert find_mask(tmp_path, "a", f"{UUIDS[0]}/a.svs").name == f"{UUIDS[0]}__a.png"
    assert find_mask(tmp_path, "b", f"{UUIDS[0]}/b.svs").name == "b.png"
    assert find_mask(tmp_path, "c", f"{UUIDS[0]}/c.svs") == tmp_path / UUIDS[0] / "c.png"
    assert find_mask(tmp_path, "d", "/".join(["x" * 200] * 2) + ".svs") == tmp_path / "d.png"
