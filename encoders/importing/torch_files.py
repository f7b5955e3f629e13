"""Files of `torch.save`: the zip archive since PyTorch 1.6, the stream before it, and the tar archive of PyTorch 0.1."""

import io
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import IO, BinaryIO, cast

import numpy as np
import torch

from encoders.importing.inert_pickle import read_pickle
from encoders.importing.inert_record import UnreadableCheckpoint
from encoders.importing.limits import MAX_ZIP_RATIO, SMALL_BYTES, check_limit
from encoders.importing.rebuild_tensors import StoredNumbers, TensorRebuilder, storage_dtype
from encoders.importing.rebuild_values import value_calls

LEGACY_MAGIC, LEGACY_VERSION = 0x1950A86A20F9469CFC6C, 1001
CHUNK_BYTES = 2**24


def check_archive(archive: zipfile.ZipFile, file_bytes: int) -> None:
    """Raises UnreadableCheckpoint for an archive whose entries unpack to far more bytes than it has."""
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > SMALL_BYTES:
        what = f"its entries unpack to {unpacked:,} bytes, {unpacked / file_bytes:,.0f} times the size of the file"
        check_limit(unpacked / file_bytes, MAX_ZIP_RATIO, what)
    for entry in archive.infolist():
        claimed = max(entry.compress_size, entry.file_size if entry.compress_type == zipfile.ZIP_STORED else 0)
        if claimed > file_bytes:  # zipfile allocates what an entry claims
            raise UnreadableCheckpoint(f"its entry {entry.filename!r} claims {claimed:,} bytes, and the file has {file_bytes:,}")


def read_torch_archive(archive: zipfile.ZipFile, file_bytes: int) -> object:
    """The content of an archive of `torch.save`. Raises UnreadableCheckpoint if it is malformed, or a program of TorchScript."""
    check_archive(archive, file_bytes)
    names = set(archive.namelist())
    roots = [name.removesuffix("data.pkl") for name in names if name.rpartition("/")[2] == "data.pkl" and name.count("/") <= 1]
    if len(roots) != 1:
        raise UnreadableCheckpoint("it is a zip archive without the file data.pkl, so torch.save did not write it")
    root = roots[0]
    if f"{root}constants.pkl" in names:
        raise UnreadableCheckpoint("it is a TorchScript program and not a checkpoint; save the state_dict() of the model it was made from")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder")[:10].strip() != b"little":
        raise UnreadableCheckpoint("it was written on a big-endian machine; save it on a little-endian one")
    tensors = TensorRebuilder()
    room = max(sum(entry.file_size for entry in archive.infolist()), file_bytes)
    stored: dict[str, StoredNumbers] = {}

    def find_stored(saved_id: object) -> object:
        kind, key, count = _storage_id(saved_id)
        if key not in stored:
            name = f"{root}data/{key}"
            if name not in names:
                raise UnreadableCheckpoint(f"its storage {key!r} is missing")
            storage = tensors.new_storage(kind, count, room)
            with archive.open(name) as entry:
                _fill_storage(storage, entry, f"storage {key!r}")
            stored[key] = storage
        return _view_as(stored[key], kind)

    content = archive.read(f"{root}data.pkl")
    return read_pickle(io.BytesIO(content), {**value_calls(), **tensors.calls()}, find_stored)


def read_pickle_file(path: Path) -> object:
    """The content of a file of pickles: of `torch.save` before PyTorch 1.6, or an ordinary pickle."""
    with path.open("rb") as file:
        first = read_pickle(file, value_calls(), _refuse_stored)
        return _read_legacy_stream(file, path.stat().st_size) if type(first) is int and first == LEGACY_MAGIC else first


def _read_legacy_stream(file: BinaryIO, file_bytes: int) -> object:
    """What follows the magic number: version, machine, the content, the keys of its storages, and their values."""
    if (version := read_pickle(file, {}, _refuse_stored)) != LEGACY_VERSION:
        raise UnreadableCheckpoint(f"its version is {str(version)[:40]!r}, expected {LEGACY_VERSION}")
    _check_machine(read_pickle(file, {}, _refuse_stored))
    tensors = TensorRebuilder()
    stored: dict[str, StoredNumbers] = {}

    def find_stored(saved_id: object) -> object:
        if isinstance(saved_id, tuple) and saved_id[:1] == ("module",) and len(saved_id) > 1:
            return saved_id[1]  # a class, followed by its source text
        kind, key, count = _storage_id(saved_id)
        if key not in stored:
            stored[key] = tensors.new_storage(kind, count, file_bytes)
        view = saved_id[5] if isinstance(saved_id, tuple) and len(saved_id) > 5 else None
        return _view_as(stored[key] if view is None else _part_of(stored[key], view), kind)

    content = read_pickle(file, {**value_calls(), **tensors.calls()}, find_stored)
    keys = read_pickle(file, {}, _refuse_stored)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or set(keys) != set(stored) or len(keys) != len(stored):
        raise UnreadableCheckpoint("the list of its storages is not that of its content")
    for key in keys:
        _fill_counted(stored[key], file, f"storage {key!r}")
    return content


