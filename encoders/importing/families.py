"""Recognising a checkpoint: its family, the network in it that is meant, and its tensors under timm's names."""

import re
from dataclasses import dataclass

from torch import Tensor

from encoders.importing.checkpoint import Checkpoint
from encoders.importing.family_data import EncoderFamily, TensorLayout, family_book, find_family
from encoders.importing.rename import Renamed, rename_tensors
from encoders.runtime.errors import InputError


@dataclass(frozen=True)
class FamilyMatch:
    """What a file is."""

    name: str
    family: EncoderFamily
    role: str  # the network taken
    roles: tuple[str, ...]  # every network that the file holds
    layout: str
    rule: TensorLayout
    renamed: Renamed
    outside: dict[str, str]  # PLACE:NAME of tensors that are not of this network -> reason
    alike: tuple[str, ...]  # families whose files have the same keys


def recognise(checkpoint: Checkpoint, family: str | None = None, network: str | None = None) -> FamilyMatch:
    """The family of a file and the tensors of its network.

    family: its name; None: by the keys.  network: the role of the network to take; None: the one meant for evaluation.
    Raises InputError for a file that no family describes, and for one whose network timm does not have, with the reason."""
    paths = {f"{'/'.join(at)}:{key}": value for at in checkpoint.places() for key, value in checkpoint.tensors(at).items()}
    _refuse_known(checkpoint, paths)
    names = [family] if family else [n for n, f in family_book().families.items() if not f.by_name]
    for name in names:
        if (match := _match(name, find_family(name), paths, network)) is not None:
            return match
    if network is not None:
        raise InputError(f"{checkpoint.path} holds no network {network!r} of a family that is known; leave --network out")
    raise InputError(
        f"{checkpoint.path} is not a file of {family or 'any family that is known (`encoders families`)'}: its tensors are "
        f"{', '.join(list(paths)[:4])}, ...; tensors with timm's names can be imported with --arch and --prefix"
    )


def _refuse_known(checkpoint: Checkpoint, paths: dict[str, Tensor]) -> None:
    for refused in family_book().refused.values():
        by_name = bool(refused.has) and all(any(re.search(p, path) for path in paths) for p in refused.has)
        by_shape = any(tuple(v.shape[-2:]) == side for p, side in refused.shape.items() for path, v in paths.items() if re.search(p, path))
        if by_name or by_shape:
            raise InputError(f"{checkpoint.path} is {refused.title}, which cannot be imported: {refused.reason}")


def _match(name: str, family: EncoderFamily, paths: dict[str, Tensor], network: str | None) -> FamilyMatch | None:
    if not all(any(re.search(p, path) for path in paths) for p in family.requires):
        return None
    held = [n for n in family.networks if any(re.search(n.path, path) for path in paths)]
    for chosen in [n for n in held if network in (None, n.role)]:
        state = {re.sub(chosen.path, "", path, count=1): value for path, value in paths.items() if re.search(chosen.path, path)}
        layout = _find_layout(state, family)
        if layout is None:
            continue
        rule = family_book().layouts[layout]
        renamed = rename_tensors(state, rule.drop, list(rule.rename), list(rule.steps))
        outside = {path: _outside_reason(path, family) for path in paths if not re.search(chosen.path, path)}
        return FamilyMatch(name, family, chosen.role, tuple(n.role for n in held), layout, rule, renamed, outside, _find_alike(name, paths))
    return None


def _find_layout(state: dict[str, Tensor], family: EncoderFamily) -> str | None:
    for name, layout in family_book().layouts.items():
        if family.layouts and name not in family.layouts:
            continue
        if all(any(re.search(p, k) for k in state) for p in layout.has) and not any(re.search(p, k) for p in layout.lacks for k in state):
            return name
    return None


def _outside_reason(path: str, family: EncoderFamily) -> str:
    other = next((n.role for n in family.networks if re.search(n.path, path)), None)
    return (
        f"another network: {other}" if other else f"outside the network: {path.partition(':')[0] or path.partition(':')[2].split('.')[0]}"
    )


def _find_alike(name: str, paths: dict[str, Tensor]) -> tuple[str, ...]:
    own = find_family(name)
    return tuple(
        other
        for other, family in family_book().families.items()
        if other != name and family.by_name and {n.path for n in family.networks} & {n.path for n in own.networks}
        and _match_keys(family, paths)
    )  # fmt: skip


def _match_keys(family: EncoderFamily, paths: dict[str, Tensor]) -> bool:
    states = ({re.sub(n.path, "", p, count=1): v for p, v in paths.items() if re.search(n.path, p)} for n in family.networks)
    return any(_find_layout(state, family) is not None for state in states if state)
