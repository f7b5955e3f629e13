"""Images that were never ingested, read file by file as the ingest of a head's task would have stored them.

PNG, JPEG and TIFF are read by the source `folder`, everything else by the source `dicom`; the settings are those that the head remembers.
A file that cannot be read is a problem with its reason, never a missing row.

Shapes: B images of a batch, H, W, C of one image.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from encoders.features.input_batches import join_inputs
from encoders.ingest.decode import IMAGE_SUFFIXES
from encoders.ingest.dicom.pixels import VoiWindow
from encoders.ingest.dicom.source import SKIPPED_SUFFIXES, DicomSource
from encoders.ingest.folder import FileItem, FolderSource
from encoders.ingest.list_files import describe_bad_file, find_files
from encoders.ingest.merge_shards import StoredForm
from encoders.ingest.shard_io import encode_array_jpeg, fit_channels
from encoders.ingest.source import ImageRow, PixelUnit, Unreadable, to_pixel_unit
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError
from encoders.runtime.read_errors import READ_ERRORS, describe_reason
from encoders.similarity.perceptual_hash import pixel_sha256
from encoders.store.part import decode_jpeg
from encoders.store.store import to_unit
from encoders.store.write import full_range_unit
from encoders.zoo.encoder import Encoder, EncoderInput
from encoders.zoo.head_card import Head, StoredImages

STORES = {".h5", ".hdf5"}
VOLUMES = ("ingest nifti",)  # tasks whose images are slices of volumes, which no image file is


@dataclass(frozen=True)
class FoundImages:
    """names: of the images, sorted; what `root` / name opens.  problems: name -> why it cannot be read.  skipped: other files by suffix."""

    root: Path
    names: list[str]
    problems: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)


class FileBatch(NamedTuple):
    """Images read together. keys: of all of them.  sha256: of the pixels of those that were read, "" of the others.

    inputs: of those that were read, in order; None if there is none.  problems: position -> why it was not read."""

    keys: list[str]
    sha256: list[str]
    inputs: EncoderInput | None
    problems: dict[int, str]


def find_image_files(paths: Sequence[Path]) -> FoundImages:
    """The images of a folder, by their paths relative to it; of files or of several folders, by their paths as they are given.

    Raises InputError for a path that does not exist, for stores among the files, and if there is no image."""
    alone = len(paths) == 1 and paths[0].is_dir()
    root = paths[0] if alone else Path()
    names: dict[str, None] = {}
    problems: dict[str, str] = {}
    skipped: dict[str, int] = {}
    for path in paths:
        if not path.is_dir():
            if bad := describe_bad_file(path):
                if not path.exists():
                    raise InputError(f"{path} {bad}; name a store, a folder of images, or image files")
                problems[str(path)] = bad
            names[str(path)] = None
            continue
        found = find_files(path)
        for file in found.files:
            suffix = file.suffix.lower()
            if suffix in SKIPPED_SUFFIXES or file.stem.upper() == "DICOMDIR":
                skipped[suffix or file.name] = skipped.get(suffix or file.name, 0) + 1
            else:
                names[file.relative_to(path).as_posix() if alone else str(file)] = None
        for broken in found.broken:
            name = broken.name if alone else str(path / broken.name)
            names[name], problems[name] = None, broken.reason
    _refuse_other_kinds(list(names))
    if not names:
        others = ", ".join(f"{n} {kind}" for kind, n in sorted(skipped.items())) or "nothing"
        raise InputError(f"{' '.join(map(str, paths))} holds no image (PNG, JPEG, TIFF, DICOM), but {others}")
    return FoundImages(root, sorted(names) if alone else list(names), problems, skipped)


def _refuse_other_kinds(names: Sequence[str]) -> None:
    """Raises InputError for stores among image files."""
    for name in names:
        suffix = Path(name).suffix.lower()
        if suffix in STORES:
            raise InputError(f"{name} is a store beside image files; predict on stores and on files by a command each")


class FileReader:
    """Reads files as the images of a head's task were stored. It may be pickled."""

    def __init__(self, found: FoundImages, form: StoredImages):
        self.found, self.form = found, form
        pictures = [name for name in found.names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
        others = [name for name in found.names if Path(name).suffix.lower() not in IMAGE_SUFFIXES]
        self.folder = FolderSource(
            found.root,
            size=form.size,
            resize=form.resize,
            channels=form.channels,
            bits=form.bits,
            normalise=form.normalise,
            remove_hair=form.remove_hair,
            dataset="files",
            files=pictures,
        )
        window = VoiWindow(**form.window) if form.window else None
        self.dicom = (
            DicomSource(
                found.root,
                size=form.size,
                resize=form.resize,
                channels=form.channels,
                voi=form.voi,
                window=window,
                crop_borders=form.crop_borders,
                key="file",
                dataset="files",
                files=others,
            )
            if others
            else None
        )

    def read(self, name: str) -> Array:
        """(H, W, C) uint8 or uint16, resized as the images of the task were. Raises Unreadable with the reason."""
        if problem := self.found.problems.get(name):
            raise Unreadable(problem)
        source = self.folder if Path(name).suffix.lower() in IMAGE_SUFFIXES else self.dicom
        assert source is not None
        row = source.read(FileItem(name))
        assert isinstance(row, ImageRow)
        return fit_channels(row.image, self.form.channels)

    def to_stored(self, image: Array) -> tuple[Array, Array, PixelUnit]:
        """The image in the type of the store, of which the hash is; as the store's codec gives it back; and the unit of its values."""
        form = self.form
        own = PixelUnit(scale=form.scale, offset=form.offset, meaning="")
        if image.dtype == np.uint16 and form.dtype == "uint8":
            return image, image, to_pixel_unit(full_range_unit(np.uint16))  # more bits than the images of the task: none is lost
        promoted = StoredForm(None, form.channels, np.dtype(form.dtype), own).promote(image)
        return promoted, decode_jpeg(encode_array_jpeg(promoted), form.channels) if form.codec == "jpeg" else promoted, own


class FileBatches(Dataset[FileBatch]):
    """Batches of files as model input."""

    def __init__(self, reader: FileReader, encoder: Encoder, batch: int):
        self.reader, self.prepare, self.batch = reader, encoder.prepare, batch

    def __len__(self) -> int:
        return -(-len(self.reader.found) // self.batch)

    def __getitem__(self, i: int) -> FileBatch:
        if i >= len(self):
            raise IndexError(i)
        names = self.reader.found.names[i * self.batch : (i + 1) * self.batch]
        inputs, digests, problems = [], [], {}
        for position, name in enumerate(names):
            try:
                image, stored, unit = self.reader.to_stored(self.reader.read(name))
                inputs.append(self.prepare(to_unit(stored, unit["offset"], unit["scale"])[None]))
                digests.append(pixel_sha256(image))
            except (Unreadable, InputError) as error:
                problems[position] = str(error)
            except READ_ERRORS as error:
                problems[position] = f"{type(error).__name__}: {describe_reason(error)}"
            if position in problems:
                digests.append("")
        return FileBatch(names, digests, join_inputs(inputs) if inputs else None, problems)


def choose_form(head: Head, name: str) -> StoredImages:
    """How the images of the task were stored. Raises InputError if that is not enough to read files alike.  name: of the encoder."""
    ingest = f"ingest the files as the images of task {head.task} were ingested, and predict on the store"
    if len(head.images) != 1:
        raise InputError(f"{name} was trained on stores that differ in how their images were stored: {ingest}")
    form = head.images[0]
    if form.command in VOLUMES:
        raise InputError(f"{name} was trained on slices of volumes ({form.command}), which files of images are not: {ingest}")
    if form.bits == "auto":
        raise InputError(f"{name} was trained on 16-bit files whose bits were found by comparing all of them: {ingest}")
    return form
