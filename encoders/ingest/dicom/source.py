"""A folder of DICOM files, read as they are meant to be seen, with 16 bits, and without the names of the people in them.

Shapes: H, W, C of one image.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from encoders.ingest.dicom.header import (
    HEADER_TAGS,
    dicom_file_metadata,
    parse_wanted_views,
    patient_metadata,
    pseudonym,
    read_dataset,
    read_view,
    reveals_identity,
    validate_tags,
)
from encoders.ingest.dicom.labels import DicomLabels
from encoders.ingest.dicom.pixels import DISPLAY_UNIT, Voi, VoiWindow, find_content_box, render_display
from encoders.ingest.folder import FileItem
from encoders.ingest.geometry import ResizeRule, describe_geometry, resize_to_square
from encoders.ingest.source import ImageRow, Unreadable, Value, file_stamp
from encoders.runtime.errors import InputError
from encoders.runtime.files import walk_files

KeyMode = Literal["auto", "file", "hash"]
SKIPPED_SUFFIXES = {
    ".csv",
    ".tsv",
    ".txt",
    ".md",
    ".json",
    ".xml",
    ".yaml",
    ".yml",
    ".html",
    ".pdf",
    ".log",
    ".xlsx",
    ".docx",
    ".py",
    ".sh",
}
HIDDEN_KEY_PREFIX = "hidden-"  # what the key of a file starts with whose name is not stored
PATIENT_PSEUDONYM_NOTE = "pseudonyms: sha256 of the data set's name and PatientID, 16 hex digits; pseudonymous, not anonymous"


class DicomSource:
    """Every file below a folder, or a single file; what is no readable image is quarantined with its reason."""

    codec = "raw"
    unit: dict[str, Any] | None = DISPLAY_UNIT
    channels: int | None

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
        watch: Callable[[Sequence[str]], Iterable[str]] = iter,
    ):
        """watch: wraps the files while their headers are read, e.g. with a progress bar.  Raises InputError for what the user got wrong."""
        self.folder, names, others = list_dicom_files(Path(folder))
        self.voi, self.window, self.crop_borders = voi, window, crop_borders
        self.keep_tags, self.key, self.salt = validate_tags(keep_tags), key, salt
        self.size, self.resize, self.channels, self.modality = size, resize, channels, modality
        self.dataset = dataset or Path(folder).resolve().name
        self.geometry = describe_geometry(size, resize) | {"borders": "cropped" if crop_borders else "kept"}
        self.views = sorted(parse_wanted_views(views)) if views else []
        self.notes = [f"{n} files skipped: {kind}" for kind, n in sorted(others.items())]
        self.roles = labels.roles if labels else None
        self.filters = labels.filters if labels else []
        headers = read_headers(self.folder, watch(names)) if views or (labels and labels.needs_headers(names)) else {}
        if views:
            names = self._filtered(names, headers)
        self._items = labels.joined(names, headers, self.notes) if labels else [FileItem(name) for name in names]
        if not self._items:
            raise InputError(f"of the files in {folder} none is left: {'; '.join(self.notes)}")

    def _filtered(self, names: list[str], headers: dict[str, dict[str, str]]) -> list[str]:
        """The files of a wanted view, and those whose header cannot be read: they go to quarantine with their reason."""
        seen = Counter(headers[name]["view"] for name in names if name in headers)
        out = {v: n for v, n in sorted(seen.items()) if v not in self.views}
        told = ", ".join(f"{n} {v}" for v, n in out.items()) or "none"
        self.notes.append(f"views kept: {', '.join(self.views)}; files left out: {told}")
        return [name for name in names if name not in headers or headers[name]["view"] in self.views]

    def items(self) -> list[FileItem]:
        return self._items

    def name(self, item: FileItem) -> str:
        return item.name

    def stamp(self, item: FileItem) -> str:
        return file_stamp(self.folder / item.name) + "".join(f"|{k}={v}" for k, v in item.row.items())

    def read(self, item: FileItem) -> ImageRow:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of every value that breaks the standard; most files have some
            return self._row(item, read_dataset(self.folder / item.name))

    def _row(self, item: FileItem, ds: Any) -> ImageRow:
        image, done = render_display(ds, self.voi, self.window)
        if int(image.min()) == int(image.max()):
            raise Unreadable(f"constant image after its window (voi: {done['voi']}): every value is {image.flat[0]} of 65535")
        done["span"] = round((int(image.max()) - int(image.min())) / 65535, 5)  # a small one: the range does not suit the image
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
        return ImageRow(resize_to_square(image, self.size, self.resize), self._index(item, ds), meta, labels)

    def _index(self, item: FileItem, ds: Any) -> dict[str, Value]:
        hide = self.key == "hash" or (self.key == "auto" and reveals_identity(item.name, ds))
        index: dict[str, Value] = {"key": HIDDEN_KEY_PREFIX + pseudonym(self.dataset, item.name, self.salt) if hide else item.name}
        own = item.row.get(self.roles.patient, "") if self.roles and self.roles.patient else ""
        patient, study = own or str(ds.get("PatientID") or "").strip(), str(ds.get("StudyInstanceUID") or "")
        index["patient"] = pseudonym(self.dataset, patient, self.salt) if patient else None
        index["study"] = pseudonym(self.dataset, study, self.salt) if study else None
        if self.roles and self.roles.split:
            index["split"] = item.row.get(self.roles.split)
        return index

    def recipe(self) -> dict[str, Any]:
        window = self.window and {"center": self.window.center, "width": self.window.width, "name": self.window.name}
        columns = self.roles and {k: list(v) if isinstance(v, tuple) else v for k, v in self.roles.__dict__.items()}
        pixels = {"voi": self.voi, "window": window, "crop_borders": self.crop_borders, "views": self.views}
        people = {"keep_tags": self.keep_tags, "key": self.key, "salted": bool(self.salt)}
        return {"command": "ingest dicom", **pixels, **people, "columns": columns, "only": self.filters}

    def attributes(self) -> dict[str, Any]:
        return {"patients": PATIENT_PSEUDONYM_NOTE + (", with a secret salt" if self.salt else "")}


def list_dicom_files(folder: Path) -> tuple[Path, list[str], Counter[str]]:
    """The folder, the files below it, sorted, as relative names, and how many were passed over, of each kind.

    DICOM files need no suffix, so every file counts but hidden ones, the DICOMDIR index, and those whose suffix says text or table."""
    if folder.is_file():
        return folder.parent, [folder.name], Counter()
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder that holds the DICOM files")
    names, others = [], Counter[str]()
    for path in walk_files(folder):
        if path.name == "DICOMDIR" or path.suffix.lower() in SKIPPED_SUFFIXES:
            others[path.suffix.lower() or path.name] += 1
        else:
            names.append(path.relative_to(folder).as_posix())
    if not names:
        raise InputError(f"{folder} holds no files that could be DICOM; {sum(others.values())} other files")
    return folder, sorted(names), others


def read_headers(folder: Path, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """uid, patient and view of every file whose header can be read."""
    found = {}
    for name in names:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                ds = read_dataset(folder / name, stop_before_pixels=True, specific_tags=HEADER_TAGS)
                said = {"uid": str(ds.get("SOPInstanceUID", "")), "patient": str(ds.get("PatientID", "")).strip(), "view": read_view(ds)}
        except Unreadable:
            continue  # it stays among the items, and is quarantined with the reason when its turn comes
        if "SOPClassUID" in ds or "Rows" in ds:
            found[name] = said
    return found
