"""The header of a .safetensors file, and what is wrong with it: its length, its names, and where it says that the tensors are.

The library refuses most of this with one word; here the sentence names the tensor. A name that stands twice in the header is not refused by
the library, which takes the last one.  Source: the format's description, github.com/huggingface/safetensors.
"""

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

MAX_HEADER_BYTES = 100_000_000  # of the format
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "U16": 16, "I16": 16,
    "F16": 16, "BF16": 16, "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
METADATA_KEY = "__metadata__"


class StoredTensor(NamedTuple):
    """A tensor of a header. start, stop: bytes after the header."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def read_safetensors_header(path: Path) -> list[StoredTensor]:
    """The tensors of a file in the order of their bytes. Raises ValueError, which says what is wrong, and OSError."""
    size = path.stat().st_size
    with path.open("rb") as file:
        first = file.read(8)
        if len(first) < 8:
            raise ValueError(f"it has {size} bytes, and the length of its header alone takes 8")
        length = int.from_bytes(first, "little")
        if length > min(size - 8, MAX_HEADER_BYTES):
            raise ValueError(f"its header claims {length:,} bytes, and the file has {size:,}")
        text = file.read(length)
    header = _parse_header(text)
    described = [_read_stored_tensor(name, entry) for name, entry in header.items() if name != METADATA_KEY]
    tensors = sorted(described, key=lambda tensor: (tensor.start, tensor.stop))
    _check_places(tensors, size - 8 - length)
    return tensors


def _parse_header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode(), object_pairs_hook=_unique_names)
    except _NamedTwiceError:
        raise
    except (ValueError, RecursionError) as error:
        raise ValueError(f"its header is not JSON ({' '.join(str(error).split())[:100]})") from error
    if not isinstance(header, dict):
        raise ValueError(f"its header is a {type(header).__name__}, expected a JSON object")
    return header


class _NamedTwiceError(ValueError):
    """A name stands twice in the header."""


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise _NamedTwiceError(f"its header names {name!r:.80} twice")
        found[name] = value
    return found


def _read_stored_tensor(name: str, entry: object) -> StoredTensor:
    """One tensor of the header. Raises ValueError for a description that is malformed or contradicts itself."""
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"its header describes {name!r:.80} without dtype, shape and data_offsets, or with more")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise ValueError(f"the dtype of {name!r:.80} is {dtype!r:.40}, which the format does not have")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(f"shape {shape!r:.60} or data_offsets {offsets!r:.60} of {name!r:.80} are no whole numbers")
    bits, (start, stop) = math.prod(shape) * BITS[dtype], offsets
    if bits % 8 or stop - start != bits // 8:
        raise ValueError(f"{name!r:.80} is {dtype} of shape {shape!r:.60}, which takes {bits / 8:,.0f} bytes, and has {stop - start:,}")
    return StoredTensor(name, dtype, tuple(shape), start, stop)


def _are_sizes(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < 2**62 for value in values)


def _check_places(tensors: list[StoredTensor], room: int) -> None:
    """Raises ValueError unless the tensors follow each other and fill the room, in bytes."""
    end, before = 0, "the header"
    for tensor in tensors:
        if tensor.stop > room:
            raise ValueError(f"{tensor.name!r:.80} ends at byte {tensor.stop:,} of {room:,}; the file is cut off or its header is wrong")
        if tensor.start < end:
            raise ValueError(f"{tensor.name!r:.80} overlaps {before!r:.80}: it starts at byte {tensor.start:,}, and that ends at {end:,}")
        if tensor.start > end:
            raise ValueError(f"{tensor.start - end:,} bytes before {tensor.name!r:.80} belong to no tensor")
        end, before = tensor.stop, tensor.name
    if end != room:
        raise ValueError(f"{room - end:,} bytes after the last tensor belong to none")
