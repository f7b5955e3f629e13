"""Tensors under timm's names fitted to a network: by order, resampled, or through timm's own filter, each step recorded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from timm.layers.patch_embed import resample_patch_embed
from torch import Tensor, nn

from encoders.importing.key_report import KeyReport
from encoders.importing.rename import Renamed
from encoders.importing.traced_tensor import TracedTensor, trace
from encoders.runtime.errors import InputError
from encoders.zoo.card import PositionRule
from encoders.zoo.position_grid import METHODS, positions_of, resample_positions
from encoders.zoo.timm_protocols import HasDefaultCfg
from encoders.zoo.weights import StateDict, apply_timm_filter

COUNTER = "num_batches_tracked"
# What networks compute themselves, or no network uses in evaluation.
NOT_STORED = re.compile(r"relative_position_index$|attn_mask$|(^|\.)rope|\.periods$|\.bias_mask$|(^|\.)mask_token$|num_batches_tracked$")
FILTER_ERRORS = (LookupError, AttributeError, TypeError, ValueError, RuntimeError, AssertionError)


@dataclass(frozen=True)
class FitRule:
    """What may be done to fit tensors to a network."""

    positions: PositionRule = "timm"
    kernels: bool = False  # patch kernels and relative positions may be resampled
    by_order: bool = False  # names differ, and the order does not
    drop: tuple[str, ...] = ()  # expressions for tensors that the user leaves out


@dataclass
class _Fit:
    """Tensors on their way to the network."""

    tensors: dict[str, Tensor]
    origin: dict[str, tuple[str, ...]]
    resampled: dict[str, str] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    unexplained: dict[str, str] = field(default_factory=dict)


def fit_tensors(network: nn.Module, renamed: Renamed, outside: Mapping[str, str], rule: FitRule) -> tuple[StateDict, KeyReport]:
    """The tensors that `network` can load, and what became of every tensor; the report's `check` says whether they are complete.

    Raises InputError if timm's filter for this network cannot read these tensors, and if the numbers of a shared order differ."""
    want = network.state_dict()
    fit = _Fit(dict(renamed.tensors), dict(renamed.origin), dropped=dict(renamed.dropped))
    for name in [n for n in fit.tensors if any(re.search(p, o) for p in rule.drop for o in fit.origin[n])]:
        _drop(fit, name, "left out by --drop")
    if rule.by_order:
        _rename_by_order(fit, want)
    _fit_positions(fit, network, rule)
    _fit_kernels(fit, want, rule)
    if not _fits(fit, want):
        _through_timm_filter(fit, network, rule)
    classifier = _head_modules(network)
    for name in [n for n in fit.tensors if n not in want]:
        reason = "classifier" if _is_below(name, classifier) else "not used in evaluation" if NOT_STORED.search(name) else None
        _drop(fit, name, reason)
    return _sort_out(fit, want, renamed, outside)


def _drop(fit: _Fit, name: str, reason: str | None) -> None:
    """Moves a tensor to the dropped ones, or, without a reason, to the unexplained ones."""
    value, origin = fit.tensors.pop(name), fit.origin.pop(name)
    for key in origin:
        if any(key in names for names in fit.origin.values()):
            continue  # another tensor is made of it
        if reason is None:
            fit.unexplained[key] = "x".join(map(str, value.shape))
        else:
            fit.dropped[key] = reason


def _rename_by_order(fit: _Fit, want: Mapping[str, Tensor]) -> None:
    for counters in (False, True):
        theirs = [n for n in fit.tensors if n.endswith(COUNTER) == counters]
        ours = [n for n in want if n.endswith(COUNTER) == counters]
        if counters and not theirs:
            continue
        if len(theirs) != len(ours):
            raise InputError(f"the file has {len(theirs)} tensors and the network {len(ours)}, so their order does not tell their names")
        values, origins = [fit.tensors.pop(n) for n in theirs], [fit.origin.pop(n) for n in theirs]
        fit.tensors |= dict(zip(ours, values, strict=True))
        fit.origin |= dict(zip(ours, origins, strict=True))


def _fit_positions(fit: _Fit, network: nn.Module, rule: FitRule) -> None:
    found, stored = positions_of(network), fit.tensors.get("pos_embed")
    if found is None or stored is None or stored.ndim != 3 or stored.shape[-1] != found[0].shape[-1] or stored.shape == found[0].shape:
        return
    _, grid, prefix = found
    count = stored.shape[1] - prefix
    side = int(max(count, 0) ** 0.5)
    if side * side != count or not count:
        return  # its shape is reported
    fit.tensors["pos_embed"] = resample_positions(stored, grid, prefix, rule.positions)
    fit.resampled["pos_embed"] = f"{side}x{side} -> {grid[0]}x{grid[1]}, {METHODS[rule.positions]}"


