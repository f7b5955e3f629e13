"""Tables of slides: repeated rows merge or are combined, several tables are joined, and every row and slide is counted."""

import gzip

import pytest

from encoders.ingest.wsi.find_slides import list_slide_items
from encoders.ingest.wsi.slide_table import TableJoin
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from tests.encoders.ingest.wsi.command import run
from tests.encoders.ingest.wsi.slide_files import draw_slide, write_slide

SLIDES = ["p1/a.svs", "p1/b.svs", "p2/c.svs"]


def read(tmp_path, *tables, pattern=None, label=(), meta=(), **join):
    """The items by source and the notes, for tables given as text."""
    for name in SLIDES:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    paths = []
    for k, text in enumerate(tables):
        paths.append(tmp_path / f"t{k}.csv")
        paths[-1].write_text(text)
    items, notes, _ = list_slide_items(tmp_path / "in", None, None, None, paths, label, meta, pattern, (), (), "set", TableJoin(**join))
    return {item.source: item for item in items}, notes


def test_repeated_rows_that_agree_merge_and_are_counted(tmp_path):
    rows = ["a,P1,tumor,0.25,1", "a.svs,P1,tumor,0.250,2", "p1/a.svs,P1,,,3", "c,P2,normal,0.5,1", "z,P3,normal,0.5,1"]
    text = "\n".join(["slide_id,patient,label,mpp,block", *rows])
    items, notes = read(tmp_path, text)
    assert {s: (i.mpp, dict(i.index_fields), dict(i.labels)) for s, i in items.items()} == {
        "p1/a.svs": (0.25, {"patient": "P1"}, {"label": "tumor"}),
        "p2/c.svs": (0.5, {"patient": "P2"}, {"label": "normal"}),
    }
    assert "4 rows for 2 slides: repeated rows merged (1 slides have several)" in notes
    assert "5 rows, 1 of them without a slide (first: z); 1 slides without a row (first: p1__b)" in notes


@pytest.mark.parametrize(("rows", "message"), [
    ("a,P1,1,\na,P1,0,", r"rows of slide p1__a disagree on column 'label': '1' and '0'; choose how to combine them with --combine max"),
    ("a,P1,1,0.25\np1/a.svs,P2,1,0.25", r"disagree on column 'patient': 'P1' and 'P2'; a slide has one patient: correct the table"),
    ("a,P1,1,0.25\na,P1,1,0.5", r"disagree on column 'mpp': '0.25' and '0.5'; a slide has one mpp: correct the table"),
    ("a,P1,1,0.25\na,P1,0,0.25\nc,P2,1,\nc,P2,0,", r"'1' and '0' \(2 slides have such rows\)"),
])  # fmt: skip
def test_rows_that_disagree_are_an_error_with_both_values(tmp_path, rows, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, f"slide,patient,label,mpp\n{rows}\n")


@pytest.mark.parametrize("combine", ["max", "any", "mean", "majority"])
def test_patients_and_resolutions_are_never_combined(tmp_path, combine):
    with pytest.raises(InputError, match=r"disagree on column 'mpp': '0\.25' and '0\.5'"):
        read(tmp_path, "slide,label,mpp\na,1,0.25\na,0,0.5\n", combine=combine)


@pytest.mark.parametrize(("combine", "want"), [("max", "3"), ("mean", "2"), ("majority", "3")])
def test_rows_that_disagree_are_combined(tmp_path, combine, want):
    items, notes = read(tmp_path, "slide,grade,rater\na,3,x\na,3,y\na,0,z\nc,1,x\n", label=["grade"], combine=combine)
    assert items["p1/a.svs"].labels["grade"] == want
    assert items["p2/c.svs"].labels["grade"] == "1"
    assert any(note.startswith(f"rows that disagree are combined by {combine}") and note.endswith("slides: grade 1") for note in notes)
    if combine == "majority":
        assert {s: i.meta["grade_agreement"] for s, i in items.items()} == {"p1/a.svs": "0.6667", "p2/c.svs": "1"}


def test_one_vote_per_reader(tmp_path):
    text = "slide,grade,rater\na,1,x\na,1,x\na,1,x\na,0,y\na,0,z\n"
    assert read(tmp_path, text, label=["grade"], combine="majority")[0]["p1/a.svs"].labels["grade"] == "0"
    assert read(tmp_path, text, label=["grade"], combine="majority", reader="")[0]["p1/a.svs"].labels["grade"] == "1"


def test_several_tables_are_joined_and_patients_of_the_pattern_name_slides(tmp_path):
    items, _ = read(tmp_path, "slide,patient\na,P1\nb,P1\nc,P2\n", "patient,label\nP1,1\nP2,0\n", on=["patient"])
    assert {s: i.labels["label"] for s, i in items.items()} == {"p1/a.svs": "1", "p1/b.svs": "1", "p2/c.svs": "0"}
    items, notes = read(tmp_path, "patient,label\np1,1\np3,0\n", pattern="^(?P<patient>p[0-9])/")
    assert {s: (i.labels["label"], i.index_fields["patient"]) for s, i in items.items()} == {
        "p1/a.svs": ("1", "p1"),
        "p1/b.svs": ("1", "p1"),
    }
    assert "2 rows, 1 of them without a slide (first: p3); 1 slides without a row (first: p2__c)" in notes


def test_a_table_that_names_no_slide_shows_both_sides(tmp_path):
    with pytest.raises(
        InputError, match=r"none of the 2 values in column 'slide' .* the table has e\.g\. 'x', the images have e\.g\. file 'p1/a\.svs'"
    ):
        read(tmp_path, "slide,label\nx,1\ny,0\n")
    with pytest.raises(InputError, match="call it file or slide; columns: patient, label"):
        read(tmp_path, "patient,label\np1,1\n")


def test_the_command_combines_the_rows_of_a_compressed_table(tmp_path):
    for name in ("a", "b"):
        write_slide(tmp_path / "in" / f"{name}.tiff", [draw_slide(768, 768, [(0, 0, 640, 640)])])
    rows = "file;finding;reader\na.tiff;1;x\na.tiff;0;y\na.tiff;1;z\nb.tiff;0;x\n"
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(rows.encode("utf-8-sig")))
    given = [tmp_path / "in", tmp_path / "out", "--labels", tmp_path / "t.csv.gz", "--label-column", "finding", "--mpp", 0.5, "--tile", 128]
    output = run(*given, "--combine", "majority", "--workers", 1)
    assert "4 rows for 2 slides: repeated rows merged (1 slides have several)" in output
    part = Store.open(tmp_path / "out" / "a.h5").parts[0]
    assert set(part.column("labels", "finding")) == {1.0}
    assert set(part.column("meta", "finding_agreement")) == {0.6667}
    with pytest.raises(InputError, match="rows of slide a disagree on column 'finding': '1' and '0'"):
        run(*given, "--workers", 1)
