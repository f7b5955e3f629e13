"""State dicts in and out of files, and into networks: every tensor of the backbone matched, or an error that lists what is not.

Nothing is unpickled: files are read by safetensors or by `torch.load(weights_only=True)`.
"""

import hashlib
import pickle
import sys
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write

StateDict = dict[str, Tensor]
STATE_DICT_KEYS = ("encoder", "state_dict", "model", "model_state_dict", "teacher", "net", "module")


class LoadReport(NamedTuple):
    """What became of a file's tensors."""

    matched: int
    dropped: list[str]  # of the file, not of the backbone: classifier and projection heads
    prefix: str  # cut off from every name
    adapted: bool  # renamed or resampled by timm's own filter, e.g. position embeddings for another size


def read_state_dict(path: str | Path) -> StateDict:
    """The tensors in a .safetensors, .pt or .pth file. Raises InputError when it is missing, torn, or holds anything but tensors."""
    return unwrap_state_dict(read_weight_file(path), Path(path))


def read_weight_file(path: str | Path) -> object:
    """What a weight file holds. Raises InputError as `read` does."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no weight file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        if zipfile.is_zipfile(path) and (damaged := zipfile.ZipFile(path).testzip()):  # torch writes checksums and does not check them
            raise InputError(f"{path} is damaged: the checksum of its record {damaged!r} does not match; copy it again")
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as wrong:
        raise InputError(
            f"{path} holds Python objects besides tensors, which could run code, so it is not read; save its state dict alone "
            f"(torch.save(model.state_dict(), ...) or safetensors) where it was made. torch says: {_first_line(wrong)}"
        ) from wrong
    except InputError:
        raise
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as wrong:
        raise InputError(f"{path} is torn or no weight file; copy it again ({_first_line(wrong)})") from wrong


def _first_line(wrong: Exception) -> str:
    return (str(wrong) or repr(wrong)).splitlines()[0][:200]


def unwrap_state_dict(found: object, path: Path) -> StateDict:
    """The state dict inside what a training script saved around it: `encoder`, `state_dict`, `model`, ..."""
    tensors = {k: v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    if tensors or not isinstance(found, Mapping):
        if not tensors:
            raise InputError(f"{path} holds a {type(found).__name__}, expected a state dict: names and tensors")
        return tensors
    inner = next((key for key in STATE_DICT_KEYS if isinstance(found.get(key), Mapping)), None)
    if inner is None:
        raise InputError(f"{path} holds {', '.join(map(str, list(found)[:8]))} and no state dict under any of {', '.join(STATE_DICT_KEYS)}")
    return unwrap_state_dict(found[inner], path)


def write_state_dict(path: str | Path, state: Mapping[str, Tensor]) -> str:
    """Writes a .safetensors file, atomically; returns its SHA-256."""
    whole = serialize_state_dict(state)
    with atomic_write(path) as part:
        part.write_bytes(whole)
    return hashlib.sha256(whole).hexdigest()


def serialize_state_dict(state: Mapping[str, Tensor]) -> bytes:
    """The bytes of a .safetensors file: equal tensors, equal bytes."""
    return save({k: v.detach().cpu().contiguous().clone() for k, v in state.items()}, metadata={"format": "pt"})


def state_dict_sha256(state: Mapping[str, Tensor]) -> str:
    """The SHA-256 that a .safetensors file of these tensors would have."""
    return hashlib.sha256(serialize_state_dict(state)).hexdigest()


def load_weights(model: nn.Module, state: Mapping[str, Tensor], origin: str, prefix: str | None = None) -> LoadReport:
    """Loads `state` into `model`; every tensor of the model must be in it, with its shape.

    prefix: of the names in `state` (found by itself when None).  Raises InputError listing what is missing, what has another shape,
    and what is left over of a larger network."""
    want = model.state_dict()
    prefix = find_common_prefix(want, state, origin) if prefix is None else prefix
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    adapted = not _covers_all(own, want)
    if adapted:
        own = apply_timm_filter(own, model)
    for key, value in want.items():  # counts batches, used by no network at evaluation; old files lack it
        if key.endswith("num_batches_tracked"):
            own.setdefault(key, torch.zeros_like(value))
    heads = _classifier_names(model)
    _check_all_matched(own, want, heads, origin)
    model.load_state_dict({k: own[k] for k in want}, strict=True)
    outside = [k for k in state if not k.startswith(prefix)]
    return LoadReport(len(want), sorted([k for k in own if k not in want] + outside), prefix, adapted)


def find_common_prefix(want: Collection[str], names: Collection[str], origin: str) -> str:
    """What stands before the network's own names in the file: "", "module.", "module.encoder_q.", ...; the one that matches most."""
    count: dict[str, int] = {}
    suffixes = {key for key in want if not key.endswith("num_batches_tracked")}
    for name in names:
        parts = name.split(".")
        for cut in range(min(4, len(parts))):
            if ".".join(parts[cut:]) in suffixes:
                before = "".join(p + "." for p in parts[:cut])
                count[before] = count.get(before, 0) + 1
    best = [p for p, n in count.items() if n == max(count.values())]
    if len(best) > 1 and "" not in best:
        raise InputError(f"{origin} holds several networks that fit, named {', '.join(sorted(best))}; choose one with --prefix")
    return "" if not best or "" in best else best[0]


def apply_timm_filter(state: StateDict, model: nn.Module) -> StateDict:
    """`state` through timm's own filter for this kind of network, which renames old keys and resamples position embeddings."""
    for kind in type(model).__mro__:
        own_filter = getattr(sys.modules[kind.__module__], "checkpoint_filter_fn", None)
        if own_filter is not None:
            return dict(own_filter(dict(state), model))
    return dict(state)


def _covers_all(own: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> bool:
    return all(k.endswith("num_batches_tracked") or (k in own and own[k].shape == v.shape) for k, v in want.items())


def _classifier_names(model: nn.Module) -> tuple[str, ...]:
    names = getattr(model, "default_cfg", {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _check_all_matched(own: Mapping[str, Tensor], want: Mapping[str, Tensor], heads: tuple[str, ...], origin: str) -> None:
    """Raises InputError unless `own` is the network `want` plus heads."""
    missing = [k for k in want if k not in own]
    unlike = [f"{k} is {tuple(own[k].shape)}, expected {tuple(v.shape)}" for k, v in want.items() if k in own and own[k].shape != v.shape]
    modules = {k.split(".")[0] for k in want}
    extra = [k for k in own if k not in want and k.split(".")[0] in modules and not k.startswith(heads or "\0")]
    faults = [
        f"{len(missing)} of {len(want)} tensors are not in the file, first {', '.join(missing[:3])}" if missing else "",
        f"{len(unlike)} have another shape, first: {unlike[0]}" if unlike else "",
        f"{len(extra)} belong to a larger network, first {', '.join(extra[:3])}" if extra else "",
    ]
    if any(faults):
        told = "; ".join(f for f in faults if f)
        raise InputError(f"{origin} does not fit the network: {told}. Check arch, model_args and channels of its card")
