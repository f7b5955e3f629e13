"""Recognising a checkpoint: its family, the network in it that is meant, and its tensors under timm's names.

A path is PLACE:NAME, e.g. `teacher:backbone.blocks.0.norm1.weight`; the place is empty for a plain state dict.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from encoders.importing.checkpoint import Checkpoint
from encoders.importing.family_data import EncoderFamily, TensorLayout, family_book, find_family
from encoders.importing.rename import Renamed, rename_tensors
from encoders.runtime.errors import InputError, unknown_name_error

TIMM_NAMES = TensorLayout(has=(), network=())  # the names are those of the network that the user named
# Put into names by torch.compile, FSDP and activation checkpointing; they wrap a module and compute nothing.
WRAPPERS = re.compile(r"(?<![^.:])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module|_forward_module)\.")
# Of two copies of a network in places of equal rank, the averaged one is evaluated.
AVERAGED = re.compile(r"(?<![a-z])ema(?![a-z])|averaged|teacher|target", re.IGNORECASE)
COPY = re.compile(r"(?<![a-z])ema(?![a-z])|averaged", re.IGNORECASE)


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

    @property
    def layout_args(self) -> dict[str, object]:
        """Arguments of the network that tensors do not show and the source does."""
        rule = self.rule.network
        own = self.family.args.get(self.layout) or (self.family.args.get(rule, {}) if isinstance(rule, str) else {})
        return {**self.rule.args, **own}


def list_paths(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Every tensor of a file by its path, without wrappers of modules in the names."""
    out: dict[str, Tensor] = {}
    for at in checkpoint.places():
        for key, value in checkpoint.tensors(at).items():
            out[f"{'/'.join(at)}:{WRAPPERS.sub('', key)}"] = value
    return out


def recognise(
    checkpoint: Checkpoint, family: str | None = None, network: str | None = None, want: Collection[str] | None = None
) -> FamilyMatch:
    """The family of a file and the tensors of its network.

    family: its name; None: by the keys.  network: the role of the network to take; None: the one meant for evaluation.  want: names of the
    tensors of the network that the user named, which are accepted as they are.  Raises InputError for a file that no family describes, and
    for one whose network timm does not have, with the reason."""
    paths = list_paths(checkpoint)
    match = find_match(checkpoint, paths, family, network, want)
    if match is not None:
        return match
    if network is not None:
        held = [role for f in family_book().families.values() for role in find_roles(f, paths)]
        raise unknown_name_error("network in this file", network, sorted(set(held)), f"{checkpoint.path}; leave --network out.")
    names = ", ".join(path.removeprefix(":") for path in list(paths)[:4])
    raise InputError(
        f"{checkpoint.path} is not a file of {family or 'any family that is known (`encoders families`)'}: its tensors are {names}, ...; "
        "tensors with timm's names can be imported with --arch and --prefix"
    )


def find_match(
    checkpoint: Checkpoint, paths: dict[str, Tensor], family: str | None, network: str | None, want: Collection[str] | None
) -> FamilyMatch | None:
    """As `recognise`, or None for a file that no family describes."""
    _refuse_known(checkpoint, paths)
    names = [family] if family else [n for n, f in family_book().families.items() if not f.by_name and _has_shapes(f.shape, paths)]
    return next((m for n in names if (m := _match(n, find_family(n), paths, network, want)) is not None), None)


def _refuse_known(checkpoint: Checkpoint, paths: dict[str, Tensor]) -> None:
    for refused in family_book().refused.values():
        by_name = bool(refused.has) and all(any(re.search(p, path) for path in paths) for p in refused.has)
        by_shape = bool(refused.shape) and _has_shapes(refused.shape, paths)
        if by_name or by_shape:
            raise InputError(f"{checkpoint.path} is {refused.title}, which cannot be imported: {refused.reason}")


def _has_shapes(sides: Mapping[str, tuple[int, int]], paths: Mapping[str, Tensor]) -> bool:
    """Whether some tensor of each expression has these last two sides."""
    return all(any(tuple(v.shape[-2:]) == side for path, v in paths.items() if re.search(p, path)) for p, side in sides.items())


def _match(
    name: str, family: EncoderFamily, paths: dict[str, Tensor], network: str | None, want: Collection[str] | None
) -> FamilyMatch | None:
    if not all(any(re.search(p, path) for path in paths) for p in family.requires):
        return None
    held = find_roles(family, paths)
    for role, start in held.items():
        if network not in (None, role):
            continue
        own = {path: path.removeprefix(start) for path in paths if path.startswith(start)}
        state = {key: paths[path] for path, key in own.items()}
        found = find_layout(state, family.layouts)
        if want and all(key in state for key in want) and (found or not family.layouts):
            found = keep_names(found, want)
        if found is None:
            continue
        layout, rule = found
        renamed = rename_tensors(state, rule.drop, list(rule.rename), list(rule.steps))
        outside = {path: _outside_reason(path, held) for path in paths if path not in own}
        return FamilyMatch(name, family, role, tuple(held), layout, rule, renamed, outside, _find_alike(name, paths))
    return None


def find_roles(family: EncoderFamily, paths: Iterable[str]) -> dict[str, str]:
    """The networks of a family in a file, the one meant for evaluation first: role -> beginning of its paths.

    An averaged copy of a network comes before it, whether the family names it or not."""
    paths = list(paths)
    out: dict[str, str] = {}
    for network in family.networks:
        starts = dict.fromkeys(found[0] for path in paths if (found := re.search(network.path, path)))
        for start in sorted(starts, key=lambda start: not AVERAGED.search(start)):
            out[network.role if len(starts) == 1 and network.role not in out else f"{network.role} at {start!r}"] = start
    for role, start in list(out.items()):
        for copy in _averaged_copies(start, paths):
            if copy not in out.values():
                out = {f"EMA of {role} at {copy!r}": copy, **out}
    return out


def _averaged_copies(start: str, paths: list[str]) -> list[str]:
    """Beginnings that say that they are averaged, with the same names after them."""
    if COPY.search(start):
        return []
    names = [path.removeprefix(start) for path in paths if path.startswith(start)]
    known, longest = set(paths), max(names, key=len)
    ends = [path.removesuffix(longest) for path in paths if path.endswith(longest) and COPY.search(path.removesuffix(longest))]
    return [end for end in ends if end.endswith((".", ":")) and sum(f"{end}{name}" in known for name in names) > len(names) // 2]


def find_layout(state: dict[str, Tensor], allowed: tuple[str, ...] = ()) -> tuple[str, TensorLayout] | None:
    """The first layout whose expressions fit the names; of the allowed ones if any are given."""
    for name, layout in family_book().layouts.items():
        if allowed and name not in allowed:
            continue
        if all(any(re.search(p, k) for k in state) for p in layout.has) and not any(re.search(p, k) for p in layout.lacks for k in state):
            return name, layout
    return None


def keep_names(found: tuple[str, TensorLayout] | None, want: Collection[str]) -> tuple[str, TensorLayout]:
    """A layout without renames, for tensors that have the wanted names: of the layout found by the keys, what it drops besides them."""
    if found is None:
        return "timm names", TIMM_NAMES
    drop = {pattern: why for pattern, why in found[1].drop.items() if not any(re.search(pattern, key) for key in want)}
    return found[0], found[1].model_copy(update={"drop": drop, "rename": (), "steps": (), "by_order": False})


def _outside_reason(path: str, held: dict[str, str]) -> str:
    other = next((role for role, start in held.items() if path.startswith(start)), None)
    return f"another network: {other}" if other else "outside the network"


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
    return any(find_layout(state, family.layouts) is not None for state in states if state)
