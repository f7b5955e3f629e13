"""The sources by the name that follows `encoders ingest`. A class is imported when it is first used."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from encoders.runtime.errors import unknown_name_error

if TYPE_CHECKING:
    from encoders.ingest.source import IngestResult, ItemCollection
    from encoders.ingest.workers import Tick

SourceFactory = Callable[..., "ItemCollection[Any]"]
IngestFunction = Callable[..., "IngestResult"]  # (source, out, workers, overwrite, tick), as `encoders.ingest.shards.ingest`


def load_ingest() -> IngestFunction:
    """The function that writes a `Source` to one store."""
    from encoders.ingest.shards import ingest

    return ingest


def load_slide_ingest() -> IngestFunction:
    """The function that writes a folder of slides to a folder of stores."""
    from encoders.ingest.wsi.source import ingest_slide_source

    return ingest_slide_source


@dataclass(frozen=True)
class SourceEntry:
    """One kind of source."""

    load: Callable[[], SourceFactory]  # imports the class of the source, or a function that returns one
    summary: str  # first line of the command's help
    extra: str = ""  # optional dependency group of the package that the source needs; "": none
    load_ingest: Callable[[], IngestFunction] = load_ingest


def _folder() -> SourceFactory:
    from encoders.ingest.folder import FolderSource

    return FolderSource


def _phantom() -> SourceFactory:
    from encoders.ingest.phantom.source import PhantomSource

    return PhantomSource


def _dicom() -> SourceFactory:
    from encoders.ingest.dicom.source import DicomSource

    return DicomSource


def _medmnist() -> SourceFactory:
    from encoders.ingest.medmnist.source import MedMNISTSource

    return MedMNISTSource


def _hdf5() -> SourceFactory:
    from encoders.ingest.hdf5 import Hdf5Source

    return Hdf5Source


def _nifti() -> SourceFactory:
    from encoders.ingest.nifti.source import NiftiSource

    return NiftiSource


def _wsi() -> SourceFactory:
    from encoders.ingest.wsi.source import SlideSource

    return SlideSource


SOURCES: dict[str, SourceEntry] = {
    "folder": SourceEntry(_folder, "Ingest a folder of PNG, JPEG and TIFF images (8 or 16 bits, kept as they are)."),
    "phantom": SourceEntry(_phantom, "Ingest synthetic images with patients and labels, for tests and first steps."),
    "dicom": SourceEntry(_dicom, "Ingest a folder of DICOM files as a viewer displays them, 16 bits."),
    "medmnist": SourceEntry(_medmnist, "Ingest a MedMNIST file (.npz, 28 to 224 px) with its split and label names."),
    "hdf5": SourceEntry(_hdf5, "Ingest arrays (N, H, W[, C]) in HDF5, one image at a time."),
    "nifti": SourceEntry(_nifti, "Ingest NIfTI volumes (MR, CT) as slices, 16 bits, with labels from a table or a segmentation."),
    "wsi": SourceEntry(
        _wsi, "Ingest whole-slide images as tiles of an exact resolution, one store per slide.", load_ingest=load_slide_ingest
    ),
}


def find_source(name: str) -> SourceEntry:
    """The entry called `name`. Raises InputError with the nearest names if there is none."""
    if name not in SOURCES:
        raise unknown_name_error("source", name, list(SOURCES))
    return SOURCES[name]


def open_source(name: str, *args: object, **options: object) -> "ItemCollection[Any]":
    """The source called `name`, built from the arguments of its class."""
    factory: SourceFactory = find_source(name).load()
    return factory(*args, **options)


def ingest_source(
    name: str, source: "ItemCollection[Any]", out: str | Path, workers: int = 1, overwrite: bool = False, tick: "Tick | None" = None
) -> "IngestResult":
    """Writes a source of the kind `name` to `out`: a store, or a folder of stores for slides.

    tick: called with the number of items done since the last call.  Raises InputError if `out` exists (unless `overwrite`), cannot be
    written, or was started with another recipe or other files."""
    return find_source(name).load_ingest()(source, Path(out), workers, overwrite, tick)
