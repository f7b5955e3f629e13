"""A folder of DICOM files, read as displayed, with 16 bits, and pseudonymised.

Shapes: H, W, C of one image.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from encoders.ingest.damage import report_damage
from encoders.ingest.dicom.header import (
    HEADER_TAGS,
    HIDDEN_KEY_PREFIX,
    IDENTIFIER_TAGS,
    PSEUDONYM_COLUMNS,
    dicom_file_metadata,
    is_dicomdir,
    parse_wanted_views,
    patient_metadata,
    pseudonym,
    read_dataset,
    read_view,
    reveals_identity,
    validate_tags,
)
from encoders.ingest.dicom.hidden_names import file_stem
from encoders.ingest.dicom.labels import DicomLabels
from encoders.ingest.dicom.native_length import pad_pixel_data
from encoders.ingest.dicom.pixels import DISPLAY_UNIT, VoiWindow, find_content_box, render_display
from encoders.ingest.dicom.stored_values import check_single_image
from encoders.ingest.dicom.stream_check import find_damage_in_warnings, find_stream_damage
from encoders.ingest.folder import FileItem
from encoders.ingest.geometry import describe_geometry, resize_to_square
from encoders.ingest.list_files import ListedFiles, count_skipped, describe_skipped, find_files
from encoders.ingest.options import KeyMode, ResizeRule, Voi
from encoders.ingest.source import ImageRow, Source, Unreadable, Value, describe_default_dataset, file_stamp
from encoders.ingest.tables.combine import describe_joining
from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json
from encoders.runtime.read_errors import READ_ERRORS, describe_reason
from encoders.runtime.unknown_values import find_unknown_patients, is_unknown, is_unknown_patient
from encoders.store.patient_ids import normalise_id

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SKIPPED_SUFFIXES = {".csv", ".tsv", ".txt", ".md", ".json", ".xml", ".yaml", ".yml", ".html"} | {
    ".pdf",
    ".log",
    ".xlsx",
    ".docx",
    ".py",
    ".sh",
}
PATIENT_PSEUDONYM_NOTE = "pseudonyms: sha256 of the data set's name and PatientID, 16 hex digits; pseudonymous, not anonymous"


class DicomSource(Source[FileItem]):
    """Every file below a folder, or a single file. Files that are not readable images are quarantined with their reason."""

    unit = DISPLAY_UNIT

    def __init__(
        self,
        folder: str | Path,
        labels: DicomLabels | None = None,
        *,
        voi: Voi = "auto",
        window: VoiWindow | None = None,
        views: str = "",
        crop_borders: bool = False,
        keep_tags: Sequence[str] = (),
        key: KeyMode = "auto",
        salt: str = "",
        size: int = 256,
        resize: ResizeRule = "pad",
        channels: int = 1,
        modality: str = "cxr",
        dataset: str | None = None,
        accept_damaged: bool = False,
        wrap_progress: Callable[[Sequence[str]], Iterable[str]] = iter,
        files: Sequence[str] | None = None,
    ):
        """accept_damaged: store damaged pixels as they are decoded.
        files: paths relative to the folder, to read these alone; None: the folder is searched.
        wrap_progress: wraps the file names while headers are read, e.g. with a progress bar.

        Raises InputError for options that do not fit the folder or the table."""
        found_files = list_dicom_files(Path(folder)) if files is None else (Path(folder), ListedFiles(list(files), Counter(), []))
        self.folder, (names, others, self.broken) = found_files
        self.voi, self.window, self.crop_borders = voi, window, crop_borders
        self.keep_tags, self.key, self.salt = validate_tags(keep_tags), key, salt
        self.size, self.resize, self.channels, self.modality = size, resize, channels, modality
        self.dataset = dataset or Path(folder).resolve().name
        self.geometry = describe_geometry(size, resize) | {"borders": "cropped" if crop_borders else "kept"}
        self.views = sorted(parse_wanted_views(views)) if views else []
        self.notes: list[str] = [] if dataset else [describe_default_dataset(self.dataset)]
        self.notes += describe_skipped(others)
        self.accept_damaged, found = accept_damaged, len(names)
        self.left_out = count_skipped(others)
        self.filters = labels.filters if labels else []
        self.joining = describe_joining(labels.on, labels.combine) if labels else {}
        if labels and labels.derive:
            self.joining["derive"] = list(labels.derive)
        if labels and labels.lists:
            self.joining |= labels.lists.as_json()
        headers = read_headers(self.folder, wrap_progress(names)) if views or (labels and labels.needs_headers(names, self.folder)) else {}
        if views:
            names = self._filter_views(names, headers)
            self.left_out["another view"] = found - len(names)
        self._items = labels.join_files(names, headers, self.notes, self.folder) if labels else [FileItem(name) for name in names]
        self.left_out["no row in the table"] = len(names) - len(self._items)
        self.roles = labels.roles if labels else None
        own = [item.row.get(self.roles.patient, "") for item in self._items] if self.roles and self.roles.patient else []
        self._nobody = {text for text, unknown in zip(own, find_unknown_patients(own), strict=True) if unknown}
        if not self._items:
            raise InputError(f"no file of {folder} is left: {'; '.join(self.notes)}")

    def _filter_views(self, names: list[str], headers: dict[str, dict[str, str]]) -> list[str]:
        """The files of a wanted view, and the files whose header cannot be read, so that they are quarantined with their reason."""
        seen = Counter(headers[name]["view"] for name in names if name in headers)
        others = ", ".join(f"{n} {view}" for view, n in sorted(seen.items()) if view not in self.views) or "none"
        self.notes.append(f"views kept: {', '.join(self.views)}; files left out: {others}")
        return [name for name in names if name not in headers or headers[name]["view"] in self.views]

    def items(self) -> list[FileItem]:
        return self._items

    def name(self, item: FileItem) -> str:
        return item.name

    def stamp(self, item: FileItem) -> str:
        return file_stamp(self.folder / item.name) + "".join(f"|{k}={v}" for k, v in item.row.items())

    def read(self, item: FileItem) -> ImageRow:
        from pydicom.errors import BytesLengthException  # of a value whose length is no multiple of its type's

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns about every value that violates the standard; most files have some
            try:
                return self._row(item, read_dataset(self.folder / item.name))
            except (Unreadable, InputError):
                raise
            except (BytesLengthException, *READ_ERRORS) as error:
                raise Unreadable(f"has a damaged header: {type(error).__name__}: {describe_reason(error)}") from error

    def _row(self, item: FileItem, ds: "Dataset") -> ImageRow:
        check_single_image(ds)
        remarks = []
        if damage := find_stream_damage(ds):
            remarks.append(report_damage(damage, self.accept_damaged))
            if not ds.file_meta.TransferSyntaxUID.is_encapsulated:
                pad_pixel_data(ds)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            image, done = render_display(ds, self.voi, self.window)
        if not remarks and (damage := find_damage_in_warnings(str(warning.message) for warning in caught)):
            remarks.append(report_damage(damage, self.accept_damaged))
        if int(image.min()) == int(image.max()):
            raise Unreadable(f"constant image after its window (voi: {done['voi']}): every value is {image.flat[0]} of 65535")
        done["span"] = round((int(image.max()) - int(image.min())) / 65535, 5)  # small if the range does not fit the image
        if self.crop_borders:
            top, bottom, left, right = find_content_box(image)
            image = np.ascontiguousarray(image[top:bottom, left:right])
            done |= {"cropped_rows": int(ds.Rows) - (bottom - top), "cropped_columns": int(ds.Columns) - (right - left)}
        kept = {tag: str(ds.get(tag, "")) for tag in self.keep_tags}
        meta: dict[str, Value] = {**patient_metadata(ds), **dicom_file_metadata(ds), **{f"dicom_{k}": v for k, v in done.items()}, **kept}
        labels: dict[str, Value] = {}
        if self.roles:
            meta |= {name: item.row.get(name) for name in self.roles.meta}
            labels = {name: item.row.get(name) for name in self.roles.label}
        stored, top = resize_to_square(image, self.size, self.resize), int(image.max())
        return ImageRow(stored, self._index(item, ds), meta, labels, remarks, top)

    def _index(self, item: FileItem, ds: "Dataset") -> dict[str, Value]:
        hide = self.key == "hash" or (self.key == "auto" and reveals_identity(item.name, ds))
        index: dict[str, Value] = {"key": HIDDEN_KEY_PREFIX + pseudonym(self.dataset, item.name, self.salt) if hide else item.name}
        hashed = {"file": file_stem(item.name) if hide else ""}
        hashed |= {name: normalise_id(ds.get(IDENTIFIER_TAGS[name]) or "") for name in ("uid", "series", "accession")}
        for name, text in hashed.items():
            index[PSEUDONYM_COLUMNS[name]] = None if is_unknown(text) else pseudonym(self.dataset, text, self.salt)
        own = item.row.get(self.roles.patient, "") if self.roles and self.roles.patient else ""
        named = own not in self._nobody and not is_unknown(own)  # a zero of the table may be a patient, one of a header never is
        patient, study = own if named else str(ds.get("PatientID") or ""), str(ds.get("StudyInstanceUID") or "")
        # A text that means unknown, such as ANONYMOUS, identifies nobody: it stays, and is counted with the unknown ones.
        known = named or not is_unknown_patient(patient)
        index["patient"] = pseudonym(self.dataset, normalise_id(patient), self.salt) if known else patient
        index["study"] = study if is_unknown(study) else pseudonym(self.dataset, study, self.salt)
        if self.roles and self.roles.split:
            index["split"] = item.row.get(self.roles.split)
        return index

    def recipe(self) -> dict[str, Json]:
        window = asdict(self.window) if self.window else None
        columns = self.roles.as_json() if self.roles else None
        pixels: dict[str, Json] = {"voi": self.voi, "window": window, "crop_borders": self.crop_borders, "views": self.views}
        if self.accept_damaged:
            pixels["accept_damaged"] = True
        people: dict[str, Json] = {"keep_tags": self.keep_tags, "key": self.key, "salted": bool(self.salt)}
        return {"command": "ingest dicom", **pixels, **people, "columns": columns, "only": self.filters, **self.joining}

    def attributes(self) -> dict[str, Json]:
        return {"patients": PATIENT_PSEUDONYM_NOTE + (", with a secret salt" if self.salt else "")}


def list_dicom_files(folder: Path) -> tuple[Path, ListedFiles]:
    """The folder, and the files below it.

    DICOM files need no suffix, so only hidden files, the DICOMDIR index and files with a suffix of text or tables are skipped.
    Raises InputError if there is no file."""
    if folder.is_file():
        return folder.parent, ListedFiles([folder.name], Counter(), [])
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder that holds the DICOM files")
    names, others, found = [], Counter[str](), find_files(folder)
    for path in found.files:
        if path.suffix.lower() in SKIPPED_SUFFIXES:
            others[path.suffix.lower()] += 1
        elif path.stem.upper() == "DICOMDIR" or is_dicomdir(path):
            others["DICOMDIR"] += 1
        else:
            names.append(path.relative_to(folder).as_posix())
    listed = ListedFiles(sorted(names), others, found.broken)
    if not names:
        raise InputError(f"{folder} holds no files that could be DICOM, but {listed.describe_others()}")
    return folder, listed


def read_headers(folder: Path, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Identifiers (the keys of `IDENTIFIER_TAGS`) and view of every file whose header can be read."""
    headers = {}
    for name in names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ds = read_dataset(folder / name, HEADER_TAGS)
                header = {field: normalise_id(ds.get(tag) or "") for field, tag in IDENTIFIER_TAGS.items()} | {"view": read_view(ds)}
        except Unreadable:
            continue  # it stays an item, and is quarantined with the reason when it is read
        if "SOPClassUID" in ds or "Rows" in ds:
            headers[name] = header
    return headers
