"""Metadata of an image from its DICOM header, and which part of it may be stored.

Tags that identify a person are stored only if the user names them. Patients and studies are pseudonymised: their identifiers become hashes
of the name of the data set and the identifier. The result is pseudonymous, not anonymous: anyone who knows an identifier can compute its
pseudonym, unless a secret salt is used.
"""

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.ingest.source import Unreadable, Value
from encoders.runtime.errors import unknown_name_error
from encoders.runtime.pseudonyms import PSEUDONYM_DIGITS as PSEUDONYM_DIGITS
from encoders.runtime.pseudonyms import pseudonym as pseudonym
from encoders.runtime.pseudonyms import read_salt as read_salt
from encoders.runtime.read_errors import describe_reason

if TYPE_CHECKING:
    from pydicom import FileDataset
    from pydicom.dataset import Dataset

HIDDEN_KEY_PREFIX = "hidden-"  # start of a key that hides the name of the file
PSEUDONYM_COLUMNS = {  # columns of pseudonyms by which tables find images later, see `hidden_names`
    "file": "file_hash",  # name of the file without folders and suffix, of hidden keys only
    "uid": "uid_hash",
    "series": "series_hash",
    "accession": "accession_hash",
}
IDENTIFYING_TAGS = ("PatientID", "PatientName", "OtherPatientIDs", "AccessionNumber", "PatientBirthDate")
IDENTIFIER_TAGS = {  # what a table may be joined on, from an image to a patient
    "uid": "SOPInstanceUID",
    "series": "SeriesInstanceUID",
    "study": "StudyInstanceUID",
    "study_id": "StudyID",
    "accession": "AccessionNumber",
    "patient": "PatientID",
}
OTHER_HEADER_TAGS = ["SOPClassUID", "Modality", "ViewPosition", "ViewCodeSequence", "PatientOrientation", "Rows"]
HEADER_TAGS = [*IDENTIFIER_TAGS.values(), *OTHER_HEADER_TAGS]
DICOMDIR_CLASS = b"1.2.840.10008.1.3.10"  # Media Storage Directory Storage
DICOM_VIEWS = {"PA", "AP", "LATERAL", "FRONTAL", "OBLIQUE", "OTHER", "UNKNOWN"}


def read_dataset(path: Path, tags: Sequence[str] | None = None) -> "FileDataset":
    """The pydicom data set of a file.  tags: keywords to read, without the pixels; None: everything.

    Raises Unreadable if the file is not a DICOM file or is truncated."""
    import pydicom
    from pydicom.errors import BytesLengthException, InvalidDicomError

    if path.stat().st_size == 0:
        raise Unreadable("is empty (0 bytes)")
    try:
        with warnings.catch_warnings(record=True) as caught:  # values that violate the standard are common, and harmless here
            warnings.simplefilter("always")
            force, header_only = lacks_preamble(path), tags is not None
            ds = pydicom.dcmread(path, force=force, stop_before_pixels=header_only, specific_tags=list(tags) if tags is not None else None)
    except InvalidDicomError:
        raise Unreadable("is not a DICOM file") from None
    except (EOFError, OSError, BytesLengthException) as error:
        raise Unreadable(f"cannot be read to its end: {describe_reason(error)}") from error
    if any("End of file reached" in str(warning.message) for warning in caught):
        raise Unreadable("ends before its pixels end: the file is truncated")
    if not ds.file_meta.get("TransferSyntaxUID"):
        from pydicom.uid import ImplicitVRLittleEndian

        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # the default of the standard
    return ds


