"""The stored values of a DICOM image, before any meaning is given to them: decoded, unused bits dropped, padding found.

What is no single readable image is refused with its reason (several frames, no pixels, a stream that ends early).

Shapes: H, W rows and columns.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.source import Unreadable
from encoders.runtime.arrays import Array


def decode_stored_values(ds: Any) -> Array:
    """Stored values: (H, W) integers, signed where the file says so, or (H, W, 3) RGB."""
    from pydicom.pixels import apply_color_lut, pixel_array

    check_single_image(ds)
    options: dict[str, Any] = {}
    native = not ds.file_meta.TransferSyntaxUID.is_encapsulated
    if native:
        options["correct_unused_bits"] = False  # ours below, which also honours HighBit
    else:
        check_stream_complete(ds)
        options["decoding_plugin"] = decoder_plugin(ds.file_meta.TransferSyntaxUID)
    try:
        stored = pixel_array(ds, **options)
    except NotImplementedError as wrong:
        raise Unreadable(f"transfer syntax {ds.file_meta.TransferSyntaxUID.name} cannot be decoded: {wrong}") from wrong
    except (ValueError, RuntimeError, AttributeError) as wrong:
        raise Unreadable(f"the pixels cannot be decoded: {' '.join(str(wrong).split())}") from wrong
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        return apply_color_lut(stored, ds)
    return extract_used_bits(stored, ds) if native and stored.ndim == 2 else stored


def check_single_image(ds: Any) -> None:
    """Raises Unreadable for data sets that are no single image."""
    if "PixelData" not in ds:
        kind = "floating-point pixels (a parametric map)" if "FloatPixelData" in ds or "DoubleFloatPixelData" in ds else "no pixels"
        raise Unreadable(f"has {kind}: {sop_class_name(ds)}, or the file is truncated" if kind == "no pixels" else f"has {kind}")
    missing = [k for k in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PhotometricInterpretation") if ds.get(k) in (None, "")]
    if missing:
        raise Unreadable(f"the header lacks {', '.join(missing)}")
    frames = int(ds.get("NumberOfFrames") or 1)
    if frames > 1:
        raise Unreadable(f"has {frames} frames; one image a file is expected: export the frames that you want as files of their own")
    if int(ds.BitsAllocated) not in (8, 16, 32):
        raise Unreadable(f"{ds.BitsAllocated} bits are allocated for a pixel; 8, 16 and 32 are read")


def sop_class_name(ds: Any) -> str:
    """What kind of object it is, in words."""
    uid = ds.get("SOPClassUID")
    return uid.name if uid else "no SOP class given"


def decoder_plugin(syntax: Any) -> str:
    """The decoder, always the same one: two JPEG decoders differ by one grey value."""
    return "pydicom" if syntax.name.startswith("RLE") else "pylibjpeg"


def check_stream_complete(ds: Any) -> None:
    """Raises Unreadable where a compressed stream ends before its end marker: decoders fill the rest with grey."""
    if not any(kind in ds.file_meta.TransferSyntaxUID.name for kind in ("JPEG", "J2K")):
        return
    if b"\xff\xd9" not in bytes(ds.PixelData[-64:]):  # the marker, an even-length pad byte and the sequence delimiter follow
        raise Unreadable("the compressed pixels have no end marker: the file is truncated")


def extract_used_bits(stored: Array, ds: Any) -> Array:
    """The BitsStored bits below HighBit, sign extended: what lies in the others (old overlays, noise) is no part of the value."""
    allocated, bits = int(ds.BitsAllocated), int(ds.BitsStored)
    high = int(ds.get("HighBit", bits - 1))
    if bits == allocated:
        return stored
    if not bits - 1 <= high < allocated:
        raise Unreadable(f"HighBit {high} does not fit {bits} bits stored in {allocated}")
    return (stored << (allocated - 1 - high)) >> (allocated - bits)  # arithmetic shift: int16 keeps its sign


def padding_mask(stored: Array, ds: Any) -> NDArray[np.bool_]:
    """(H, W): pixels that are no part of the image, by PixelPaddingValue and PixelPaddingRangeLimit."""
    if ds.get("PixelPaddingValue") in (None, ""):
        return np.zeros(stored.shape, dtype=bool)
    ends = [reinterpret_sign(ds.PixelPaddingValue, ds), reinterpret_sign(ds.get("PixelPaddingRangeLimit", ds.PixelPaddingValue), ds)]
    return (stored >= min(ends)) & (stored <= max(ends))


def reinterpret_sign(value: Any, ds: Any) -> int:
    """A tag that is in pixel units as a signed number where pixels are: writers often give the unsigned reading of its bits."""
    value, bits = int(value), int(ds.BitsAllocated)
    return value - (1 << bits) if is_signed(ds) and value >= 1 << (bits - 1) else value


def is_signed(ds: Any) -> bool:
    return int(ds.get("PixelRepresentation") or 0) == 1
