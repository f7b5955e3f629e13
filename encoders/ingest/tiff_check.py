"""Whether the strips and tiles of a TIFF page are whole: they are in the file, decode without a warning, and have the right length.

TIFF has no checksums. Deflate has one (Adler-32), LZMA has one (CRC), Zstandard may have one; changed bytes of uncompressed pixels, and
most of those of PackBits and LZW, cannot be found. libtiff stops after the last pixel, and tifffile fills what is missing; here, both are
damage.

Source: TIFF 6.0; Adobe Photoshop TIFF Technical Notes (Deflate).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from encoders.ingest.jpeg_file import find_jpeg_damage
from encoders.ingest.zlib_check import find_stream_problem

if TYPE_CHECKING:
    from tifffile import TiffPage

UNCOMPRESSED, LZW, PACKBITS, LZMA, ZSTD = 1, 5, 32773, 34925, 50000  # tag 259
JPEG_COMPRESSIONS, DEFLATE_COMPRESSIONS = (6, 7), (8, 32946)
ANY_LENGTH = (0, 1 << 62)
SUBSAMPLED = 6  # tag 262: YCbCr, whose strips have fewer samples unless they are JPEG


def find_tiff_damage(page: "TiffPage", size: int) -> str:
    """What is damaged in the pixels of a page, in the words of its decoder; "" if nothing is found.  size: bytes of the file."""
    ends = [start + count for start, count in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if not ends or 0 in page.databytecounts:
        return "a strip or tile is missing"
    if max(ends) > size:
        return f"its pixels end at byte {max(ends):,}, and the file has {size:,}; it is truncated"
    compression, sizes = int(page.compression), segment_sizes(page)
    tables, handle = bytes(page.jpegtables or b"")[2:-2], page.parent.filehandle
    if len(ends) < len(sizes):
        return f"it has {len(ends)} strips or tiles, expected {len(sizes)}"
    for start, count, expected in zip(page.dataoffsets, page.databytecounts, sizes, strict=False):
        if compression == UNCOMPRESSED:  # the length is enough
            words = f"a strip or tile has {count:,} bytes, expected {expected[0]:,}" if count < expected[0] else ""
        else:
            handle.seek(start)
            words = find_segment_damage(handle.read(count), compression, expected, tables, int(page.fillorder) == 2)
        if words:
            return f"{words} (strip or tile at byte {start:,})"
    return ""


def segment_sizes(page: "TiffPage") -> list[tuple[int, int]]:
    """For each strip or tile, the two numbers of bytes that it may decode to: the last strip may be filled to the length of the others."""
    bits = np.atleast_1d(page.bitspersample).tolist()
    planes = int(page.samplesperpixel) if int(page.planarconfig) == 2 else 1
    samples = int(page.samplesperpixel) // planes
    height, width = int(page.imagelength), int(page.imagewidth)
    if page.is_tiled:
        number = -(-height // page.tilelength) * -(-width // page.tilewidth)
        rows, columns = [int(page.tilelength)] * number, int(page.tilewidth)
    else:
        each = min(int(page.rowsperstrip or height), height)
        rows, columns = [min(each, height - top) for top in range(0, height, each)], width
    if len(set(bits)) > 1 or int(page.photometric) == SUBSAMPLED or int(getattr(page, "imagedepth", 1) or 1) > 1:
        return [ANY_LENGTH] * (len(rows) * planes)
    row_bytes = -(-columns * samples * bits[0] // 8)
    return [(n * row_bytes, max(rows) * row_bytes) for n in rows] * planes


def find_segment_damage(data: bytes, compression: int, expected: tuple[int, int], tables: bytes, reversed_bits: bool) -> str:
    """What is damaged in a compressed strip or tile; "" if nothing is found, and for compressions without a check.

    expected: the two numbers of bytes that it may have.  tables: of JPEG, without its first and last marker."""
    import imagecodecs

    if compression in JPEG_COMPRESSIONS:
        found = find_jpeg_damage(data[:2] + tables + data[2:]) if data[:2] == b"\xff\xd8" else "there is no JPEG"
        return f"damaged JPEG: {found}" if found and (compression == 7 or data[:2] == b"\xff\xd8") else ""
    if reversed_bits:
        data = bytes(imagecodecs.bitorder_decode(data))
    if compression in DEFLATE_COMPRESSIONS:
        return find_stream_problem(data, expected[0])
    names = {LZW: "lzw", PACKBITS: "packbits", LZMA: "lzma", ZSTD: "zstd"}
    if compression not in names:
        return ""
    decode: Callable[[bytes], bytes] = getattr(imagecodecs, f"{names[compression]}_decode")
    try:
        length = len(decode(data))
    except (RuntimeError, ValueError) as error:
        return f"damaged {names[compression].upper()} data: {' '.join(str(error).split())}"
    if expected != ANY_LENGTH and length not in expected:
        return f"damaged {names[compression].upper()} data: {length:,} bytes, expected {expected[0]:,}"
    return ""


def tolerate_damage(page: "TiffPage") -> None:
    """Makes strips and tiles that cannot be decoded black, until the file is closed."""
    decode = page.decode

    def decode_or_fill(data: bytes | None, index: int, /, **options: object) -> Any:
        try:
            return decode(data, index, **options)
        except Exception:  # noqa: BLE001  boundary: one strip of a file that is known to be damaged
            return decode(None, index, **options)

    page.decode = decode_or_fill
