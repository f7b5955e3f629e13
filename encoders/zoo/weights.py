"""Reading and writing state dicts, and loading them into networks: every tensor matches, or an error lists those that do not.

Nothing is unpickled: files are read by safetensors or by `torch.load(weights_only=True)`.
"""

import hashlib
import pickle
import sys
import tarfile
import warnings
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
from encoders.runtime.read_errors import READ_ERRORS, describe_reason
from encoders.runtime.safetensors_header import read_safetensors_header
from encoders.runtime.zip_damage import find_zip_damage
from encoders.zoo.card import PositionRule
from encoders.zoo.legacy_storages import find_missing_storages
from encoders.zoo.position_grid import positions_of, resample_positions
from encoders.zoo.timm_protocols import HasDefaultCfg

StateDict = dict[str, Tensor]
STATE_DICT_KEYS = ("encoder", "state_dict", "model", "model_state_dict", "teacher", "net", "module")


class LoadReport(NamedTuple):
    """Which tensors of a file were loaded."""

    matched: int
    dropped: list[str]  # in the file, not in the backbone: classifier and projection heads
    prefix: str  # removed from every name
    adapted: bool  # renamed or resampled by timm's own filter, e.g. position embeddings for another size


def read_state_dict(path: str | Path) -> StateDict:
    """The tensors in a .safetensors, .pt or .pth file. Raises InputError if it is missing, damaged, or holds no tensors."""
    return unwrap_state_dict(read_weight_file(path), Path(path))


def read_weight_file(path: str | Path) -> object:
    """The content of a weight file. Raises InputError if it is missing, damaged, or holds Python objects."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no weight file {path}")
    try:
        if path.suffix == ".safetensors":
            read_safetensors_header(path)  # says what is wrong with it, where the library does not
            return load_file(path)
        is_zip = zipfile.is_zipfile(path)
        if is_zip and (damage := find_zip_damage(path)):
            raise InputError(f"{path} is damaged: {damage}; copy it again")
        with warnings.catch_warnings(action="ignore"):  # about the protocol of pickle
            content = torch.load(path, map_location="cpu", weights_only=True)
        if not is_zip and not tarfile.is_tarfile(path) and (damage := find_missing_storages(path, content)):
            raise InputError(f"{path} is damaged: {damage}; copy it again")
        return content
    except pickle.UnpicklingError as error:  # torch's own message advises to load the file without this protection
        raise InputError(
            f"{path} holds Python objects besides tensors, which could run code, so it is not read; save only the state dict "
            "(torch.save(model.state_dict(), ...) or safetensors) where the file was written"
        ) from error
    except InputError:
        raise
    except (SafetensorError, *READ_ERRORS) as error:
        first = describe_reason(error)
        reason = f" ({first})" if "weights_only" not in first and "trust" not in first else ""
        raise InputError(f"{path} is truncated or not a weight file; copy it again{reason}") from error


def unwrap_state_dict(content: object, path: Path) -> StateDict:
    """The state dict in the content of a weight file, which may hold it under `encoder`, `state_dict`, `model`, ...

    Raises InputError if there is none."""
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if tensors or not isinstance(content, Mapping):
        if not tensors:
            raise InputError(f"{path} holds a {type(content).__name__}, expected a state dict: names and tensors")
        return tensors
    inner = next((key for key in STATE_DICT_KEYS if isinstance(content.get(key), Mapping)), None)
    if inner is None:
        keys = ", ".join(map(str, list(content)[:8]))
        raise InputError(f"{path} holds {keys} and no state dict under any of {', '.join(STATE_DICT_KEYS)}")
    return unwrap_state_dict(content[inner], path)


def write_state_dict(path: str | Path, state: Mapping[str, Tensor]) -> str:
    """Writes a .safetensors file, atomically; returns its SHA-256."""
    content = serialize_state_dict(state)
    with atomic_write(path) as part:
        part.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def serialize_state_dict(state: Mapping[str, Tensor]) -> bytes:
    """The bytes of a .safetensors file: equal tensors give equal bytes."""
    return save({k: v.detach().cpu().contiguous().clone() for k, v in state.items()}, metadata={"format": "pt"})


def state_dict_sha256(state: Mapping[str, Tensor]) -> str:
    """The SHA-256 of a .safetensors file of these tensors."""
    return hashlib.sha256(serialize_state_dict(state)).hexdigest()


def load_weights(
    model: nn.Module, state: Mapping[str, Tensor], origin: str, prefix: str | None = None, positions: PositionRule | None = None
) -> LoadReport:
    """Loads `state` into `model`; every tensor of the model must be in `state`, with its shape.

    prefix: of the names in `state`; None: detected.  origin: the file, for error messages.  positions: how position embeddings of another
    size are resampled; None: as timm does.  Raises InputError that lists missing tensors, tensors of another shape, and tensors that belong
    to a larger network."""
    want = model.state_dict()
    prefix = find_common_prefix(want, state, origin) if prefix is None else prefix
    own = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    adapted = not _covers_all(own, want)
    if adapted and positions is not None and positions != "timm":
        _resample_own_positions(own, model, positions)
    if adapted:
        own = apply_timm_filter(own, model)
    for key, value in want.items():  # a counter that no network uses in evaluation mode; old files lack it
        if key.endswith("num_batches_tracked"):
            own.setdefault(key, torch.zeros_like(value))
    heads = _classifier_names(model)
    _check_all_matched(own, want, heads, origin)
    model.load_state_dict({k: own[k] for k in want}, strict=True)
    outside = [k for k in state if not k.startswith(prefix)]
    return LoadReport(len(want), sorted([k for k in own if k not in want] + outside), prefix, adapted)


def _resample_own_positions(own: StateDict, model: nn.Module, rule: PositionRule) -> None:
    found, stored = positions_of(model), own.get("pos_embed")
    if found is not None and stored is not None and stored.shape != found[0].shape:
        own["pos_embed"] = resample_positions(stored, found[1], found[2], rule)


def find_common_prefix(want: Collection[str], names: Collection[str], origin: str) -> str:
    """The prefix in `names` with which most names in `want` match: "", "module.", "module.encoder_q.", ...

    Raises InputError if several prefixes match equally well."""
    count: dict[str, int] = {}
    suffixes = {key for key in want if not key.endswith("num_batches_tracked")}
    for name in names:
        parts = name.split(".")
        for cut in range(min(4, len(parts))):
            if ".".join(parts[cut:]) in suffixes:
                before = "".join(p + "." for p in parts[:cut])
                count[before] = count.get(before, 0) + 1
    best = [p for p, n in count.items() if n == max(count.values(), default=0)]
    if len(best) > 1 and "" not in best:
        raise InputError(f"{origin} holds several matching networks, with the prefixes {', '.join(sorted(best))}; choose one with --prefix")
    return "" if not best or "" in best else best[0]


def apply_timm_filter(state: StateDict, model: nn.Module) -> StateDict:
    """`state` converted by timm's own filter for this architecture, which renames old keys and resamples position embeddings."""
    for kind in type(model).__mro__:  # timm keeps the filter in the module that defines the network, under this name
        own_filter = vars(sys.modules[kind.__module__]).get("checkpoint_filter_fn")
        if own_filter is not None:
            return dict(own_filter(dict(state), model))
    return dict(state)