def _fit_kernels(fit: _Fit, want: Mapping[str, Tensor], rule: FitRule) -> None:
    """With `kernels`: patch kernels of another size."""
    name = "patch_embed.proj.weight"
    if not rule.kernels or name not in fit.tensors or name not in want:
        return
    own, shape = fit.tensors[name], want[name].shape
    if own.ndim == len(shape) == 4 and own.shape != shape and own.shape[:2] == shape[:2]:
        fit.tensors[name] = resample_patch_embed(own.float(), [int(shape[2]), int(shape[3])], "bicubic", antialias=True)
        fit.resampled[name] = f"{own.shape[2]}x{own.shape[3]} -> {shape[2]}x{shape[3]}, pseudo-inverse of bicubic (FlexiViT)"


def _fits(fit: _Fit, want: Mapping[str, Tensor]) -> bool:
    return all(k.endswith(COUNTER) or (k in fit.tensors and fit.tensors[k].shape == v.shape) for k, v in want.items())


def _through_timm_filter(fit: _Fit, network: nn.Module, rule: FitRule) -> None:
    """timm's own filter of this network, whose every output knows the tensors that it is made of."""
    traced = {name: trace(value, frozenset([name])) for name, value in fit.tensors.items()}
    try:
        out = apply_timm_filter(dict(traced), network)
    except FILTER_ERRORS:
        return  # the filter is for other tensors than these: the report of their names and shapes says more than its error
    before, origin = dict(fit.tensors), dict(fit.origin)
    fit.tensors, fit.origin = {}, {}
    for name, value in out.items():
        parts = sorted(value.origins) if isinstance(value, TracedTensor) else []
        value = value.value if isinstance(value, TracedTensor) else value
        if not rule.kernels and len(parts) == 1 and _is_resized_kernel(before[parts[0]], value):
            value = before[parts[0]]  # reported as another shape
        elif len(parts) == 1 and value.numel() != before[parts[0]].numel() and "pos" in name:
            fit.resampled[name] = f"{_format_shape(before[parts[0]])} -> {_format_shape(value)}, by timm"
        fit.tensors[name] = value
        fit.origin[name] = tuple(o for part in parts for o in origin[part])
    used = {o for names in fit.origin.values() for o in names}
    for name in before:
        for key in origin[name]:
            if key not in used:
                (fit.dropped if NOT_STORED.search(name) else fit.unexplained)[key] = (
                    "not used in evaluation" if NOT_STORED.search(name) else _format_shape(before[name])
                )


def _is_resized_kernel(before: Tensor, after: Tensor) -> bool:
    """Whether a patch kernel or a table of relative positions was resampled."""
    if before.ndim == after.ndim == 4:
        return before.shape[:2] == after.shape[:2] and before.shape != after.shape
    return before.ndim == after.ndim == 2 and before.shape[1] == after.shape[1] and before.shape != after.shape


def _head_modules(network: nn.Module) -> tuple[str, ...]:
    names = network.default_cfg.get("classifier") if isinstance(network, HasDefaultCfg) else None
    return (names,) if isinstance(names, str) else tuple(map(str, names)) if isinstance(names, tuple | list) else ()


def _is_below(name: str, modules: tuple[str, ...]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _format_shape(value: Tensor) -> str:
    return "x".join(map(str, value.shape))


def _sort_out(fit: _Fit, want: StateDict, renamed: Renamed, outside: Mapping[str, str]) -> tuple[StateDict, KeyReport]:
    state: StateDict = {}
    matched: list[str] = []
    missing: list[str] = []
    made: dict[str, str] = {}
    others: dict[str, tuple[str, ...]] = {}
    resampled: dict[str, tuple[tuple[str, ...], str]] = {}
    reshaped: dict[str, tuple[tuple[str, ...], str]] = {}
    for name, value in want.items():
        own, origin = fit.tensors.get(name), fit.origin.get(name, ())
        if own is None and name.endswith(COUNTER):  # a counter that no network uses in evaluation mode; old files lack it
            state[name], made[name] = torch.zeros_like(value), "0, a counter that is not used in evaluation"
        elif own is None:
            missing.append(name)
        elif own.shape != value.shape:
            reshaped[name] = origin, f"{tuple(own.shape)}, expected {tuple(value.shape)}"
        else:
            state[name] = own
            if name in fit.resampled:
                resampled[name] = origin, fit.resampled[name]
            elif origin == (name,):
                matched.append(name)
            else:
                others[name] = origin
    return state, KeyReport(
        matched=tuple(matched),
        renamed=others,
        resampled=resampled,
        made=made,
        missing=tuple(missing),
        reshaped=reshaped,
        filled=tuple(renamed.made),
        dropped=fit.dropped,
        unexplained=fit.unexplained,
        outside=dict(outside),
    )
