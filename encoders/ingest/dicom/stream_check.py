"""Checks of the pixels of a DICOM file: their length, whether compressed ones have an end, and whether a strict decoder finds damage.

The decoders of pixel data accept damaged streams. libjpeg-turbo checks JPEG of 8 bits, CharLS checks JPEG-LS, and the length of lossless
JPEG is compared with that of its pixels. Changes inside JPEG 2000 (about which OpenJPEG does not warn) and inside JPEG of 12 bits cannot be
distinguished from intact pixels; only a missing part is found.
"""

import re
import struct
from collections.abc import Iterable
from typing import TYPE_CHECKING

from encoders.ingest.dicom.lossless_jpeg import find_unused_data
from encoders.ingest.dicom.native_length import find_item_problem, find_wrong_length
from encoders.ingest.jpeg_file import find_jpeg_damage
from encoders.runtime.read_errors import describe_reason

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

LOSSLESS_JPEG = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
RLE_PADDING = 2  # bytes that writers add to a segment
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


def lacks_end_marker(ds: "Dataset") -> bool:
    """Whether a compressed stream has no end marker: decoders fill the missing part with gray. Bytes after it are padding.

    The marker cannot occur inside compressed data, in which 0xFF is always followed by a smaller byte."""
    family = stream_family(ds)
    if not family:
        return False
    data = compressed_stream(ds)
    return data.rfind(END_MARKER) <= data.rfind(J2K_DATA_MARKER if family == "JPEG 2000" else SCAN_MARKER)


def find_stream_damage(ds: "Dataset") -> str:
    """What is damaged in the pixels, in the words of a strict decoder if there is one; "" if nothing is found.

    ds: of a single image, see `check_single_image`."""
    if not ds.file_meta.TransferSyntaxUID.is_encapsulated:
        return find_wrong_length(ds)
    if problem := find_item_problem(bytes(ds.PixelData)):
        return f"damaged compressed pixels: {problem}"
    if lacks_end_marker(ds):
        return "the compressed pixels have no end marker: the file is truncated"
    words = find_decoder_words(ds)
    return f"damaged compressed pixels: {words}" if words else ""


def find_decoder_words(ds: "Dataset") -> str:
    """The words of a strict decoder about a damaged stream; "" if it finds none, or if no strict decoder reads the stream."""
    family = stream_family(ds)
    if family == "JPEG":
        if ds.file_meta.TransferSyntaxUID in LOSSLESS_JPEG:
            return find_lossless_damage(compressed_stream(ds))
        return find_jpeg_damage(compressed_stream(ds)) if int(ds.get("BitsAllocated") or 0) == 8 else ""
    if family == "JPEG-LS":
        import imagecodecs

        try:
            imagecodecs.jpegls_decode(compressed_stream(ds))
        except (imagecodecs.JpeglsError, ValueError) as error:
            return " ".join(str(error).split())
    return ""


def find_lossless_damage(stream: bytes) -> str:
    """The words of the decoder of lossless JPEG, or how the length of the stream differs from that of its pixels; "" for neither."""
    from libjpeg import decode

    try:
        pixels = decode(stream)
    except (RuntimeError, ValueError) as error:
        return describe_reason(error)
    try:
        return find_unused_data(stream, pixels)
    except (ValueError, LookupError):  # a header that the decoder reads all the same
        return ""


def find_damage_in_warnings(messages: Iterable[str]) -> str:
    """The first warning of pydicom's decoder that means damage; "" if there is none. Most are about values that violate the standard."""
    for message in messages:
        lengths = re.search(r"RLE segment contains non-conformant padding - (\d+) vs\. (\d+)", message)
        if (lengths and int(lengths[1]) - int(lengths[2]) > RLE_PADDING) or "frames have been found" in message:
            return " ".join(message.split())
    return ""