def _covers_all(own: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> bool:
    return all(k.endswith("num_batches_tracked") or (k in own and own[k].shape == v.shape) for k, v in want.items())


def _classifier_names(model: nn.Module) -> tuple[str, ...]:
    names = model.default_cfg.get("classifier") if isinstance(model, HasDefaultCfg) else None
    if isinstance(names, str):
        return (names,)
    return tuple(map(str, names)) if isinstance(names, tuple | list) else ()


def describe_wrong_types(own: Mapping[str, Tensor], want: Mapping[str, Tensor]) -> str:
    """The tensors that a copy would convert and thereby change, in words: complex numbers, and integers (often quantised) for real numbers.

    "" if there is none."""
    shared = [k for k in want if k in own and not k.endswith("num_batches_tracked")]
    wrong = [k for k in shared if own[k].is_floating_point() != want[k].is_floating_point() or own[k].is_complex()]
    if not wrong:
        return ""
    first = wrong[0]
    kind = str(own[first].dtype).removeprefix("torch.")
    advice = "save weights as float32, not quantised" if not own[first].is_complex() else "a network has real weights"
    return (
        f"{len(wrong)} are of another type, first: {first} is {kind}, expected {str(want[first].dtype).removeprefix('torch.')} ({advice})"
    )


def _check_all_matched(own: Mapping[str, Tensor], want: Mapping[str, Tensor], heads: tuple[str, ...], origin: str) -> None:
    """Raises InputError unless `own` has the tensors `want` and otherwise only heads."""
    missing = [k for k in want if k not in own]
    reshaped = [f"{k} is {tuple(own[k].shape)}, expected {tuple(v.shape)}" for k, v in want.items() if k in own and own[k].shape != v.shape]
    modules = {k.split(".")[0] for k in want}
    extra = [k for k in own if k not in want and k.split(".")[0] in modules and not k.startswith(heads or "\0")]
    faults = [
        f"{len(missing)} of {len(want)} tensors are not in the file, first {', '.join(missing[:3])}" if missing else "",
        f"{len(reshaped)} have another shape, first: {reshaped[0]}" if reshaped else "",
        f"{len(extra)} belong to a larger network, first {', '.join(extra[:3])}" if extra else "",
        describe_wrong_types(own, want),
    ]
    if any(faults):
        details = "; ".join(fault for fault in faults if fault)
        raise InputError(f"{origin} does not match the network: {details}. Check arch, model_args and channels of its card")
