"""Every source keeps the contract: it resumes to the same bytes, quarantines unreadable items, and keeps the order of its items."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from encoders.cli.main import app
from encoders.ingest.phantom.kind import PhantomKind
from encoders.ingest.phantom.source import PHANTOM_KINDS
from encoders.ingest.source import ImageRow, ItemCollection, Source, Unreadable
from encoders.ingest.sources import SOURCES, SourceEntry, find_source, ingest_source, open_source
from encoders.ingest.wsi.settings import TilingSettings
from encoders.runtime.errors import InputError
from encoders.store.store import Store
from tests.encoders.ingest.array_files import random_images, write_medmnist
from tests.encoders.ingest.dicom_files import build_dicom, ramp, save_dicom
from tests.encoders.ingest.nifti.volume_files import head, save_volume
from tests.encoders.ingest.wsi.slide_files import draw_slide, write_slide

BAD = 27  # number of the unreadable item, in the second shard of 25


@dataclass
class Case:
    """The arguments of a source, and its unreadable items."""

    arguments: tuple[Any, ...]
    options: dict[str, Any] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)  # name of the item to a part of the reason


def folder_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    (tmp_path / "in").mkdir()
    for k, image in enumerate(random_images(30, 12, 0)):
        Image.fromarray(image).save(tmp_path / "in" / f"{k:02d}.png")
    (tmp_path / "in" / f"{BAD}.png").write_text("no image")
    return Case((tmp_path / "in",), {"size": 0}, {f"{BAD}.png": "not a PNG"})


def dicom_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    for k in range(30):
        save_dicom(build_dicom(np.roll(ramp(shape=(12, 12)), k), f"1.2.9.{k}", PatientID=f"P{k // 2}"), tmp_path / "in" / f"{k:02d}.dcm")
    (tmp_path / "in" / f"{BAD}.dcm").write_bytes(b"no image" * 40)
    return Case((tmp_path / "in",), {"size": 0}, {f"{BAD}.dcm": "not a DICOM file"})


def medmnist_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    arrays = write_medmnist(tmp_path / "octmnist.npz", n=(29, 2, 2))
    arrays["train_images"][BAD] = 7
    np.savez(tmp_path / "octmnist.npz", **arrays)
    return Case((tmp_path / "octmnist.npz", tmp_path / "spool"), {}, {f"train/{BAD:06d}": "constant image"})


def hdf5_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    images = random_images(30, 12, 1, np.float32)
    images[BAD] = np.nan
    with h5py.File(tmp_path / "in.h5", "w") as file:
        file["images"] = images
    return Case(([tmp_path / "in.h5"], "images"), {}, {f"in/{BAD:06d}": "NaN"})


@dataclass
class FewFaces:
    """A person whose label is also the gray level of all images."""

    label: int


def draw_noise(person: FewFaces, rng: np.random.Generator, size: int) -> tuple[np.ndarray, dict[str, str | int]]:
    if person.label:
        raise Unreadable("drawn without a face")
    return rng.integers(0, 256, (size, size, 1), dtype=np.uint8), {"sex": "F"}


def phantom_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    """A kind of phantom from outside the package, of which every person with label 1 is unreadable."""
    kind = PhantomKind("smile", 1, 77, lambda rng: FewFaces(int(rng.integers(2))), draw_noise)
    monkeypatch.setitem(PHANTOM_KINDS, "faces", kind)
    source = open_source("phantom", "faces", 14, 32)
    broken = {}
    for item in source.items():
        try:
            source.read(item)
        except Unreadable:
            broken[source.name(item)] = "drawn without a face"
    return Case(("faces", 14, 32), {}, broken)


def nifti_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    for k in range(30):
        save_volume(tmp_path / "in" / f"{k:02d}.nii.gz", head((8, 8, 4), seed=k))
    (tmp_path / "in" / f"{BAD}.nii.gz").write_text("no volume")
    return Case((tmp_path / "in",), {"size": 0}, {f"{BAD}.nii.gz": "not a NIfTI volume"})


def slide_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    for k, name in enumerate("ac"):
        write_slide(tmp_path / "in" / f"{name}.tiff", [draw_slide(512, 768, [(0, 0, 512, 512)], seed=k)], mpp=0.5)
    (tmp_path / "in" / "b.svs").write_text("no slide")
    return Case((tmp_path / "in", TilingSettings(mpp=0.5, tile=128)), {}, {"b.svs": "format"})


class ToySource(Source[int]):
    """A source from outside the package, with the required members only: 30 images, of which one is unreadable."""

    modality, dataset = "toy", "numbers"

    def items(self) -> list[int]:
        return list(range(30))

    def name(self, item: int) -> str:
        return f"n{item}"

    def read(self, item: int) -> ImageRow:
        if item == BAD:
            raise Unreadable("is the number that nobody can read")
        return ImageRow(np.random.default_rng(item).integers(0, 256, (8, 8, 1), dtype=np.uint8), {"key": self.name(item)})

    def recipe(self) -> dict[str, Any]:
        return {"command": "toy"}


def toy_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Case:
    monkeypatch.setitem(SOURCES, "toy", SourceEntry(lambda: ToySource, "Numbers become images."))
    return Case((), {}, {f"n{BAD}": "nobody can read"})


CASES: dict[str, Callable[[Path, pytest.MonkeyPatch], Case]] = {
    "folder": folder_case,
    "phantom": phantom_case,
    "dicom": dicom_case,
    "medmnist": medmnist_case,
    "hdf5": hdf5_case,
    "nifti": nifti_case,
    "wsi": slide_case,
    "toy": toy_case,
}


def stores(out: Path) -> list[Path]:
    """The stores that an ingest wrote."""
    return sorted(out.glob("*.h5")) if out.is_dir() else [out]


def content(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in stores(out)}


def interrupt_after(calls: int) -> Callable[[int], None]:
    """A progress function that ends the ingest like Ctrl-C, at the given number of reports of work."""
    left = [calls]

    def tick(n: int) -> None:
        left[0] -= n > 0
        if left[0] < 0:
            raise KeyboardInterrupt

    return tick


def test_every_source_is_tested():
    assert set(SOURCES) | {"toy"} == set(CASES)


@pytest.mark.parametrize("name", [*SOURCES, "toy"])
def test_a_source_resumes_to_the_same_bytes_quarantines_and_keeps_its_order(tmp_path, monkeypatch, name):
    case = CASES[name](tmp_path, monkeypatch)
    out, resumed = tmp_path / "out" / "whole.h5", tmp_path / "out" / "resumed.h5"

    def source() -> ItemCollection[Any]:
        return open_source(name, *case.arguments, **case.options)

    whole = ingest_source(name, source(), out)
    assert whole.exit_code == 1
    assert {item for item, _ in whole.quarantined} == set(case.broken)
    assert all(case.broken[item] in reason for item, reason in whole.quarantined)

    interruptions = 0
    for calls in (0, 3, 4, 26, 10**6):  # at the first item, twice in the first shard, in the second; then not at all
        try:
            again = ingest_source(name, source(), resumed, tick=interrupt_after(calls))
        except KeyboardInterrupt:
            interruptions += 1
            continue
        break
    assert interruptions >= 3
    assert content(resumed) == {path.replace("whole", "resumed"): blob for path, blob in content(out).items()}
    assert (again.rows, again.quarantined) == (whole.rows, whole.quarantined)

    names = [source().name(item) for item in source().items()]
    keys = [key for path in stores(out) for key in Store.open(path).column("key")]
    assert len(keys) == whole.rows
    read = [next(item for item in names if key == item or key.startswith(f"{item}/")) for key in keys]
    order = [item for item, _ in groupby(read)]
    assert order == [item for item in names if item in set(order)]
    assert len(order) == len(names) - len(case.broken)


@pytest.mark.parametrize("name", SOURCES)
def test_the_command_line_shows_the_summary_of_a_source(name):
    import typer.testing

    page = typer.testing.CliRunner().invoke(app, ["ingest", name, "--help"], env={"COLUMNS": "300"})
    assert page.exit_code == 0
    assert SOURCES[name].summary in " ".join(page.output.split())


def test_an_unknown_source_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="no source called 'fodler'; did you mean folder"):
        find_source("fodler")
