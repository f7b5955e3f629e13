"""Whether a decoder of lossless JPEG used all of the compressed data: after damage, it uses more or less, and does not say so.

The number of bits follows from the pixels: each difference from its prediction has the length of its Huffman code, and its own bits.

Source: ITU-T T.81, B.2 (markers), F.1.2.1 and H.1.2 (differences, predictors, restart intervals), F.1.2.3 (stuffing).
Shapes: H, W pixels; C components.
"""

import re
from dataclasses import dataclass, field

import numpy as np

from encoders.runtime.arrays import Array, IntArray

START_OF_FRAME, HUFFMAN_TABLES, START_OF_SCAN, RESTART_INTERVAL = 0xC3, 0xC4, 0xDA, 0xDD
RESTART = re.compile(rb"\xff[\xd0-\xd7]")
END = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # a marker that ends a scan
NO_CODE = 1 << 20  # length of a code that the table lacks


@dataclass
class LosslessHeader:
    """What the markers before the data state."""

    precision: int = 0
    sampling: list[int] = field(default_factory=list)  # of each component; 0x11 without subsampling
    tables: dict[int, IntArray] = field(default_factory=dict)  # (17,): length of the code of each category
    table_of: list[int] = field(default_factory=list)  # of each component of the scan
    predictor: int = 0
    shift: int = 0  # point transform
    interval: int = 0  # pixels between restart markers; 0: none
    data_at: int = 0


def find_unused_data(stream: bytes, pixels: Array) -> str:
    """How the length of the compressed data differs from what the pixels (H, W) or (H, W, C) need; "" if it does not.

    "" as well for streams of several scans or with subsampling, which cannot be checked."""
    header = read_header(stream)
    values = pixels.reshape(*pixels.shape[:2], -1).astype(np.int32) >> header.shift  # (H, W, C)
    height, width, components = values.shape
    if components != len(header.table_of) or set(header.sampling) != {0x11} or header.interval % width or not 1 <= header.predictor <= 7:
        return ""
    rows = header.interval // width or height  # between restarts
    end = END.search(stream, header.data_at)
    parts = RESTART.split(stream[header.data_at : end.start() if end else len(stream)])
    blocks = [values[top : top + rows] for top in range(0, height, rows)]
    if len(parts) != len(blocks):
        return f"its compressed data have {len(parts)} restart intervals, expected {len(blocks)}"
    for part, block in zip(parts, blocks, strict=True):
        held = len(part) - part.count(b"\xff\0")
        used = -(-count_bits(block, header) // 8)
        if used != held:
            return f"its compressed data have {held:,} bytes, and the decoded pixels need {used:,}"
    return ""


def read_header(stream: bytes) -> LosslessHeader:
    """The header of a stream. Raises ValueError or IndexError if it is not lossless JPEG."""
    header, at = LosslessHeader(), 2
    while header.data_at == 0:
        while stream[at : at + 2] == b"\xff\xff":
            at += 1  # fill bytes
        if stream[at] != 0xFF:
            raise ValueError(f"there is no marker at byte {at:,}")
        marker, length = stream[at + 1], int.from_bytes(stream[at + 2 : at + 4])
        body = stream[at + 4 : at + 2 + length]
        if marker == START_OF_FRAME:
            header.precision, header.sampling = body[0], list(body[7::3])[: body[5]]
        elif marker == HUFFMAN_TABLES:
            while body:
                counts, number = body[1:17], sum(body[1:17])
                lengths = np.full(17, NO_CODE, np.int64)
                lengths[np.frombuffer(body[17 : 17 + number], np.uint8)] = np.repeat(np.arange(1, 17), list(counts))
                header.tables[body[0]], body = lengths, body[17 + number :]
        elif marker == RESTART_INTERVAL:
            header.interval = int.from_bytes(body[:2])
        elif marker == START_OF_SCAN:
            number = body[0]
            header.table_of = [table >> 4 for table in body[2 : 2 + 2 * number : 2]]
            header.predictor, header.shift = body[1 + 2 * number], body[3 + 2 * number] & 15
            header.data_at = at + 2 + length
        at += 2 + length
    return header


def count_bits(values: IntArray, header: LosslessHeader) -> int:
    """Bits of the compressed data of a restart interval.  values: (H, W, C), without the point transform."""
    size = np.abs((values - predict(values, header) + 32768 & 0xFFFF) - 32768)  # of the differences, which are modulo 2^16
    category = np.frexp(np.arange(32769, dtype=np.float64))[1]  # number of bits
    own = np.where(category == 16, 0, category)  # 32768 has none
    return sum(int((header.tables[table][category] + own)[size[..., c]].sum()) for c, table in enumerate(header.table_of))


def predict(values: IntArray, header: LosslessHeader) -> IntArray:
    """(H, W, C) predictions: from the left in the first row, from above in the first column, elsewhere by the predictor of the scan."""
    out = np.empty_like(values)
    out[0, 0] = 1 << (header.precision - header.shift - 1)
    out[0, 1:], out[1:, 0] = values[0, :-1], values[:-1, 0]
    left, above, corner = values[1:, :-1], values[:-1, 1:], values[:-1, :-1]
    out[1:, 1:] = {
        1: lambda: left,
        2: lambda: above,
        3: lambda: corner,
        4: lambda: left + above - corner,
        5: lambda: left + ((above - corner) >> 1),
        6: lambda: above + ((left - corner) >> 1),
        7: lambda: (left + above) >> 1,
    }[header.predictor]()
    return out
