"""Checkpoints: whole or absent, readable without unpickling anything, and a damaged one is told from a good one.

A checkpoint is one file of `torch.save`: a zip whose every record carries a CRC-32, which PyTorch writes but does not verify; we do.
"""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write

CHECKPOINT_NAME = re.compile(r"step-(\d{8})\.pt")


class DamagedCheckpoint(InputError):
    """A checkpoint that cannot be trusted, with the reason."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` is."""
    return folder / f"step-{step:08d}.pt"


def list_steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint in `folder`, in order."""
    return sorted(int(m[1]) for p in folder.glob("step-*.pt") if (m := CHECKPOINT_NAME.fullmatch(p.name)))


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes `state` atomically. Raises TypeError, naming the place, for what `torch.load(weights_only=True)` would refuse to read."""
    ready = to_plain_state(state)
    with atomic_write(path) as part, part.open("wb") as file:
        torch.save(ready, file)  # to a handle: given a path, it would write the name of the temporary file into every record


def to_plain_state(value: Any, where: str = "state") -> Any:
    """`value` rebuilt of dict, list, tuple, None, bool, int, float, str and CPU tensors that own just their numbers."""
    if value is None or type(value) in (bool, int, float, str):  # exactly: np.float64 is a float by inheritance, and is refused on reading
        return value
    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu()
        return flat.clone() if flat.untyped_storage().nbytes() != flat.nbytes else flat  # a view would drag its whole storage along
    if isinstance(value, Mapping):
        return {to_plain_state(k, f"{where} key"): to_plain_state(v, f"{where}[{k!r}]") for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(to_plain_state(v, f"{where}[{i}]") for i, v in enumerate(value))
    raise TypeError(f"{where} is a {type(value).__module__}.{type(value).__name__}: a checkpoint holds only tensors and built-in types")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU. Raises Torn when the file is damaged or is none of ours."""
    try:
        with zipfile.ZipFile(path) as whole:
            broken = whole.testzip()
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{path} does not exist") from None
    except (zipfile.BadZipFile, OSError, EOFError) as wrong:
        raise DamagedCheckpoint(f"{path} is damaged: {wrong}") from wrong
    if broken:
        raise DamagedCheckpoint(f"{path} is damaged: the checksum of its record {broken!r} does not match")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError) as wrong:
        raise DamagedCheckpoint(f"{path} is not a checkpoint of ours: {type(wrong).__name__}: {str(wrong).splitlines()[0]}") from wrong
    if not isinstance(state, dict):
        raise DamagedCheckpoint(f"{path} is not a checkpoint of ours: it holds a {type(state).__name__}")
    return state


def load_newest(folder: Path, of: str | None = None) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest good checkpoint of a folder (None if it has none at all) and why newer ones were passed over.

    of: the id of the run that it must be of, in its `run`.  Raises InputError when there are checkpoints and every one is damaged."""
    steps, refused = list_steps(folder), list[str]()
    for step in reversed(steps):
        try:
            return check_run_id(load_checkpoint(checkpoint_path(folder, step)), checkpoint_path(folder, step), of), refused
        except DamagedCheckpoint as wrong:
            refused.append(str(wrong))
    if refused:
        raise InputError("no checkpoint can be used: " + "; ".join(refused))
    return None, refused


def check_run_id(state: dict[str, Any], path: Path, run: str | None) -> dict[str, Any]:
    """`state`, if it is of the run with that id (None: of any). Raises Torn for another's."""
    if run is not None and state.get("run") != run:
        raise DamagedCheckpoint(f"{path} is of another run ({state.get('run')}, this one is {run})")
    return state


def prune_checkpoints(folder: Path, last: int, every: int, older: int = -1) -> None:
    """Removes checkpoints but the `last` newest, every step that is a multiple of `every` (0: none), and the newest up to step `older`."""
    steps = list_steps(folder)
    spare = max((s for s in steps if s <= older), default=None)
    for step in steps[:-last]:
        if step != spare and not (every and step % every == 0):
            checkpoint_path(folder, step).unlink(missing_ok=True)
