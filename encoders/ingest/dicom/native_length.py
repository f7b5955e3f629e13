"""Whether pixel data have the length that the header states: rows x columns x samples x bits of an image, or the items of a compressed one.

Source: PS3.5 8.1.1 and 8.2 (native), A.4 (encapsulated).
"""

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

ITEM_TAG, DELIMITER_TAG = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"
IMAGE_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ")  # JPEG and JPEG-LS, JPEG 2000, JP2


def native_length(ds: "Dataset") -> int:
    """Bytes of one uncompressed image, without the byte that makes the length even."""
    samples = int(ds.get("SamplesPerPixel") or 1)
    bits = int(ds.Rows) * int(ds.Columns) * samples * int(ds.BitsAllocated)
    return -(-bits // 8) if ds.PhotometricInterpretation != "YBR_FULL_422" else -(-bits // 12)  # two pixels share their colour


def find_wrong_length(ds: "Dataset") -> str:
    """How the native pixel data differ in length from what the header states; "" if they do not."""
    expected, found = native_length(ds), len(ds.PixelData)
    if found in (expected, expected + expected % 2):
        return ""
    size = f"{ds.Rows} x {ds.Columns} pixels"
    return f"the pixel data have {found:,} bytes, and {size} have {expected:,}: {'too few' if found < expected else 'too many'}"


def pad_pixel_data(ds: "Dataset") -> None:
    """Makes the native pixel data as long as the header states: what is missing is 0, what is too much is cut off."""
    expected = native_length(ds)
    ds.PixelData = bytes(ds.PixelData)[:expected].ljust(expected + expected % 2, b"\0")


def find_item_problem(data: bytes) -> str:
    """What is wrong with the items of encapsulated pixel data of one image; "" if nothing is."""
    items, at = [], 0
    while at < len(data) and data[at : at + 4] != DELIMITER_TAG:
        if data[at : at + 4] != ITEM_TAG or at + 8 > len(data):
            return f"there is no item of pixel data at byte {at:,} of {len(data):,}"
        (length,) = struct.unpack_from("<I", data, at + 4)
        items.append(data[at + 8 : at + 8 + length])
        at += 8 + length
    if at > len(data):
        return f"its last fragment ends at byte {at:,}, and the pixel data have {len(data):,}: it is truncated"
    if len(items) < 2 or not any(items[1:]):
        return "it has no fragment of pixel data"
    if items[0] not in (b"", b"\0\0\0\0"):  # the offsets of all images: one, at 0
        return f"its offset table has {len(items[0]):,} bytes, expected that of one image"
    images = sum(item.startswith(IMAGE_STARTS) for item in items[1:])
    return f"it holds {images} images, and the header states one" if images > 1 else ""
