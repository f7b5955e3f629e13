"""Datasets of an HDF5 file and their rows, where any object may be missing, damaged or of another kind than expected."""

import math
from pathlib import Path

import h5py
import numpy as np

from encoders.ingest.damage import refuse_damaged_file
from encoders.ingest.source import Unreadable
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.read_errors import READ_ERRORS, describe_reason

MAX_CHUNK_CACHE = 512 << 20  # bytes; a larger chunk is decompressed again for every image
MAX_ROW_BYTES = 1 << 30  # of one image; a damaged shape claims more
FILTER_PARAMETERS = {h5py.h5z.FILTER_DEFLATE: 1, h5py.h5z.FILTER_SHUFFLE: 1, h5py.h5z.FILTER_SZIP: 2, h5py.h5z.FILTER_LZF: 3}
MAX_DEFLATE_LEVEL = 9
SAME_SIZE = {h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}  # filters that do not compress
CHECKSUM_BYTES = 4  # of fletcher32, at the end of a chunk


def open_hdf5(path: Path, **cache: int) -> h5py.File:
    """The file, read-only. cache: settings of the chunk cache.  Raises InputError if it is missing or is not HDF5."""
    try:
        return h5py.File(path, "r", locking=False, **cache)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except READ_ERRORS as error:
        raise InputError(
            f"{path} is not a readable HDF5 file (truncated while it was copied, or compressed as a whole?): {describe_reason(error)}"
        ) from error


def find_dataset(file: h5py.File, key: str, path: Path) -> h5py.Dataset:
    """The dataset called `key`. Raises InputError with the datasets of the file if there is none, or if it is damaged."""
    known: list[str] = []

    def note(name: str | bytes, thing: object) -> None:
        if isinstance(thing, h5py.Dataset):  # a name that is no UTF-8 comes as bytes
            known.append(name.decode("utf-8", "backslashreplace") if isinstance(name, bytes) else name)

    with refuse_damaged_file(path, "HDF5 file"):
        if key in file:
            data = file[key]
            if isinstance(data, h5py.Dataset) and data.ndim:
                refuse_other_folders(data, path)
                check_filters(data)
                refuse_short_chunks(data, path)
                if math.prod(data.shape[1:]) * data.dtype.itemsize > MAX_ROW_BYTES:
                    raise InputError(f"{path}: {key!r} has the shape {data.shape} of {data.dtype}; one row of it exceeds 1 GB")
                return data
        file.visititems(note)
    raise unknown_name_error("dataset", key, known, f"({path})")


def refuse_short_chunks(data: h5py.Dataset, path: Path) -> None:
    """Raises InputError for a piece of a dataset without filters that is shorter than it must be: HDF5 fills it with what memory held."""
    if data.chunks is None or data.id.get_create_plist().get_nfilters():
        return
    whole, wrong = math.prod(data.chunks) * data.dtype.itemsize, []
    data.id.chunk_iter(lambda info: wrong.append(info.size) if info.size != whole else None)
    if wrong:
        raise InputError(
            f"{path}: {len(wrong)} pieces of {data.name!r} are damaged: the first has {wrong[0]} bytes, of {whole}; copy the file again"
        )


def refuse_other_folders(data: h5py.Dataset, path: Path) -> None:
    """Raises InputError for a dataset whose values lie in files outside the folder of `path`: a link may name any file of the machine."""
    folder, named = path.absolute().parent.resolve(), [data.file.filename]
    named += [name for name, *_ in data.external or ()]
    named += [source.file_name for source in data.virtual_sources()] if data.is_virtual else []
    for name in named:
        text = name.decode() if isinstance(name, bytes) else str(name)
        if text != "." and text != str(path) and not (path.absolute().parent / text).resolve().is_relative_to(folder):
            raise InputError(f"{path}: the values of {data.name!r} are in {text}, outside its folder; copy that file into the folder")


def check_filters(data: h5py.Dataset) -> None:
    """Raises ValueError for a filter without its parameters, with which HDF5 reads through a null pointer and ends the process."""
    plist = data.id.get_create_plist()
    for i in range(plist.get_nfilters()):
        number, _, values, name = plist.get_filter(i)
        if len(values) < FILTER_PARAMETERS.get(number, 0) or (number == h5py.h5z.FILTER_DEFLATE and values[0] > MAX_DEFLATE_LEVEL):
            raise ValueError(f"the filter {name.decode('ascii', 'replace') or number} of {data.name!r} has the parameters {values}")
        if number == h5py.h5z.FILTER_SHUFFLE and values[0] != data.dtype.itemsize:
            raise ValueError(f"{data.name!r} is shuffled in {values[0]} bytes, and its values have {data.dtype.itemsize}")


