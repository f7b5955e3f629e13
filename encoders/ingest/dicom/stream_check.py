"""Checks of the compressed pixels of a DICOM file: whether they have an end, and whether a strict decoder finds damage.

The decoders of pixel data accept damaged streams. libjpeg-turbo checks JPEG of 8 bits, CharLS checks JPEG-LS. Changes inside JPEG 2000, and
inside JPEG of more than 8 bits or lossless, cannot be distinguished from intact pixels; only a missing part is found.
"""

import struct
from typing import TYPE_CHECKING

from encoders.ingest.jpeg_file import find_jpeg_damage
from encoders.ingest.source import Unreadable

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

END_MARKER, SCAN_MARKER, J2K_DATA_MARKER = b"\xff\xd9", b"\xff\xda", b"\xff\x93"


def stream_family(ds: "Dataset") -> str:
    """JPEG, JPEG-LS or JPEG 2000; "" for other transfer syntaxes."""
    name = ds.file_meta.TransferSyntaxUID.name
    for family in ("JPEG-LS", "JPEG 2000", "High-Throughput JPEG 2000"):
        if name.startswith(family):
            return family.removeprefix("High-Throughput ")
    return "JPEG" if name.startswith("JPEG ") else ""


def compressed_stream(ds: "Dataset") -> bytes:
    """The stream of the only frame, its fragments joined; the raw value if it is not encapsulated correctly."""
    from pydicom.encaps import get_frame

    try:
        return get_frame(ds.PixelData, 0, number_of_frames=1)
    except (ValueError, IndexError, struct.error):
        return bytes(ds.PixelData)


def check_stream_complete(ds: "Dataset") -> None:
    """Raises Unreadable if a compressed stream has no end marker: decoders fill the missing part with gray. Bytes after it are padding.

    The marker cannot occur inside compressed data, in which 0xFF is always followed by a smaller byte."""
    family = stream_family(ds)
    if not family:
        return
    data = compressed_stream(ds)
    if data.rfind(END_MARKER) <= data.rfind(J2K_DATA_MARKER if family == "JPEG 2000" else SCAN_MARKER):
        raise Unreadable("the compressed pixels have no end marker: the file is truncated")


def find_stream_damage(ds: "Dataset") -> str:
    """The words of a strict decoder about a damaged stream; "" if it finds none, or if no strict decoder reads the stream."""
    family = stream_family(ds) if "PixelData" in ds else ""
    if family == "JPEG":
        return find_jpeg_damage(compressed_stream(ds)) if int(ds.get("BitsAllocated") or 0) == 8 else ""
    if family == "JPEG-LS":
        import imagecodecs

        try:
            imagecodecs.jpegls_decode(compressed_stream(ds))
        except (imagecodecs.JpeglsError, ValueError) as error:
            return " ".join(str(error).split())
    return ""