def is_dicomdir(path: Path) -> bool:
    """Whether a file is the index of a medium (DICOMDIR), under any name: its media storage class stands at the start."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError:
        return False  # reading it as an image states the reason
    return start[128:132] == b"DICM" and DICOMDIR_CLASS in start[132:]


def lacks_preamble(path: Path) -> bool:
    """Whether a file without the DICM marker starts like a data set: files of old archives have no preamble."""
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] != b"DICM" and start[:2] in (b"\x02\x00", b"\x08\x00")


def read_view(ds: "Dataset") -> str:
    """PA, AP, LATERAL, OBLIQUE, FRONTAL (PA or AP is not stated), OTHER or UNKNOWN.

    From ViewPosition, else the meaning of ViewCodeSequence, else PatientOrientation, which only separates frontal from lateral."""
    position = str(ds.get("ViewPosition") or "").upper().strip()
    meaning = " ".join(str(item.get("CodeMeaning", "")) for item in ds.get("ViewCodeSequence") or []).upper()
    for words in (position, meaning):
        if view := parse_view(words):
            return view
    rows = str((list(ds.get("PatientOrientation") or []) or [""])[0]).upper()  # direction of the right end of a row of pixels
    if rows[:1] in ("A", "P"):
        return "LATERAL"
    if rows[:1] in ("L", "R"):
        return "FRONTAL"
    return "OTHER" if position or meaning.strip() else "UNKNOWN"


def parse_view(words: str) -> str | None:
    """The view that a ViewPosition or a code meaning names; None if it names no known view."""
    if re.search(r"OBLIQUE|\b(RAO|LAO|RPO|LPO|LLO|RLO)\b", words):
        return "OBLIQUE"
    if re.search(r"\bPA\b|POSTERO.?ANTERIOR", words):
        return "PA"
    if re.search(r"\bAP\b|ANTERO.?POSTERIOR", words):
        return "AP"
    return "LATERAL" if re.search(r"\b(LL|RL|LAT|LATERAL|LLAT|RLAT)\b", words) else None


def parse_wanted_views(text: str) -> set[str]:
    """`PA,AP` as a set; FRONTAL includes PA and AP. Raises InputError for an unknown view."""
    views = {part.strip().upper() for part in text.split(",") if part.strip()}
    for name in views - DICOM_VIEWS:
        raise unknown_name_error("view", name, DICOM_VIEWS)
    return views | {"PA", "AP"} if "FRONTAL" in views else views


def validate_tags(keywords: Sequence[str]) -> list[str]:
    """The keywords. Raises InputError for a keyword that is not in the DICOM dictionary."""
    from pydicom.datadict import DicomDictionary, tag_for_keyword

    for keyword in keywords:
        if tag_for_keyword(keyword) is None:
            raise unknown_name_error("DICOM keyword", keyword, [entry[4] for entry in DicomDictionary.values() if entry[4]])
    return list(keywords)


def patient_age(ds: "Dataset") -> float | None:
    """Years, at most 90, because a higher age identifies a person; None if the age is not stated."""
    match = re.fullmatch(r"0*(\d+)([DWMY]?)", str(ds.get("PatientAge") or "").strip().upper())
    if not match:
        return None
    years = int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12.0}.get(match[2], 1.0)
    return min(round(years, 2), 90.0)


def patient_metadata(ds: "Dataset") -> dict[str, Value]:
    """The stored metadata of the patient: sex, age and view; nothing that identifies the person."""
    sex = str(ds.get("PatientSex") or "").upper().strip()
    return {"sex": sex if sex in ("F", "M", "O") else None, "age": patient_age(ds), "view": read_view(ds)}


def dicom_file_metadata(ds: "Dataset") -> dict[str, Value]:
    """Properties of the file before any processing."""
    return {
        "dicom_modality": str(ds.get("Modality") or ""),
        "dicom_photometric": str(ds.get("PhotometricInterpretation") or ""),
        "dicom_presentation_lut_shape": str(ds.get("PresentationLUTShape") or ""),
        "dicom_presentation_intent": str(ds.get("PresentationIntentType") or ""),
        "dicom_transfer_syntax": str(ds.file_meta.TransferSyntaxUID.name),
        "dicom_lossy": str(ds.get("LossyImageCompression") or ""),
        "dicom_rows": int(ds.Rows),
        "dicom_columns": int(ds.Columns),
        "dicom_bits_allocated": int(ds.BitsAllocated),
        "dicom_bits_stored": int(ds.BitsStored),
        "dicom_signed": int(ds.get("PixelRepresentation") or 0),
    }


def reveals_identity(name: str, ds: "Dataset") -> bool:
    """Whether a file name contains a word of an identifying tag of the file (with three or more characters)."""
    letters = keep_alphanumeric(name)
    values = [str(value) for keyword in IDENTIFYING_TAGS for value in split_tag_value(ds.get(keyword))]
    return any(len(keep_alphanumeric(v)) >= 3 and keep_alphanumeric(v) in letters for v in values)


def split_tag_value(value: object) -> list[str]:
    """The words of a name, or of every member of a list."""
    if value in (None, ""):
        return []
    members = value if isinstance(value, (list, tuple)) else [value]
    return [word for member in members for word in re.split(r"[\^=\s]+", str(member)) if word]


def keep_alphanumeric(text: str) -> str:
    """The letters and digits of the text, in lower case."""
    return re.sub(r"[^a-z0-9]", "", text.casefold())
