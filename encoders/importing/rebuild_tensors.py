"""The calls in a pickle that make tensors, as functions that check every argument.

A tensor is a view of a storage: offset, size and stride, in elements. A view that leaves its storage would read memory of the process.
"""

import math
from dataclasses import dataclass, field
from typing import TypeGuard

import torch
from torch import Tensor

from encoders.importing.inert_pickle import Rebuilder
from encoders.importing.inert_record import InertRecord, UnreadableCheckpoint
from encoders.importing.limits import MAX_DIMENSIONS, MAX_VIEW_RATIO, SMALL_BYTES, check_limit

STORAGE_DTYPES = {
    "Float": torch.float32,
    "Double": torch.float64,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
    "Untyped": torch.uint8,
    "QInt8": torch.int8,
    "QUInt8": torch.uint8,
    "QInt32": torch.int32,
    "QUInt4x2": torch.uint8,
    "QUInt2x4": torch.uint8,
}
# Calls that make tensors of another layout than the dense one: they stay records, and a state dict that holds one is refused.
UNSUPPORTED_TENSORS = {
    "torch._utils._rebuild_qtensor": "quantised",
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch._utils._rebuild_sparse_csr_tensor": "sparse",
    "torch._utils._rebuild_nested_tensor": "nested",
    "torch._utils._rebuild_meta_tensor_no_storage": "meta (it has a shape and no values)",
    "torch._utils._rebuild_wrapper_subclass": "wrapped",
}
_TYPED_CALLS = ("torch._tensor._rebuild_from_type_v2", "torch._tensor._rebuild_from_type")
_PARAMETER_CALLS = (
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_parameter_with_state",
    "torch.nn.parameter.Parameter",
    "torch._utils._rebuild_device_tensor_from_numpy",
    "torch._utils._rebuild_xla_tensor",
)


@dataclass(eq=False, repr=False)
class StoredNumbers(InertRecord):
    """A storage of a checkpoint: its bytes, to which tensors refer."""

    untyped: torch.UntypedStorage = field(default_factory=lambda: torch.UntypedStorage(0))
    dtype: torch.dtype = torch.uint8


def storage_dtype(kind: object) -> torch.dtype:
    """The dtype of a storage class, e.g. of the record `torch.FloatStorage`. Raises UnreadableCheckpoint for another name."""
    name = kind.name if isinstance(kind, InertRecord) else repr(kind)
    module, _, last = name.rpartition(".")
    if (
        module not in ("torch", "torch.cuda", "torch.storage")
        or last.removesuffix("Storage") not in STORAGE_DTYPES
        or last[-7:] != "Storage"
    ):
        raise UnreadableCheckpoint(f"a storage has the type {name[:80]}, which PyTorch does not have")
    return STORAGE_DTYPES[last.removesuffix("Storage")]


