"""Checkpoints: written atomically, read without unpickling arbitrary objects, and verified when read.

A checkpoint is one file of `torch.save`: a zip whose records each have a CRC-32. PyTorch writes these but does not verify them; this
module does.
"""

import pickle
import re
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch

from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write

CHECKPOINT_NAME = re.compile(r"step-(\d{8})\.pt")


class DamagedCheckpoint(InputError):
    """A checkpoint that cannot be used, with the reason."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """The path of the checkpoint of `step`."""
    return folder / f"step-{step:08d}.pt"


def list_steps(folder: Path) -> list[int]:
    """The steps that have a checkpoint in `folder`, in order."""
    return sorted(int(m[1]) for p in folder.glob("step-*.pt") if (m := CHECKPOINT_NAME.fullmatch(p.name)))


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes `state` atomically. Raises TypeError, which names the entry, for a value that `torch.load(weights_only=True)` rejects."""
    plain = to_plain_state(state)
    with atomic_write(path) as part, part.open("wb") as file:
        torch.save(plain, file)  # a handle, because with a path it writes the name of the temporary file into every record


def to_plain_state(value: object, where: str = "state", copied: dict[object, torch.Tensor] | None = None) -> object:
    """`value` rebuilt from dict, list, tuple, None, bool, int, float, str and CPU tensors that own exactly their storage.

    What stands in it twice, such as the weights of the encoder in those of the method, is copied once, and `torch.save` writes it once.
    copied: tensors that are copied already, by what they show of which storage."""
    copied = {} if copied is None else copied
    if value is None or type(value) in (
        bool,
        int,
        float,
        str,
    ):  # the exact type: np.float64 is a subclass of float, and cannot be read back
        return value
    if isinstance(value, torch.Tensor):
        flat = value.detach()
        storage = flat.untyped_storage()
        if flat.device.type == "cpu" and storage.nbytes() == flat.nbytes:
            return flat
        key = storage._cdata, flat.storage_offset(), flat.shape, flat.stride(), flat.dtype
        if key not in copied:  # from the device; or a view, which would be saved with its whole storage
            copied[key] = flat.clone() if flat.device.type == "cpu" else flat.cpu()
        return copied[key]
    if isinstance(value, Mapping):
        return {to_plain_state(k, f"{where} key"): to_plain_state(v, f"{where}[{k!r}]", copied) for k, v in value.items()}
    if isinstance(value, list | tuple) and type(value) in (list, tuple):
        return type(value)(to_plain_state(v, f"{where}[{i}]", copied) for i, v in enumerate(value))
    raise TypeError(f"{where} is a {type(value).__module__}.{type(value).__name__}: a checkpoint holds only tensors and built-in types")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU. Raises DamagedCheckpoint when it is damaged or not a checkpoint of isograft."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged_record = archive.testzip()
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{path} does not exist") from None
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise DamagedCheckpoint(f"{path} is damaged: {error}") from error
    if damaged_record:
        raise DamagedCheckpoint(f"{path} is damaged: the checksum of its record {damaged_record!r} does not match")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError) as error:
        raise DamagedCheckpoint(f"{path} is not a checkpoint of isograft: {type(error).__name__}: {str(error).splitlines()[0]}") from error
    if not isinstance(state, dict):
        raise DamagedCheckpoint(f"{path} is not a checkpoint of isograft: it holds a {type(state).__name__}")
    return state


def load_newest(folder: Path, run_id: str | None = None) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest usable checkpoint of a folder (None if it has no checkpoint), and why newer ones were skipped.

    run_id: the run that it must belong to, by its entry `run`.  Raises InputError when there are checkpoints but none can be used."""
    steps, skipped = list_steps(folder), list[str]()
    for step in reversed(steps):
        try:
            return check_run_id(load_checkpoint(checkpoint_path(folder, step)), checkpoint_path(folder, step), run_id), skipped
        except DamagedCheckpoint as error:
            skipped.append(str(error))
    if skipped:
        raise InputError("no checkpoint can be used: " + "; ".join(skipped))
    return None, skipped


def check_run_id(state: dict[str, Any], path: Path, run_id: str | None) -> dict[str, Any]:
    """`state` itself. Raises DamagedCheckpoint when it belongs to another run than `run_id`; None allows any."""
    if run_id is not None and state.get("run") != run_id:
        raise DamagedCheckpoint(f"{path} is of another run ({state.get('run')}, this one is {run_id})")
    return state


def prune_checkpoints(folder: Path, keep_last: int, keep_every: int, keep_newest_before: int = -1, keep: Collection[int] = ()) -> None:
    """Deletes checkpoints, except those kept by one of four rules.

    keep_last: number of newest ones.  keep_every: steps that are a multiple of it; 0: none.
    keep_newest_before: keeps the newest one up to and including this step.  keep: further steps."""
    steps = list_steps(folder)
    newest_before = max((s for s in steps if s <= keep_newest_before), default=None)
    for step in steps[:-keep_last]:
        if step != newest_before and step not in keep and not (keep_every and step % keep_every == 0):
            checkpoint_path(folder, step).unlink(missing_ok=True)
