"""Whether a zlib stream is whole: it ends with the Adler-32 of its content, which readers ignore that stop after the last pixel."""

import zlib

PIECE = 1 << 18  # bytes that are inflated at a time


def find_stream_problem(packed: bytes, size: int) -> str:
    """What is wrong with a zlib stream that should hold at least `size` bytes; "" if nothing is, also if it holds more."""
    inflate, found = zlib.decompressobj(), 0
    try:
        while not inflate.eof:
            part = inflate.decompress(packed, PIECE)
            found, packed = found + len(part), inflate.unconsumed_tail
            if not packed and not part:
                return f"its compressed pixels end after {found:,} of {size:,} bytes"
            if found > 2 * size + PIECE:
                return f"its compressed pixels hold more than {found:,} bytes, expected {size:,}"
    except zlib.error as error:
        return f"its compressed pixels are damaged: {error}"
    return "" if found >= size else f"its compressed pixels hold {found:,} bytes, expected {size:,}"


def inflate_part(packed: bytes, size: int, step: int = 64) -> bytes:
    """The first `size` bytes of a damaged zlib stream, followed by zeros in place of those that cannot be decoded."""
    inflate, out = zlib.decompressobj(), bytearray()
    try:
        for at in range(0, len(packed), step):
            out += inflate.decompress(packed[at : at + step])
            if len(out) >= size:
                break
    except zlib.error:
        pass  # what came before stays
    return bytes(out[:size]).ljust(size, b"\0")
