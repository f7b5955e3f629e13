"""Checkpoints: written atomically, read without unpickling arbitrary objects, and verified when read.

A checkpoint is one file of `torch.save`: a zip whose records each have a CRC-32. PyTorch writes these but does not verify them; this
module does.
"""

import re
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.runtime.read_errors import READ_ERRORS, describe_reason
from encoders.runtime.zip_damage import find_zip_damage

CHECKPOINT_NAME = re.compile(r"step-(\d{8})\.pt")


class DamagedCheckpoint(InputError):
    """A checkpoint that cannot be used, with the reason.

    path, step: of the file.  word: the beginning of its name when it is set aside."""

    path: Path
    step: int
    word = "damaged"


class ForeignCheckpoint(DamagedCheckpoint):
    """A checkpoint of another run, or of another step than its name says."""

    word = "foreign"


CheckState = Callable[[dict[str, Any], Path, int], None]
ADVICE_WITHOUT_CHECKPOINT = "restore one of them from a backup, or start again under another --name"
MOST_SKIPPED = 3  # that a message lists


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
        damage = find_zip_damage(path)
    except FileNotFoundError:
        raise DamagedCheckpoint(f"{path} does not exist") from None
    except READ_ERRORS as error:
        raise DamagedCheckpoint(f"{path} is damaged: {describe_reason(error)}") from error
    if damage:
        raise DamagedCheckpoint(f"{path} is damaged: {damage}")
    try:
        with warnings.catch_warnings(action="ignore"):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except READ_ERRORS as error:
        raise DamagedCheckpoint(f"{path} is not a checkpoint of isograft: {type(error).__name__}: {describe_reason(error)}") from error
    if not isinstance(state, dict):
        raise DamagedCheckpoint(f"{path} is not a checkpoint of isograft: it holds a {type(state).__name__}")
    return state


def load_newest(folder: Path, check: CheckState | None = None) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest usable checkpoint of a folder (None if it has no checkpoint), and why newer ones were skipped.

    check: as for `iter_usable`.  Raises InputError when there are checkpoints but none can be used."""
    skipped = list[DamagedCheckpoint]()
    newest = next(iter_usable(folder, skipped, check), None)
    return newest, list(map(str, skipped))


def iter_usable(folder: Path, skipped: list[DamagedCheckpoint], check: CheckState | None = None) -> Iterator[dict[str, Any]]:
    """The states of the usable checkpoints of a folder, newest first; none if it has no checkpoint.

    skipped: receives the error of each checkpoint that cannot be used.  check: raises DamagedCheckpoint for a state that cannot be used, by
    the state, its path and its step.  Raises InputError after the last one when checkpoints were skipped and none is left."""
    for step in reversed(list_steps(folder)):
        path = checkpoint_path(folder, step)
        try:
            state = load_checkpoint(path)
            if check is not None:
                check(state, path, step)
        except DamagedCheckpoint as error:
            error.path, error.step = path, step
            skipped.append(error)
            continue
        yield state
    if skipped:
        raise InputError(f"no checkpoint can be used: {describe_unusable(skipped)}; {ADVICE_WITHOUT_CHECKPOINT}")


def describe_unusable(skipped: Sequence[DamagedCheckpoint]) -> str:
    """The reasons of the first checkpoints that cannot be used, and the number of the others."""
    more = f"; and {len(skipped) - MOST_SKIPPED} more" if len(skipped) > MOST_SKIPPED else ""
    return "; ".join(map(str, skipped[:MOST_SKIPPED])) + more


def set_aside(path: Path, word: str = "damaged") -> Path:
    """Renames a checkpoint so that it is neither read, overwritten nor deleted, and returns its new path: `damaged-step-00000040.pt`.

    Raises InputError if it cannot be renamed."""
    number = 1
    while (kept := path.with_name(f"{word}{'' if number == 1 else number}-{path.name}")).exists():
        number += 1
    try:
        path.rename(kept)
    except OSError as error:
        raise InputError(
            f"{path} cannot be used and cannot be renamed ({error.strerror}); move it away before the run goes on, which would overwrite it"
        ) from error
    return kept


def prune_checkpoints(folder: Path, keep_last: int, keep_every: int, keep_newest_before: int = -1, keep: Collection[int] = ()) -> None:
    """Deletes checkpoints, except those kept by one of four rules.

    keep_last: number of newest ones.  keep_every: steps that are a multiple of it; 0: none.
    keep_newest_before: keeps the newest one up to and including this step.  keep: further steps."""
    steps = list_steps(folder)
    newest_before = max((s for s in steps if s <= keep_newest_before), default=None)
    for step in steps[:-keep_last]:
        if step != newest_before and step not in keep and not (keep_every and step % keep_every == 0):
            checkpoint_path(folder, step).unlink(missing_ok=True)