def list_filters(data: h5py.Dataset) -> list[int]:
    """The numbers of the filters of a dataset, in order."""
    plist = data.id.get_create_plist()
    return [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]


def check_chunks(data: h5py.Dataset, path: Path) -> None:
    """Raises InputError for a dataset most of whose rows are not in the file, which HDF5 reads as zeros; and for chunks at a wrong place.

    HDF5 does not check where a chunk is: an empty one under a checksum ends the process, and two at one place have the same pixels."""
    if data.is_virtual or data.external:
        return
    size, places, skipped = path.stat().st_size, list[tuple[int, int]](), [0]
    least = 1 + CHECKSUM_BYTES * data.fletcher32
    if data.chunks is not None:
        plain, codes = math.prod(data.chunks) * data.dtype.itemsize, list_filters(data)

        def note_chunk(chunk: h5py.h5d.StoreInfo) -> None:
            places.append((chunk.byte_offset, chunk.size))
            if chunk.filter_mask:  # of compression that did not help; such a chunk has its plain size
                used = [code for i, code in enumerate(codes) if not chunk.filter_mask >> i & 1]
                fits = {*used} <= SAME_SIZE and chunk.size == plain + CHECKSUM_BYTES * data.fletcher32
                skipped[0] += not fits or (data.fletcher32 and h5py.h5z.FILTER_FLETCHER32 not in used)

        data.id.chunk_iter(note_chunk)
        whole = math.prod(-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True))
    else:
        whole = 1
        places += [(data.id.get_offset() or 1, held)] if (held := data.id.get_storage_size()) else []
    where = np.array(places, dtype=np.uint64).reshape(-1, 2)
    start, held_bytes = where[:, 0], where[:, 1]
    wrong = (start == 0) | (held_bytes < least) | (held_bytes > size) | (start > size - np.minimum(held_bytes, size))
    if data.chunks is not None and (wrong.any() or skipped[0] or len(np.unique(start)) < len(start)):
        raise InputError(f"{path}: the chunks of {data.name.lstrip('/')!r} are not where its table of contents says; copy it again")
    if 2 * len(where) < whole:
        raise InputError(
            f"{path}: {data.name.lstrip('/')!r} has {len(data):,} rows by its shape, and {len(where):,} of its {whole:,} chunks: "
            "it was not written to its end, or is damaged; copy it again"
        )


def read_row(data: h5py.Dataset, i: int) -> Array:
    """Row `i` of a dataset. Raises Unreadable if it is damaged, for instance if a checksum or a compressed chunk is."""
    try:
        return np.asarray(data[i])
    except READ_ERRORS as error:
        raise Unreadable(f"its {data.name.lstrip('/')!r} cannot be read ({describe_reason(error)}); copy the file again") from error


def chunk_cache_bytes(data: h5py.Dataset) -> int:
    """Bytes of the chunks that one image spans, so that no chunk is decompressed twice in a row."""
    if data.chunks is None:
        return 1 << 20
    across = math.prod(-(-n // c) for n, c in zip(data.shape[1:], data.chunks[1:], strict=True))
    return int(min(MAX_CHUNK_CACHE, max(1 << 20, across * math.prod(data.chunks) * data.dtype.itemsize + 1)))


def to_text(value: object, name: str) -> str:
    """A value of the dataset `name` as text. Raises Unreadable for bytes that are not UTF-8."""
    first = np.asarray(value).reshape(-1)[0]
    try:
        return first.decode() if isinstance(first, bytes) else str(first)
    except UnicodeDecodeError as error:
        raise Unreadable(f"its {name!r} is {first[:20]!r}, which is not text in UTF-8") from error


def to_position(value: Array, factor: tuple[float, float], name: str) -> dict[str, int]:
    """The corner of a tile in level-0 pixels.  value: (2, or more).  Raises Unreadable if it is not finite."""
    x, y = (float(side) * scale for side, scale in zip(value[:2], factor, strict=True))
    if not math.isfinite(x) or not math.isfinite(y):
        raise Unreadable(f"its {name!r} are {value[:2].tolist()}, expected two numbers")
    return {"x": round(x), "y": round(y)}


def holds_values(data: h5py.Dataset) -> bool:
    """Whether a dataset has numbers or texts, as labels and patients are."""
    return data.dtype.kind in "biufSU" or h5py.check_string_dtype(data.dtype) is not None
