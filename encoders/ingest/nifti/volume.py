"""Reading of NIfTI volumes: voxels in the canonical orientation LPS, and slices of them as a viewer shows them.

The content decides whether a file is compressed, not its name. Axes are permuted and flipped to the closest orientation LPS (the first
axis points to the patient's left, the second to the back, the third to the head), as DICOM has it; voxels are never interpolated.

Shapes: X, Y, Z voxels along left, back and head; C channels; H, W of a slice.
"""

import gzip
import io
import math
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.options import SliceAxis
from encoders.ingest.source import Unreadable
from encoders.ingest.zlib_check import inflate_available
from encoders.runtime.arrays import Array
from encoders.runtime.read_errors import READ_ERRORS, describe_reason

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Image

NIFTI_SUFFIXES = (".nii", ".nii.gz")
AXIS_NUMBERS: dict[SliceAxis, int] = {"sagittal": 0, "coronal": 1, "axial": 2}  # axis of (X, Y, Z) that a slice is perpendicular to
HEADER_SIZES = {348: "nifti1", 540: "nifti2"}
GZIP_MAGIC = b"\x1f\x8b"
READ_PIECE = 1 << 20  # bytes
LEAST_SHARE = 0.01  # of the voxels that a damaged file must have
NOT_STATED = "not stated"  # orientation of a volume whose header has neither sform nor qform


@dataclass(frozen=True)
class VolumeGeometry:
    """What the header states, in the orientation LPS.

    shape: (X, Y, Z).  spacing: mm along these axes.  affine: (4, 4) voxel to mm, in RAS coordinates as NIfTI has them.
    channels: number of volumes in the file.  orientation: of the axes in the file, e.g. RAS, or `not stated`."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    affine: NDArray[np.float64]
    channels: int
    orientation: str

    def slices(self, axis: SliceAxis) -> int:
        """Number of slices along an axis."""
        return self.shape[AXIS_NUMBERS[axis]]

    def pixel_spacing(self, axis: SliceAxis) -> tuple[float, float]:
        """(mm per row, mm per column) of the pixels of a slice."""
        x, y, z = self.spacing
        return {"axial": (y, x), "coronal": (z, x), "sagittal": (z, y)}[axis]


def volume_stem(name: str) -> str:
    """The name of a volume without .nii or .nii.gz."""
    return name.removesuffix(".gz").removesuffix(".nii")


class DamagedVolume(Unreadable):
    """The voxels are damaged or incomplete, and the header can be read.  words: of the decoder."""

    def __init__(self, words: str):
        super().__init__(f"is broken: {words}")
        self.words = words


@contextmanager
def open_volume(path: Path, whole: bool = False, repaired: bool = False) -> Iterator["Nifti1Image"]:
    """The volume, whose voxels are read while the context is open.

    whole: read the file to its end, where gzip has its checksum.  repaired: missing voxels are 0, and the checksum is ignored.
    Raises Unreadable if it is missing or no NIfTI volume, DamagedVolume if its voxels are damaged."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.nifti1 import Nifti1Image
    from nibabel.nifti2 import Nifti2Image
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    if not path.is_file():
        raise Unreadable("there is no such file")
    try:
        with path.open("rb") as file, (unpack_damaged if repaired else unpack_stream)(file) as stream:
            head = stream.read(4)
            stream.seek(0)
            sizes = {int.from_bytes(head, "little"), int.from_bytes(head, "big")}
            found = [HEADER_SIZES[size] for size in sizes & HEADER_SIZES.keys()]
            if not found:
                raise Unreadable("is empty (0 bytes)" if not head else "is not a NIfTI volume")
            kind = Nifti1Image if found == ["nifti1"] else Nifti2Image
            yield kind.from_stream(fill_missing(stream, kind) if repaired else stream)
            while whole and stream.read(READ_PIECE):
                pass  # at its end, gzip compares the checksum
    except Unreadable:
        raise
    except EOFError:
        raise DamagedVolume("the compressed data end too early: it is truncated") from None
    except (ImageFileError, HeaderDataError, WrapStructError) as error:
        raise Unreadable(f"has a broken NIfTI header: {error}") from error
    except (OSError, zlib.error) as error:
        raise DamagedVolume(f"it is damaged or truncated: {' '.join(str(error).split())}") from error
    except READ_ERRORS as error:  # of nibabel, for sizes and types that cannot be
        raise Unreadable(f"has a broken NIfTI header: {type(error).__name__}: {describe_reason(error)}") from error


@contextmanager
def unpack_stream(file: BufferedIOBase) -> Iterator[BufferedIOBase]:
    """The content of the file, decompressed if it is gzip."""
    packed = file.read(2) == GZIP_MAGIC
    file.seek(0)
    if not packed:
        yield file
        return
    with gzip.GzipFile(fileobj=file, mode="rb") as unpacked:
        yield unpacked


@contextmanager
def unpack_damaged(file: BufferedIOBase) -> Iterator[BufferedIOBase]:
    """The content of the file as far as it can be decompressed."""
    data = file.read()
    if not data.startswith(GZIP_MAGIC):
        yield io.BytesIO(data)
        return
    yield io.BytesIO(inflate_available(data, 16 + zlib.MAX_WBITS))


