"""Whether a zlib stream is whole: it ends with the Adler-32 of its content, which readers ignore that stop after the last pixel."""

import zlib
from contextlib import suppress

INFLATED_PIECE, REPAIRED_PIECE = 1 << 18, 1 << 14  # bytes that are inflated at a time


def find_stream_problem(packed: bytes, size: int) -> str:
    """What is wrong with a zlib stream that should hold at least `size` bytes (0: unknown); "" if nothing is, also if it holds more."""
    inflate, found = zlib.decompressobj(), 0
    try:
        while not inflate.eof:
            part = inflate.decompress(packed, INFLATED_PIECE)
            found, packed = found + len(part), inflate.unconsumed_tail
            if not packed and not part:
                return f"its compressed pixels end after {found:,} of {size:,} bytes"
            if size and found > 2 * size + INFLATED_PIECE:
                return f"its compressed pixels hold more than {found:,} bytes, expected {size:,}"
    except zlib.error as error:
        return f"its compressed pixels are damaged: {error}"
    return "" if found >= size else f"its compressed pixels hold {found:,} bytes, expected {size:,}"


def inflate_available(packed: bytes, wbits: int = zlib.MAX_WBITS) -> bytes:
    """What can be decompressed of a damaged stream, up to the byte at which the decoder refuses it.  wbits: 31 for gzip."""
    inflate, out = zlib.decompressobj(wbits), bytearray()
    for at in range(0, len(packed), REPAIRED_PIECE):
        piece, before = packed[at : at + REPAIRED_PIECE], inflate.copy()
        try:
            out += inflate.decompress(piece)
        except zlib.error:
            with suppress(zlib.error):
                for k in range(len(piece)):
                    out += before.decompress(piece[k : k + 1])
            break
    return bytes(out)
