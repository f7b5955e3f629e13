"""Whether a PNG file is whole, by its checksums: a CRC of every chunk, and the Adler-32 of the compressed pixels.

Pillow ignores the CRC of the pixels and stops before their Adler-32; libpng ignores the CRC of chunks that a decoder may skip.
Source: PNG specification, third edition, 5 (chunks), 7.2 (scanlines), 8.2 (interlacing), 10.1 (zlib).
"""

import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from encoders.ingest.zlib_check import find_stream_problem, inflate_available

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
SAMPLES_OF_COLOUR_TYPE = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
BEFORE_PIXELS = (b"PLTE", b"tRNS", b"gAMA", b"cHRM", b"iCCP", b"sRGB", b"cICP", b"sBIT")  # a decoder ignores them after the pixels
ONLY_ONCE = (b"IHDR", b"PLTE", b"tRNS", b"gAMA", b"iCCP", b"sRGB")
KEPT_IF_WHOLE = (b"tRNS", b"gAMA", b"iCCP", b"sRGB", b"eXIf")  # chunks that change how pixels are read
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))  # x, y, step in x, step in y


class PngChunk(NamedTuple):
    """One chunk.  problem: why it is not whole, or ""."""

    kind: bytes
    at: int  # byte of the file
    data: bytes
    problem: str


def find_png_damage(data: bytes, most_pixels: int) -> str:
    """What is damaged in a PNG file; "" if its checksums are right and nothing is missing. Bytes after its end are no damage.

    most_pixels: limit of width times height; the pixels of a larger image are not decompressed."""
    chunks = list(read_chunks(data))
    if problem := next((chunk.problem for chunk in chunks if chunk.problem), ""):
        return problem
    kinds = [chunk.kind for chunk in chunks]
    if kinds[0] != b"IHDR" or len(chunks[0].data) != 13 or b"IDAT" not in kinds:
        return "it does not begin with a header, or has no pixels"
    first, last = kinds.index(b"IDAT"), len(kinds) - 1 - kinds[::-1].index(b"IDAT")
    if any(kind != b"IDAT" for kind in kinds[first : last + 1]):
        return "other chunks stand between its pixels"
    late = [kind for kind in kinds[last:] if kind in BEFORE_PIXELS]
    if b"tRNS" in kinds and b"PLTE" in kinds and kinds.index(b"tRNS") < kinds.index(b"PLTE"):
        late.append(b"PLTE")
    count = Counter(kinds)
    late += [kind for kind in ONLY_ONCE if count[kind] > 1]
    if late:
        return f"the chunk {late[0].decode()} is out of place"
    if count_pixels(chunks[0].data) > most_pixels:
        return ""
    size = sum(rows * length for rows, length in pass_shapes(chunks[0].data))
    return find_stream_problem(b"".join(chunk.data for chunk in chunks if chunk.kind == b"IDAT"), size)


def read_chunks(data: bytes) -> Iterator[PngChunk]:
    """The chunks up to the end of the image, or to the first whose length cannot be right."""
    at, kind = len(PNG_SIGNATURE), b""
    while kind != b"IEND":
        if at + 12 > len(data):
            yield PngChunk(b"", at, b"", f"it has no IEND chunk: it is truncated at byte {len(data):,}")
            return
        (length,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        if not kind.isalpha() or not kind.isascii():
            yield PngChunk(b"", at, b"", f"there is no chunk at byte {at:,}")
            return
        content = data[at + 8 : at + 8 + length]
        if len(content) < length or at + 12 + length > len(data):
            yield PngChunk(kind, at, content, f"the chunk {kind.decode()} at byte {at:,} is longer than the file: it is truncated")
            return
        (stored,) = struct.unpack_from(">I", data, at + 8 + length)
        wrong = zlib.crc32(content, zlib.crc32(kind)) != stored
        yield PngChunk(kind, at, content, f"the CRC of the chunk {kind.decode()} at byte {at:,} is wrong" if wrong else "")
        at += 12 + length


def count_pixels(header: bytes) -> int:
    """Width times height.  header: of the chunk IHDR."""
    width, height = struct.unpack_from(">II", header)
    return int(width * height)


def pass_shapes(header: bytes) -> list[tuple[int, int]]:
    """(rows, bytes of a row with its filter byte) of each pass; several if the image is interlaced.  header: of the chunk IHDR."""
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    bits = depth * SAMPLES_OF_COLOUR_TYPE.get(colour, 1)
    passes = ADAM7 if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(height - y) // dy), -(-(width - x) // dx)) for x, y, dx, dy in passes]
    return [(rows, 1 + -(-columns * bits // 8)) for rows, columns in sizes if rows > 0 and columns > 0]


def repair_png(data: bytes, most_pixels: int) -> bytes | None:
    """A PNG with right checksums and the pixels that can be decoded; the others are 0. None if its header is damaged or it is too large."""
    chunks = list(read_chunks(data))
    if chunks[0].kind != b"IHDR" or chunks[0].problem or len(chunks[0].data) != 13 or count_pixels(chunks[0].data) > most_pixels:
        return None
    shapes = pass_shapes(chunks[0].data)
    size = sum(rows * length for rows, length in shapes)
    pixels = inflate_available(b"".join(chunk.data for chunk in chunks if chunk.kind == b"IDAT"))
    values = np.frombuffer(pixels[:size].ljust(size, b"\0"), np.uint8).copy()
    at = 0
    for rows, length in shapes:
        filters = values[at : at + rows * length : length]
        filters[filters > 4] = 0  # there are five filters
        at += rows * length
    before = [chunk for chunk in chunks[1:] if chunk.kind == b"PLTE" or (chunk.kind in KEPT_IF_WHOLE and not chunk.problem)]
    parts = [(b"IHDR", chunks[0].data), *((chunk.kind, chunk.data) for chunk in before)]
    parts += [(b"IDAT", zlib.compress(values.tobytes(), 1)), (b"IEND", b"")]
    return PNG_SIGNATURE + b"".join(write_chunk(kind, content) for kind, content in parts)


def write_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk with its length and CRC."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))
