"""Checkpoints of any project: read without running any of their code, and searched for state dicts."""

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from encoders.runtime.errors import InputError
from encoders.zoo.weights import read_weight_file


@dataclass(frozen=True)
class Checkpoint:
    """The content of a file: nested dicts and lists of tensors, numbers, strings and InertRecords."""

    path: Path
    tree: object

    def tensors(self, at: tuple[str, ...] = ()) -> dict[str, Tensor]:
        """The state dict at a place, by the names of its tensors.

        at: keys and names of attributes from the top. Of a pickled module: its parameters and buffers, `layer1.0.conv1.weight`.
        Raises InputError if there is none, and for quantised and sparse tensors, which it names."""
        node = self.tree
        for key in at:
            if not isinstance(node, dict) or key not in node:
                raise InputError(f"{self.path} holds nothing at {'/'.join(at)}")
            node = node[key]
        return {k: v for k, v in node.items() if isinstance(v, Tensor)} if isinstance(node, dict) else {}

    def places(self) -> list[tuple[str, ...]]:
        """Every place that holds a state dict or a module, in the order of the file."""
        found = []

        def visit(node: object, at: tuple[str, ...]) -> None:
            if isinstance(node, dict):
                if any(isinstance(v, Tensor) for v in node.values()) and all(isinstance(k, str) for k in node):
                    found.append(at)
                for key, value in node.items():
                    if isinstance(key, str):
                        visit(value, (*at, key))

        visit(self.tree, ())
        return found


def read_checkpoint(path: Path) -> Checkpoint:
    """The content of a .safetensors, PyTorch (zip, legacy or tar), pickle or .npz file, recognised by its first bytes.

    Raises InputError if it is missing, damaged, of another kind, or exceeds a limit of the reader."""
    return Checkpoint(path, read_weight_file(path))