def fill_missing(stream: BufferedIOBase, kind: type["Nifti1Image"]) -> BufferedIOBase:
    """The content of a stream, followed by zeros in place of missing voxels. Raises Unreadable if hardly any voxel is there."""
    data = stream.read()
    header = kind.header_class.from_fileobj(io.BytesIO(data))  # that of an image has no offset
    start = int(header.get_data_offset())
    size = math.prod(map(int, header.get_data_shape())) * header.get_data_dtype().itemsize
    if len(data) < start + size * LEAST_SHARE:
        raise Unreadable(f"is broken: {max(len(data) - start, 0):,} of the {size:,} bytes of its voxels can be read")
    return io.BytesIO(data.ljust(start + size, b"\0"))


def read_geometry(path: Path) -> VolumeGeometry:
    """The geometry from the header; no voxel is read. Raises Unreadable as `open_volume`, and if the axes have no orientation."""
    with open_volume(path) as image:
        return describe_volume(image)


def describe_volume(image: "Nifti1Image") -> VolumeGeometry:
    """The geometry of an opened volume. Raises Unreadable if it has fewer than two axes, or an affine without orientation."""
    import nibabel as nib

    full = tuple(int(n) for n in image.shape)
    extra = [n for n in full[3:] if n > 1]
    if len(full) < 2 or len(extra) > 1 or min(full) < 1:
        raise Unreadable(f"has shape {full}; expected a volume (X, Y, Z) or several volumes (X, Y, Z, C)")
    spatial = (*full, 1)[:3]
    to_lps, affine = lps_orientation(image)
    shape = tuple(int(n) for n in np.asarray(spatial)[np.argsort(to_lps[:, 0])])
    turned = affine @ nib.orientations.inv_ornt_aff(to_lps, spatial)
    spacing = tuple(float(s) for s in np.linalg.norm(turned[:3, :3], axis=0))
    header = image.header
    stated = int(header["sform_code"]) > 0 or int(header["qform_code"]) > 0
    orientation = "".join(nib.orientations.aff2axcodes(affine)) if stated else NOT_STATED
    return VolumeGeometry(
        (shape[0], shape[1], shape[2]), (spacing[0], spacing[1], spacing[2]), turned, extra[0] if extra else 1, orientation
    )


def lps_orientation(image: "Nifti1Image") -> tuple[Array, NDArray[np.float64]]:
    """(3, 2) nibabel's description of how the axes become LPS, and the affine of the file."""
    import nibabel as nib

    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:  # mm^3 a voxel; a micrometre a side has 1e-9
        raise Unreadable("has an affine without orientation (it is singular or not finite); correct its header")
    own = nib.orientations.io_orientation(affine)
    return nib.orientations.ornt_transform(own, nib.orientations.axcodes2ornt("LPS")), affine


def read_voxels(
    path: Path, channels: Sequence[int] = (0,), dtype: type[np.float32] | type[np.int64] = np.float32, repaired: bool = False
) -> Array:
    """(X, Y, Z, C) voxels of the channels in the orientation LPS, with the scaling of the header applied.

    dtype: np.int64 rounds to whole numbers, for segmentations.  repaired: voxels that a damaged file lacks are 0.
    Raises Unreadable as `read_geometry`, for a channel that the file lacks, and for complex or colour voxels."""
    import nibabel as nib

    with open_volume(path, whole=not repaired, repaired=repaired) as image:
        geometry = describe_volume(image)
        check_channels(geometry.channels, channels)
        kind = image.get_data_dtype()
        if kind.fields or kind.kind not in "iufb":
            raise Unreadable(f"has voxels of type {kind}; expected one number per voxel")
        to_lps, _ = lps_orientation(image)
        parts = [nib.orientations.apply_orientation(read_channel(image, c), to_lps) for c in channels]
    values = np.stack(parts, axis=-1)  # (X, Y, Z, C)
    return np.rint(values).astype(np.int64) if dtype is np.int64 else values


def read_channel(image: "Nifti1Image", channel: int) -> NDArray[np.float32]:
    """(X, Y, Z) voxels of one channel, in the orientation of the file. Axes of length one after the third may stand anywhere."""
    full = image.shape
    where: tuple[Any, ...] = tuple(slice(None) if i < 3 else channel if n > 1 else 0 for i, n in enumerate(full))
    values = np.asarray(image.dataobj[where], dtype=np.float32)
    return values.reshape((*values.shape, 1)[:3])


def check_channels(present: int, wanted: Sequence[int]) -> None:
    """Raises Unreadable if the file lacks one of the channels."""
    if max(wanted) >= present:
        raise Unreadable(f"has {present} channel{'s' if present > 1 else ''}, numbered from 0; there is no channel {max(wanted)}")


def take_slice(voxels: Array, axis: SliceAxis, number: int) -> Array:
    """(H, W, C) slice of (X, Y, Z, C) voxels in LPS, as a viewer shows it.

    axial: front at the top, patient's right at the left.  coronal: head at the top, patient's right at the left.
    sagittal: head at the top, front at the left."""
    cut = np.take(voxels, number, axis=AXIS_NUMBERS[axis])  # (columns, rows, C)
    return np.ascontiguousarray(np.swapaxes(cut if axis == "axial" else cut[:, ::-1], 0, 1))
