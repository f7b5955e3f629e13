"""What a DICOM header says about an image, and what of it may be stored.

No tag that identifies a person is kept unless it was asked for by name. Patients and studies appear as pseudonyms: a hash of the
data set's name and the identifier. That is pseudonymous, not anonymous: who knows an identifier can compute its pseudonym,
unless a secret salt was given.
"""

import hashlib
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from encoders.ingest.source import Unreadable, Value
from encoders.runtime.errors import InputError, unknown_name_error

PSEUDONYM_DIGITS = 16  # hex, 64 bits: two of a million patients share a pseudonym with probability 3e-8
IDENTIFYING_TAGS = ("PatientID", "PatientName", "OtherPatientIDs", "AccessionNumber", "PatientBirthDate")
HEADER_TAGS = ["SOPInstanceUID", "SOPClassUID", "PatientID", "Modality", "ViewPosition", "ViewCodeSequence", "PatientOrientation", "Rows"]
DICOM_VIEWS = {"PA", "AP", "LATERAL", "FRONTAL", "OBLIQUE", "OTHER", "UNKNOWN"}


def read_dataset(path: Path, **options: Any) -> Any:
    """The pydicom data set of a file. Raises Unreadable where it is no DICOM file or ends early."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    if path.stat().st_size == 0:
        raise Unreadable("is empty (0 bytes)")
    try:
        with warnings.catch_warnings(record=True) as said:  # values that break the standard's rules are common and harmless here
            warnings.simplefilter("always")
            ds = pydicom.dcmread(path, force=lacks_preamble(path), **options)
    except InvalidDicomError:
        raise Unreadable("is no DICOM file") from None
    except (EOFError, OSError) as wrong:
        raise Unreadable(f"cannot be read to its end: {wrong}") from wrong
    if any("End of file reached" in str(warning.message) for warning in said):
        raise Unreadable("ends before its pixels do: the file is truncated")
    if not getattr(ds.file_meta, "TransferSyntaxUID", None):
        from pydicom.uid import ImplicitVRLittleEndian

        ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian  # what the standard takes for granted where nothing is said
    return ds


def lacks_preamble(path: Path) -> bool:
    """Whether a file without the DICM marker starts like a data set all the same: old archives leave the preamble out."""
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] != b"DICM" and start[:2] in (b"\x02\x00", b"\x08\x00")


def pseudonym(dataset: str, value: str, salt: str = "") -> str:
    """16 hex digits that stand for an identifier of this data set; the same every time."""
    return hashlib.sha256(f"{salt}{dataset}:{value}".encode()).hexdigest()[:PSEUDONYM_DIGITS]


def read_salt(path: str | Path | None) -> str:
    """The secret in a file; "" for none. Raises InputError when it cannot be read or is too short to be one."""
    if path is None:
        return ""
    try:
        salt = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as wrong:
        raise InputError(f"cannot read the salt in {path}: {wrong}") from wrong
    if len(salt) < 16:
        raise InputError(f"the salt in {path} has {len(salt)} characters, expected at least 16: `openssl rand -hex 32 > {path}` makes one")
    return salt


def read_view(ds: Any) -> str:
    """PA, AP, LATERAL, OBLIQUE, FRONTAL (front or back is not told), OTHER or UNKNOWN.

    From ViewPosition, else the meaning of ViewCodeSequence, else PatientOrientation, which can tell only frontal from lateral."""
    position = str(ds.get("ViewPosition") or "").upper().strip()
    meaning = " ".join(str(item.get("CodeMeaning", "")) for item in ds.get("ViewCodeSequence") or []).upper()
    for words in (position, meaning):
        if found := parse_view(words):
            return found
    rows = str((list(ds.get("PatientOrientation") or []) or [""])[0]).upper()  # where the right end of a row of pixels points
    if rows[:1] in ("A", "P"):
        return "LATERAL"
    if rows[:1] in ("L", "R"):
        return "FRONTAL"
    return "OTHER" if position or meaning.strip() else "UNKNOWN"


def parse_view(words: str) -> str | None:
    """The view that a ViewPosition or a code meaning names; None where it names none that is known."""
    if re.search(r"OBLIQUE|\b(RAO|LAO|RPO|LPO|LLO|RLO)\b", words):
        return "OBLIQUE"
    if re.search(r"\bPA\b|POSTERO.?ANTERIOR", words):
        return "PA"
    if re.search(r"\bAP\b|ANTERO.?POSTERIOR", words):
        return "AP"
    return "LATERAL" if re.search(r"\b(LL|RL|LAT|LATERAL|LLAT|RLAT)\b", words) else None


def parse_wanted_views(text: str) -> set[str]:
    """`PA,AP` as a set; FRONTAL means PA and AP too. Raises InputError for a view that there is not."""
    views = {part.strip().upper() for part in text.split(",") if part.strip()}
    for name in views - DICOM_VIEWS:
        raise unknown_name_error("view", name, DICOM_VIEWS)
    return views | {"PA", "AP"} if "FRONTAL" in views else views


def validate_tags(keywords: Sequence[str]) -> list[str]:
    """The keywords. Raises InputError for one that the DICOM dictionary does not have."""
    from pydicom.datadict import DicomDictionary, tag_for_keyword

    for keyword in keywords:
        if tag_for_keyword(keyword) is None:
            raise unknown_name_error("DICOM keyword", keyword, [entry[4] for entry in DicomDictionary.values() if entry[4]])
    return list(keywords)


def patient_age(ds: Any) -> float | None:
    """Years; 90 for all older ones, who would be recognised by their age; None where it is not told."""
    told = re.fullmatch(r"0*(\d+)([DWMY]?)", str(ds.get("PatientAge") or "").strip().upper())
    if not told:
        return None
    years = int(told[1]) / {"D": 365.25, "W": 52.18, "M": 12.0}.get(told[2], 1.0)
    return min(round(years, 2), 90.0)


def patient_metadata(ds: Any) -> dict[str, Value]:
    """What is stored about whom: sex, age, view. Nothing that names them."""
    sex = str(ds.get("PatientSex") or "").upper().strip()
    return {"sex": sex if sex in ("F", "M", "O") else None, "age": patient_age(ds), "view": read_view(ds)}


def dicom_file_metadata(ds: Any) -> dict[str, Value]:
    """What the file was, before anything was done to it."""
    return {
        "dicom_modality": str(ds.get("Modality") or ""),
        "dicom_photometric": str(ds.get("PhotometricInterpretation") or ""),
        "dicom_presentation_lut_shape": str(ds.get("PresentationLUTShape") or ""),
        "dicom_presentation_intent": str(ds.get("PresentationIntentType") or ""),
        "dicom_transfer_syntax": ds.file_meta.TransferSyntaxUID.name,
        "dicom_lossy": str(ds.get("LossyImageCompression") or ""),
        "dicom_rows": int(ds.Rows),
        "dicom_columns": int(ds.Columns),
        "dicom_bits_allocated": int(ds.BitsAllocated),
        "dicom_bits_stored": int(ds.BitsStored),
        "dicom_signed": int(ds.get("PixelRepresentation") or 0),
    }


def reveals_identity(name: str, ds: Any) -> bool:
    """Whether a file name repeats an identifying tag of the file (three characters or more of it)."""
    letters = keep_alphanumeric(name)
    values = [str(value) for keyword in IDENTIFYING_TAGS for value in split_tag_value(ds.get(keyword))]
    return any(len(keep_alphanumeric(v)) >= 3 and keep_alphanumeric(v) in letters for v in values)


def split_tag_value(value: Any) -> list[str]:
    """The words of a name, the members of a list, or the value."""
    if value in (None, ""):
        return []
    members = value if isinstance(value, (list, tuple)) else [value]
    return [word for member in members for word in re.split(r"[\^=\s]+", str(member)) if word]


def keep_alphanumeric(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.casefold())
