"""Symbolic links in a folder that is ingested: followed, also out of it, and no loop is endless."""

import numpy as np
from PIL import Image

from encoders.doctor.checks import examine_store
from encoders.ingest.folder import FolderSource
from encoders.ingest.list_files import BrokenFile, find_files
from encoders.ingest.quarantine import read_quarantine
from encoders.ingest.shards import ingest
from encoders.store.store import Store


def test_links_are_followed_and_loops_end(tmp_path):
    for name in ("in/a.png", "in/p2/c.png", "disk/x/d.png", "disk/y/e.png", "beside/f.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    for name, target in {
        "in/file.png": "disk/x/d.png", "in/twin.png": "in/a.png", "in/case": "disk/x", "in/case2": "disk/x", "in/latest": "in/p2",
        "in/round": "in", "disk/x/back": "in", "in/up": ".", "disk/x/up": "disk", "in/p2/chain": "in/latest",
    }.items():  # fmt: skip
        (tmp_path / name).symlink_to(tmp_path / target)
    (tmp_path / "in" / "root").symlink_to("/")
    found = find_files(tmp_path / "in")
    names = [path.relative_to(tmp_path / "in").as_posix() for path in found.files]
    assert names == ["a.png", "case/d.png", "file.png", "p2/c.png", "twin.png"]
    reason = "is a link to {}, a folder above it, which is not searched"
    real = tmp_path.resolve()
    assert found.broken == [
        BrokenFile("case/up", reason.format(real / "disk")),
        BrokenFile("root", reason.format("/")),
        BrokenFile("up", reason.format(real)),
    ]


def test_images_behind_links_are_stored_and_found_as_duplicates_by_their_pixels(tmp_path):
    draw = np.random.default_rng(0)
    (tmp_path / "disk").mkdir()
    (tmp_path / "in").mkdir()
    for i in range(3):
        Image.fromarray(draw.integers(0, 256, (16, 16), dtype=np.uint8)).save(tmp_path / "disk" / f"{i}.png")
        (tmp_path / "in" / f"{i}.png").symlink_to(tmp_path / "disk" / f"{i}.png")
    (tmp_path / "in" / "again.png").symlink_to(tmp_path / "in" / "0.png")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "disk" / "3.png")
    summary = ingest(FolderSource(tmp_path / "in", size=16, dataset="a"), tmp_path / "a.h5")
    assert summary.rows == 4
    assert read_quarantine(tmp_path / "a.h5") == [("gone.png", f"is a link to {tmp_path}/disk/3.png, which does not exist")]
    found = examine_store(Store.open(tmp_path / "a.h5"), near=False, seconds=0.01, floor=False)
    assert found["exact"]["keys"] == [["0.png", "again.png"]]
