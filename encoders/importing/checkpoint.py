"""Checkpoints of any project: read without running any of their code, and searched for state dicts."""

import lzma
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from encoders.importing.array_files import read_array_archive
from encoders.importing.inert_record import InertRecord, UnreadableCheckpoint
from encoders.importing.limits import MAX_PLACES, check_limit
from encoders.importing.pickled_modules import is_module, is_state_dict, is_stored_tensor, module_entries
from encoders.importing.rebuild_tensors import UNSUPPORTED_TENSORS
from encoders.importing.structure import check_structure
from encoders.importing.torch_files import check_archive, read_pickle_file, read_tar_file, read_torch_archive
from encoders.runtime.errors import InputError
from encoders.runtime.read_errors import READ_ERRORS, describe_reason
from encoders.runtime.safetensors_header import read_safetensors_header

# First bytes of files that are sent or stored in place of weights, and what to do about each.
_OTHER_FILES = {
    b"<": "is a web page or XML; download the file itself, after signing in where that is asked for",
    b"version https://git-lfs": "is a Git LFS pointer of a few lines; fetch the file itself with `git lfs pull`",
    b"\x89HDF": "is an HDF5 file, e.g. of Keras; save its arrays with numpy.savez and name its architecture",
    b"\x1f\x8b": "is compressed with gzip; unpack it first",
    b"BZh": "is compressed with bzip2; unpack it first",
    b"\xfd7zXZ": "is compressed with xz; unpack it first",
    b"\x93NUMPY": "is one array; save all arrays of the network by name with numpy.savez",
}


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file: nested dicts, lists and tuples of tensors, numbers, strings and InertRecords. Sets are lists."""

    path: Path
    tree: object

    def tensors(self, at: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """The state dict at a place, by the names of its tensors.

        at: keys, names of attributes and indices from the top. Of a pickled module: its parameters and buffers under the names of its
        `state_dict()`. Raises InputError if there is none, and for quantised and sparse tensors, which it names."""
        entries = self._entries(at)
        refused = {name: _layout(value) for name, value in entries.items() if not isinstance(value, Tensor) and is_stored_tensor(value)}
        if refused:
            name, layout = next(iter(refused.items()))
            raise InputError(
                f"{self.path}: {name} is a {layout} tensor{_count_others(refused)}, and encoders have dense tensors; save the network "
                "with dense float tensors (dequantised, or by `to_dense()`)"
            )
        return {name: value for name, value in entries.items() if isinstance(value, Tensor)}

    def other_entries(self, at: tuple[str, ...] = ()) -> dict[str, str]:
        """What stands in a state dict besides tensors: by name, its type or the name of its class."""
        kinds = {name: value.name if isinstance(value, InertRecord) else type(value).__name__ for name, value in self._entries(at).items()}
        return {name: kind for name, kind in kinds.items() if kind not in ("Tensor", *UNSUPPORTED_TENSORS)}

    def places(self) -> list[tuple[str, ...]]:
        """Every place that holds a state dict or a pickled module, in the order of the file; () is the top.

        Modules within a module, and dicts with other keys than text (the state of an optimizer), are not searched."""
        return list(_find_places(self.tree))

    def at(self, place: tuple[str, ...]) -> object:
        """What stands at a place. Raises InputError if there is nothing."""
        node = self.tree
        for depth, key in enumerate(place):
            inner = dict(_named_children(node))
            if key not in inner:
                here = "/".join(place[:depth]) or "the top"
                raise InputError(f"{self.path} has no {key!r} at {here}; it has {', '.join(map(repr, list(inner)[:12])) or 'nothing'}")
            node = inner[key]
        return node

    def _entries(self, place: tuple[str, ...]) -> dict[str, object]:
        node = self.at(place)
        if is_module(node):
            assert isinstance(node, InertRecord), "modules are records"
            return module_entries(node)
        if not is_state_dict(node):
            what = repr(node.name) if isinstance(node, InertRecord) else f"a {type(node).__name__}"
            where = ", ".join("/".join(p) or "the top" for p in self.places()[:8])
            raise InputError(
                f"{self.path} holds {what} at {'/'.join(place) or 'the top'}, expected a state dict: names and tensors; "
                + (f"it has state dicts at {where}" if where else "it has no state dict anywhere")
            )
        assert isinstance(node, dict), "state dicts are dicts"
        return node


def _layout(value: object) -> str:
    return UNSUPPORTED_TENSORS[value.name] if isinstance(value, InertRecord) else "dense"


def _count_others(refused: dict[str, str]) -> str:
    return f" (as are {len(refused) - 1} others)" if len(refused) > 1 else ""


def _find_places(tree: object) -> Iterator[tuple[str, ...]]:
    pending: list[tuple[tuple[str, ...], object, frozenset[int]]] = [((), tree, frozenset())]
    visited = 0
    while pending:
        place, node, around = pending.pop()
        visited += 1
        check_limit(visited, MAX_PLACES, f"the search for state dicts has visited {visited:,} containers")
        if is_module(node):
            yield place
            continue
        if is_state_dict(node):
            yield place
        children = [(name, child) for name, child in _named_children(node) if isinstance(child, dict | list | tuple | InertRecord)]
        inside = around | {id(node)}
        pending.extend(((*place, name), child, inside) for name, child in reversed(children) if id(child) not in inside)


def _named_children(node: object) -> list[tuple[str, object]]:
    if isinstance(node, InertRecord):
        return list(node.fields().items())
    if isinstance(node, dict):
        return [(key, value) for key, value in node.items() if isinstance(key, str)]
    return [(str(i), value) for i, value in enumerate(node)] if isinstance(node, list | tuple) else []


def read_checkpoint(path: Path) -> Checkpoint:
    """The content of a .safetensors, PyTorch (zip, legacy or tar), pickle or .npz file, recognised by its first bytes.

    Nothing in the file is run: objects of other classes become records of their name and what was stored with them. Raises InputError if it
    is missing, damaged, of another kind, or exceeds a limit of the reader (encoders/importing/limits.py)."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name the weight file in it")
    if not path.is_file():
        raise InputError(f"there is no weight file {path}")
    try:
        tree = _read_tree(path)
        check_structure(tree)
    except UnreadableCheckpoint as error:
        raise UnreadableCheckpoint(f"{path} cannot be read: {error}") from error
    except (SafetensorError, EOFError, OSError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, tarfile.TarError, struct.error) as error:
        raise UnreadableCheckpoint(f"{path} is truncated or not a weight file ({describe_reason(error)}); copy it again") from error
    except READ_ERRORS as error:
        raise UnreadableCheckpoint(f"{path} is malformed ({type(error).__name__}: {describe_reason(error)}); copy it again") from error
    return Checkpoint(path, tree)


def _read_tree(path: Path) -> object:
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise UnreadableCheckpoint("it is empty; copy it again")
    for start, advice in _OTHER_FILES.items():
        if head.lstrip(b"\xef\xbb\xbf \r\n\t" if start == b"<" else b"").startswith(start):
            raise UnreadableCheckpoint(f"it {advice}")
    if path.suffix == ".safetensors" or head[8:10] == b'{"':
        read_safetensors_header(path)  # says what is wrong with it, where the library does not
        return load_file(path)
    if head.startswith(b"PK"):
        with zipfile.ZipFile(path) as archive:
            check_archive(archive, path.stat().st_size)
            if archive.namelist() and all(name.endswith(".npy") for name in archive.namelist()):
                return read_array_archive(archive)
            return read_torch_archive(archive, path.stat().st_size)
    if head[257:262] == b"ustar" or _is_old_tar(path, head):
        return read_tar_file(path)
    return read_pickle_file(path)


def _is_old_tar(path: Path, head: bytes) -> bool:
    """Whether a file without the mark of newer tar archives is one: not for pickles, whose first bytes are instructions."""
    return not head.startswith(b"\x80") and tarfile.is_tarfile(path)
