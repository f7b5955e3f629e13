"""The stored values of a DICOM image before any display transform: decoded, without unused bits, with a mask of the padding.

Data sets that are not a single readable image (several frames, no pixels, a truncated stream) raise Unreadable.

Shapes: H, W rows and columns.
"""

from typing import TYPE_CHECKING

import numpy as np

from encoders.ingest.source import Unreadable
from encoders.runtime.arrays import Array, BoolArray

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID


def decode_stored_values(ds: "Dataset") -> Array:
    """Stored values: (H, W) integers, signed if the file declares it, or (H, W, 3) RGB."""
    from pydicom.pixels import apply_color_lut, pixel_array

    check_single_image(ds)
    syntax = ds.file_meta.TransferSyntaxUID
    native = not syntax.is_encapsulated
    try:
        if native:
            stored = pixel_array(ds, correct_unused_bits=False)  # done below, also for HighBit
        else:
            stored = pixel_array(ds, decoding_plugin=decoder_plugin(syntax))
    except NotImplementedError as error:
        raise Unreadable(f"transfer syntax {syntax.name} cannot be decoded: {error}") from error
    except (ValueError, RuntimeError, AttributeError) as error:
        raise Unreadable(f"the pixels cannot be decoded: {' '.join(str(error).split())}") from error
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        return apply_color_lut(stored, ds)
    return extract_used_bits(stored, ds) if native and stored.ndim == 2 else stored


def check_single_image(ds: "Dataset") -> None:
    """Raises Unreadable for data sets that are not a single image."""
    if "PixelData" not in ds:
        kind = "floating-point pixels (a parametric map)" if "FloatPixelData" in ds or "DoubleFloatPixelData" in ds else "no pixels"
        raise Unreadable(f"has {kind}: {sop_class_name(ds)}, or the file is truncated" if kind == "no pixels" else f"has {kind}")
    missing = [k for k in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PhotometricInterpretation") if ds.get(k) in (None, "")]
    if missing:
        raise Unreadable(f"the header lacks {', '.join(missing)}")
    frames = int(ds.get("NumberOfFrames") or 1)
    if frames > 1:
        raise Unreadable(f"has {frames} frames; expected one image per file: export each frame to a file of its own")
    if int(ds.BitsAllocated) not in (8, 16, 32):
        raise Unreadable(f"{ds.BitsAllocated} bits are allocated per pixel; expected 8, 16 or 32")


def sop_class_name(ds: "Dataset") -> str:
    """The kind of object, in words."""
    uid = ds.get("SOPClassUID")
    return str(uid.name) if uid else "no SOP class"


def decoder_plugin(syntax: "UID") -> str:
    """The decoder, always the same for a syntax, because JPEG decoders differ by one gray level."""
    return "pydicom" if syntax.name.startswith("RLE") else "pylibjpeg"


def extract_used_bits(stored: Array, ds: "Dataset") -> Array:
    """The BitsStored bits below HighBit, sign extended. The other bits (old overlays, noise) are not part of the value."""
    allocated, bits = int(ds.BitsAllocated), int(ds.BitsStored)
    high = int(ds.get("HighBit", bits - 1))
    if bits == allocated:
        return stored
    if not bits - 1 <= high < allocated:
        raise Unreadable(f"HighBit {high} is invalid for {bits} bits stored in {allocated}")
    return (stored << (allocated - 1 - high)) >> (allocated - bits)  # arithmetic shift: int16 keeps its sign


def padding_mask(stored: Array, ds: "Dataset") -> BoolArray:
    """(H, W): pixels outside the image, by PixelPaddingValue and PixelPaddingRangeLimit."""
    if ds.get("PixelPaddingValue") in (None, ""):
        return np.zeros(stored.shape, dtype=bool)
    ends = [reinterpret_sign(ds.PixelPaddingValue, ds), reinterpret_sign(ds.get("PixelPaddingRangeLimit", ds.PixelPaddingValue), ds)]
    return np.asarray((stored >= min(ends)) & (stored <= max(ends)))


def reinterpret_sign(value: int | float | str, ds: "Dataset") -> int:
    """A tag in pixel units as a signed number if pixels are signed: writers often store its bits as an unsigned number."""
    number, bits = int(value), int(ds.BitsAllocated)
    return number - (1 << bits) if is_signed(ds) and number >= 1 << (bits - 1) else number


def is_signed(ds: "Dataset") -> bool:
    """Whether pixels are two's complement."""
    return int(ds.get("PixelRepresentation") or 0) == 1
