"""DICOM files among slides: their series and patients, and the objects that are no slide (DICOMDIR, structured reports, annotations)."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from encoders.ingest.dicom.header import pseudonym
from encoders.ingest.source import file_stamp
from encoders.runtime.unknown_values import is_unknown_patient
from encoders.store.patient_ids import normalise_id

HEADER = ["SOPClassUID", "SeriesInstanceUID", "PatientID", "Rows"]


@dataclass(frozen=True)
class DicomHeader:
    """What tells slides, series and patients apart."""

    kind: str  # name of the SOP class
    series: str
    patient: str  # "" if it identifies nobody
    has_pixels: bool


def is_dicom(path: Path) -> bool:
    """Whether the file is DICOM, by its suffix or its marker."""
    if path.suffix.lower() not in (".dcm", ""):
        return False
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM" or path.suffix.lower() == ".dcm"  # a broken .dcm counts as a slide that cannot be read
    except OSError:
        return path.suffix.lower() == ".dcm"


def read_dicom_header(path: Path) -> DicomHeader | None:
    """The header of a DICOM file; None if it cannot be read: opening the file as a slide reports the reason."""
    try:
        return _read_header(path, file_stamp(path))
    except OSError:
        return None


@lru_cache(maxsize=1 << 16)  # several steps ask for the header of the same file, and that of a slide with many frames takes long to read
def _read_header(path: Path, stamp: str) -> DicomHeader | None:
    import pydicom
    from pydicom.uid import UID

    try:
        ds = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=HEADER)
        kind = UID(str(ds.get("SOPClassUID") or ds.file_meta.get("MediaStorageSOPClassUID") or "")).name or "of no class"
        patient = normalise_id(ds.get("PatientID") or "")
        return DicomHeader(kind, str(ds.get("SeriesInstanceUID") or ""), "" if is_unknown_patient(patient) else patient, "Rows" in ds)
    except Exception:  # noqa: BLE001  boundary: a damaged header of one file of a batch
        return None


def split_dicom_files(paths: Iterable[Path]) -> tuple[list[Path], Counter[str]]:
    """The files that may be slides, and the number of the others by kind of object."""
    slides: list[Path] = []
    others: Counter[str] = Counter()
    for path in paths:
        header = read_dicom_header(path)
        if header is None or header.has_pixels:
            slides.append(path)
        else:
            others[f"DICOM without pixels ({header.kind})"] += 1
    return slides, others


def first_of_series(paths: Iterable[Path]) -> dict[Path, str]:
    """First file of every series in a folder, to its series. OpenSlide finds the other files of the series beside it."""
    seen: dict[tuple[Path, str], Path] = {}
    for path in sorted(paths):
        header = read_dicom_header(path)
        seen.setdefault((path.parent, header.series if header and header.series else f"unreadable {path.name}"), path)
    return {path: series for (_, series), path in seen.items()}


def dicom_patient(path: Path, dataset: str) -> str:
    """The pseudonym of the patient of a DICOM slide, the same as of `ingest dicom`; "" if it is unknown, and for other files."""
    header = read_dicom_header(path) if path.is_file() and is_dicom(path) else None
    return pseudonym(dataset, header.patient) if header and header.patient else ""
