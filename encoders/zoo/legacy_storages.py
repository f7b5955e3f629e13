"""The storages of a file that `torch.save` wrote before PyTorch 1.6: a list of keys, then the values of each.

PyTorch reads the storages of the list, and returns memory that nobody wrote for those that tensors need and the list lacks.
"""

import pickle
import pickletools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import torch

HEAD_PICKLES = 4  # magic number, version, machine, content


class _PlainUnpickler(pickle.Unpickler):
    """Reads texts and numbers; no class, and nothing that is stored elsewhere."""

    def find_class(self, module_name: str, global_name: str, /) -> NoReturn:
        raise pickle.UnpicklingError(f"{module_name}.{global_name} in the list of storages")


def find_missing_storages(path: Path, content: object) -> str:
    """What is wrong with the list of storages of a file in the old format, as the end of a sentence; "" if nothing is.

    content: what PyTorch read from the file.  Raises one of READ_ERRORS for another file."""
    with path.open("rb") as file:
        for _ in range(HEAD_PICKLES):
            for _ in pickletools.genops(file):
                pass
        keys = _PlainUnpickler(file).load()
    needed = {tensor.untyped_storage().data_ptr() for tensor in iter_loaded_tensors(content) if tensor.untyped_storage().nbytes()}
    listed = len(set(map(str, keys))) if isinstance(keys, list) else 0
    return "" if listed >= len(needed) else f"its tensors need {len(needed)} storages, and it has {listed}"


def iter_loaded_tensors(content: object) -> Iterator[torch.Tensor]:
    """The tensors in mappings and lists inside each other."""
    if isinstance(content, torch.Tensor):
        yield content
    elif isinstance(content, Mapping | list | tuple):
        for inner in content.values() if isinstance(content, Mapping) else content:
            yield from iter_loaded_tensors(inner)