def read_tar_file(path: Path) -> object:
    """The content of a tar archive of PyTorch 0.1: storages, then tensors, then a pickle that refers to both."""
    tensors = TensorRebuilder()
    room = path.stat().st_size
    with tarfile.open(path, "r:") as tar:
        members = {name: _tar_member(tar, name) for name in ("sys_info", "storages", "tensors", "pickle")}
        _check_machine(read_pickle(members["sys_info"], {}, _refuse_stored))
        stored = _tar_storages(members["storages"], tensors, room)
        made: dict[int, object] = dict(stored)
        file = members["tensors"]
        for _ in range(_count(read_pickle(file, {}, _refuse_stored))):
            key, storage, _ = _triple(read_pickle(file, {}, _refuse_stored))
            dims = struct.unpack("<i4x", file.read(8))[0]
            check_limit(dims, 64, f"a tensor has {dims} dimensions")
            numbers = struct.unpack(f"<{2 * dims + 1}q", file.read(8 * (2 * dims + 1)))
            made[_count(key)] = tensors.view(made.get(_count(storage)), numbers[-1], numbers[:dims], numbers[dims:-1])

        def find_stored(saved_id: object) -> object:
            return saved_id[0] if isinstance(saved_id, tuple) and saved_id else made[int(str(saved_id))]

        return read_pickle(members["pickle"], {**value_calls(), **tensors.calls()}, find_stored)


def _tar_storages(file: BinaryIO, tensors: TensorRebuilder, room: int) -> dict[int, StoredNumbers]:
    stored: dict[int, StoredNumbers] = {}
    for _ in range(_count(read_pickle(file, {}, _refuse_stored))):
        key, _, kind = _triple(read_pickle(file, {}, _refuse_stored))
        count = struct.unpack("<q", file.read(8))[0]
        stored[_count(key)] = tensors.new_storage(kind, count, room)
        _fill_storage(stored[_count(key)], file, f"storage {key}")
    views = read_pickle(file, {}, _refuse_stored)
    for view in views if isinstance(views, list) else ():
        key, whole, offset, count = view
        stored[key] = _part_of(stored[whole], (key, offset, count))
    return stored


def _tar_member(tar: tarfile.TarFile, name: str) -> BinaryIO:
    try:
        member = tar.extractfile(name)
    except KeyError:
        member = None
    if member is None:
        raise UnreadableCheckpoint(f"it is a tar archive without the file {name}: unpack it, and import the weight file in it")
    return cast(BinaryIO, member)


def _storage_id(saved_id: object) -> tuple[object, str, object]:
    """Storage class, key and number of elements in a persistent id."""
    if not isinstance(saved_id, tuple) or len(saved_id) < 5 or saved_id[0] not in ("storage", b"storage"):
        raise UnreadableCheckpoint("it refers to something that is not a storage")
    _, kind, key, _, count = saved_id[:5]
    return kind, str(key), count


def _view_as(storage: StoredNumbers, kind: object) -> StoredNumbers:
    """The storage with the dtype of this reference: two references may differ in it."""
    dtype = storage_dtype(kind)
    return storage if dtype == storage.dtype else StoredNumbers(storage.name, untyped=storage.untyped, dtype=dtype)


def _part_of(storage: StoredNumbers, view: object) -> StoredNumbers:
    """A range of elements of a storage, which shares its memory. view: key, first element, number of elements."""
    _, offset, count = _triple(view)
    start, stop = (_count(n) * storage.dtype.itemsize for n in (offset, _count(offset) + _count(count)))
    if stop > storage.untyped.nbytes():
        raise UnreadableCheckpoint(f"a part of a storage ends at byte {stop:,} of {storage.untyped.nbytes():,}")
    part = storage.untyped[start:stop]
    assert isinstance(part, torch.UntypedStorage), "a slice of a storage is a storage"
    return StoredNumbers(storage.name, untyped=part, dtype=storage.dtype)


def _fill_counted(storage: StoredNumbers, file: BinaryIO, what: str) -> None:
    """Fills a storage from its number of elements and their values."""
    own = storage.untyped.nbytes() // storage.dtype.itemsize
    count = struct.unpack("<q", file.read(8))[0]
    if count != own:
        raise UnreadableCheckpoint(f"its {what} has {count:,} elements, and its content expects {own:,}")
    _fill_storage(storage, file, what)


def _fill_storage(storage: StoredNumbers, file: BinaryIO | IO[bytes], what: str) -> None:
    """Fills a storage with the next bytes of a file. Raises UnreadableCheckpoint if it ends before."""
    target = np.asarray(torch.empty((0,), dtype=torch.uint8).set_(storage.untyped))
    at = 0
    while at < len(target):
        chunk = file.read(min(CHUNK_BYTES, len(target) - at))
        if not chunk:
            raise UnreadableCheckpoint(f"its {what} has {at:,} bytes, and its content expects {len(target):,}")
        target[at : at + len(chunk)] = np.frombuffer(chunk, np.uint8)
        at += len(chunk)
    if isinstance(file, zipfile.ZipExtFile):
        file.read(1)  # beyond the end: zipfile compares the checksum only when it has read all of an entry


def _check_machine(info: object) -> None:
    if not isinstance(info, dict) or info.get("little_endian") is not True:
        raise UnreadableCheckpoint("it was written on a big-endian machine, or its header is malformed")


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**62:
        raise UnreadableCheckpoint(f"a number of elements is a {type(value).__name__} below 0 or none")
    return value


def _triple(value: object) -> tuple[object, object, object]:
    if not isinstance(value, tuple | list) or len(value) != 3:
        raise UnreadableCheckpoint("the description of a storage or tensor is malformed")
    return value[0], value[1], value[2]


def _refuse_stored(saved_id: object) -> object:
    raise UnreadableCheckpoint("it is a pickle that refers to data outside of itself")