class TensorRebuilder:
    """The table of calls that make tensors. Counts bytes, so that many views of one storage cannot ask for any amount of memory."""

    def __init__(self) -> None:
        self.storage_bytes = 0  # of all storages of the file
        self.tensor_bytes = 0  # of all tensors, as if each had its own memory

    def new_storage(self, kind: object, count: object, room: int) -> StoredNumbers:
        """A storage of `count` elements without values.  room: bytes that the file can hold for it and for all before."""
        dtype = storage_dtype(kind)
        if not _is_count(count):
            raise UnreadableCheckpoint(f"a storage claims {count!r} elements")
        nbytes = count * dtype.itemsize
        if self.storage_bytes + nbytes > room:
            raise UnreadableCheckpoint(f"its storages claim {self.storage_bytes + nbytes:,} bytes, and the file has only {room:,}")
        self.storage_bytes += nbytes
        return StoredNumbers("torch storage", untyped=torch.UntypedStorage(nbytes), dtype=dtype)

    def calls(self) -> dict[str, Rebuilder]:
        """By name, the calls that a pickle may make."""
        return {
            "torch._utils._rebuild_tensor": lambda args: self.view(*_view_args(args)),
            "torch._utils._rebuild_tensor_v2": lambda args: _apply_flags(self.view(*_view_args(args)), args[6:7]),
            "torch._utils._rebuild_tensor_v3": lambda args: _apply_flags(self.view(*_view_args(args), kind=args[6]), args[7:8]),
            **dict.fromkeys(_PARAMETER_CALLS, _inner_tensor),
            **dict.fromkeys(_TYPED_CALLS, self.typed),
        }

    def view(self, storage: object, offset: object, size: object, stride: object, kind: object = None) -> Tensor:
        """The tensor of these elements. Raises UnreadableCheckpoint if it leaves its storage, or exceeds a limit."""
        if not isinstance(storage, StoredNumbers):
            raise UnreadableCheckpoint(f"a tensor refers to a {type(storage).__name__} and not to a storage")
        dtype = storage.dtype if kind is None else _named_dtype(kind)
        if not (_is_count(offset) and _are_counts(size) and _are_counts(stride) and len(size) == len(stride)):
            raise UnreadableCheckpoint(f"a tensor has offset {_short(offset)}, size {_short(size)} and stride {_short(stride)}")
        check_limit(len(size), MAX_DIMENSIONS, f"a tensor has {len(size):,} dimensions")
        count, have = math.prod(size), storage.untyped.nbytes()
        end = offset + (sum((n - 1) * step for n, step in zip(size, stride, strict=True)) + 1 if count else 0)
        if end * dtype.itemsize > have or any(n > 2**48 for n in (*size, *stride)):
            where = f"size {_short(size)}, stride {_short(stride)} and offset {offset}"
            raise UnreadableCheckpoint(f"a tensor of {where} ends at byte {end * dtype.itemsize:,}, and its storage has {have:,} bytes")
        self.tensor_bytes += count * dtype.itemsize
        limit = max(SMALL_BYTES, MAX_VIEW_RATIO * self.storage_bytes)
        check_limit(self.tensor_bytes, limit, f"its tensors have {self.tensor_bytes:,} bytes in {self.storage_bytes:,} bytes of storage")
        return torch.empty((0,), dtype=dtype).set_(storage.untyped, offset, tuple(size), tuple(stride))

    def typed(self, args: tuple[object, ...]) -> object:
        """The plain tensor of a subclass, or of a tensor with attributes: (function, class, arguments, attributes)."""
        function, inner = args[0], args[2]
        if not isinstance(function, InertRecord) or not isinstance(inner, tuple):
            raise UnreadableCheckpoint("a tensor with a class of its own has no function that makes it")
        made = None if function.name in _TYPED_CALLS else self.calls().get(function.name)
        return InertRecord(function.name, inner) if made is None else made(inner)


def _inner_tensor(args: tuple[object, ...]) -> object:
    """The tensor of a Parameter; a record for what is none, e.g. a quantised parameter."""
    if not args or not isinstance(args[0], Tensor | InertRecord):
        raise UnreadableCheckpoint("a parameter holds no tensor")
    return args[0]


def _apply_flags(x: Tensor, metadata: tuple[object, ...]) -> Tensor:
    """x, conjugated or negated if the file says that its storage holds the conjugate or the negative."""
    flags = metadata[0] if metadata and isinstance(metadata[0], dict) else {}
    x = x.conj() if flags.get("conj") is True else x
    return torch._neg_view(x) if flags.get("neg") is True else x


def _named_dtype(kind: object) -> torch.dtype:
    name = kind.name if isinstance(kind, InertRecord) else ""
    dtype = getattr(torch, name.removeprefix("torch."), None) if name.startswith("torch.") and name.count(".") == 1 else None
    if not isinstance(dtype, torch.dtype):
        raise UnreadableCheckpoint(f"a tensor has the dtype {name[:80]!r}, which this PyTorch does not have")
    return dtype


def _view_args(args: tuple[object, ...]) -> tuple[object, object, object, object]:
    if len(args) < 4:
        raise UnreadableCheckpoint(f"a tensor has {len(args)} arguments, expected at least 4")
    return args[0], args[1], args[2], args[3]


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 2**62


def _are_counts(values: object) -> TypeGuard[tuple[int, ...]]:
    return isinstance(values, tuple | list) and all(map(_is_count, values))


def _short(value: object) -> str:
    return repr(value)[:60] if isinstance(value, int | tuple | list) and not _is_deep(value) else f"of type {type(value).__name__}"


def _is_deep(value: object) -> bool:
    return isinstance(value, tuple | list) and any(isinstance(v, tuple | list | dict) for v in value)
