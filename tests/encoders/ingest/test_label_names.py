"""Names of labels and classes are checked where they enter: what `transfer tasks add` refuses is not stored."""

import h5py
import numpy as np
import pytest
from PIL import Image

from encoders.ingest.folder import FolderSource
from encoders.ingest.hdf5 import Hdf5Source
from encoders.ingest.quarantine import read_quarantine
from encoders.ingest.shards import ingest
from encoders.ingest.wsi.slide_table import SlideFields, TableJoin, apply_slide_table
from encoders.runtime.errors import InputError
from encoders.store.store import Store

ODD = {"left\u200bright": "U+200B", "a\u202eb": "U+202E", "Pleural\u00a0Effusion": "U+00A0", "x\x1b[31m": "U+001B", "y" * 300: "300 bytes"}
FINE = ["Pleural Effusion", "=1", "肺", "<5 mm", "a/b"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "in").mkdir()
    draw = np.random.default_rng(0)
    for i in range(len(ODD) + len(FINE)):
        Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(tmp_path / "in" / f"{i}.png")
    return tmp_path


def test_an_image_with_a_class_that_cannot_be_seen_is_quarantined(folder):
    rows = [f"{i}.png,{name}" for i, name in enumerate([*ODD, *FINE])]
    (folder / "a.csv").write_text("file,label\n" + "\n".join(rows) + "\n", newline="")
    ingest(FolderSource(folder / "in", folder / "a.csv", size=8, dataset="a"), folder / "a.h5")
    assert Store.open(folder / "a.h5").classes("label") == sorted(FINE)
    reasons = dict(read_quarantine(folder / "a.h5"))
    assert len(reasons) == len(ODD)
    for i, words in enumerate(ODD.values()):
        assert words in reasons[f"{i}.png"]
        assert "cannot be a label" in reasons[f"{i}.png"]


@pytest.mark.parametrize("column", [name for name in ODD if len(name) < 100])
def test_a_column_that_cannot_be_seen_is_no_label(folder, column):
    (folder / "a.csv").write_text(f"file,{column}\n0.png,1\n1.png,0\n", newline="")
    with pytest.raises(InputError, match="cannot be a label: it has the invisible character"):
        FolderSource(folder / "in", folder / "a.csv", size=8, label=[column])


def test_texts_of_arrays_are_checked_too(folder):
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), dtype=np.uint8)
        file["y"] = np.array(["benign", "a\u202eb", "malignant"], h5py.string_dtype())
    ingest(Hdf5Source([folder / "a.h5"], "x", labels="y"), folder / "out.h5")
    assert Store.open(folder / "out.h5").classes("y") == ["benign", "malignant"]
    ((_, reason),) = read_quarantine(folder / "out.h5")
    assert "U+202E" in reason


def test_the_table_of_slides_is_checked(tmp_path):
    (tmp_path / "a.csv").write_text("file,label\ns,a\u202eb\n", newline="")
    fields = {"s": SlideFields(0.5, {}, {}, {})}
    with pytest.raises(InputError, match=r"'a\\u202eb' cannot be a label: it has the invisible character U\+202E"):
        apply_slide_table(fields, {"s": "s.svs"}, tmp_path / "a.csv", (), (), TableJoin(), [], tmp_path)
