"""Which tensors of a file are the network to import: by its family, by a prefix, or by the names of the network that the user named."""

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor

from encoders.importing.checkpoint import Checkpoint
from encoders.importing.families import AVERAGED, FamilyMatch, find_layout, find_match, keep_names, list_paths, recognise
from encoders.importing.family_data import find_family
from encoders.importing.rename import rename_tensors
from encoders.runtime.errors import InputError

MOST_HEADS = 5  # components of a name that may stand before the network's own names
FEWEST_TENSORS = 8  # of a network; a prefix with fewer is a head


@dataclass(frozen=True)
class NetworkChoice:
    """How the network is chosen where the keys of the file do not settle it."""

    family: str | None = None
    network: str | None = None  # role, e.g. student
    prefix: str | None = None  # PREFIX, or PLACE:PREFIX
    want: Collection[str] | None = None  # names of the tensors of the network that the user named


def choose_network(checkpoint: Checkpoint, choice: NetworkChoice) -> FamilyMatch:
    """The network of a file. Raises InputError if there is none, with the reason, and if several are equally likely, with their names."""
    paths = list_paths(checkpoint)
    if not paths:
        raise InputError(f"{checkpoint.path} holds no tensors with names; expected a state dict, or a checkpoint with one")
    if choice.prefix is not None:
        return _by_prefix(checkpoint, paths, choice)
    if (match := find_match(checkpoint, paths, choice.family, choice.network, choice.want)) is not None:
        return match
    if choice.family or choice.network:
        return recognise(checkpoint, choice.family, choice.network, choice.want)  # raises
    found = _search_prefixes(paths, choice.want)
    if not found:
        return recognise(checkpoint)  # raises
    averaged = [at for at in found if AVERAGED.search(at)]
    best = averaged if len(averaged) == 1 else found
    if len(best) > 1:
        raise InputError(
            f"{checkpoint.path} holds several matching networks, with the prefixes {', '.join(map(repr, sorted(found)))}; choose one with "
            "--prefix"
        )
    return _match_at(best[0], paths, choice, roles=tuple(found))


def _by_prefix(checkpoint: Checkpoint, paths: dict[str, Tensor], choice: NetworkChoice) -> FamilyMatch:
    assert choice.prefix is not None, "called with a prefix"
    place, colon, prefix = choice.prefix.rpartition(":")
    found = [at for at in dict.fromkeys(p.split(":", 1)[0] for p in paths) if any(p.startswith(f"{at}:{prefix}") for p in paths)]
    found = [at for at in found if not colon or at == place]
    if len(found) > 1 and choice.want:
        found = [at for at in found if _covers(paths, f"{at}:{prefix}", choice.want)] or found
    if not found:
        raise InputError(
            f"{checkpoint.path} has no tensor whose name begins with {choice.prefix!r}; it has {', '.join(list(paths)[:4])}, ..."
        )
    if len(found) > 1:
        names = ", ".join(f"--prefix {at}:{prefix}" for at in found)
        raise InputError(f"{checkpoint.path} has tensors with the prefix {prefix!r} in several places; write one of {names}")
    return _match_at(f"{found[0]}:{prefix}", paths, choice, roles=())


def _match_at(start: str, paths: dict[str, Tensor], choice: NetworkChoice, roles: tuple[str, ...]) -> FamilyMatch:
    """The network whose paths begin with `start`."""
    state = {path.removeprefix(start): value for path, value in paths.items() if path.startswith(start)}
    name = choice.family or "plain"
    family = find_family(name)
    found = find_layout(state, family.layouts)
    if found is None or (choice.want and all(key in state for key in choice.want)):
        found = keep_names(found, choice.want or ())
    layout, rule = found
    renamed = rename_tensors(state, rule.drop, list(rule.rename), list(rule.steps))
    outside = {path: f"outside the prefix {start!r}" for path in paths if not path.startswith(start)}
    return FamilyMatch(name, family, f"network at {start!r}", roles or (f"network at {start!r}",), layout, rule, renamed, outside, ())


def _search_prefixes(paths: dict[str, Tensor], want: Collection[str] | None) -> list[str]:
    """The beginnings PLACE:PREFIX after which the wanted names stand, or, without any, the names of a layout; only the shortest of those
    that contain each other."""
    count: dict[str, int] = {}
    for path in paths:
        place, name = path.split(":", 1)
        parts = name.split(".")
        for cut in range(min(MOST_HEADS, len(parts))):
            start = f"{place}:" + "".join(part + "." for part in parts[:cut])
            count[start] = count.get(start, 0) + 1
    starts = sorted((s for s, n in count.items() if n >= FEWEST_TENSORS), key=len)
    if want:
        share = {start: sum(f"{start}{key}" in paths for key in want) for start in starts}
        most = max(share.values(), default=0)
        return [start for start, n in share.items() if n == most] if most else starts[:1]  # the report says what does not fit
    found: list[str] = []
    for start in starts:
        if any(start.startswith(shorter) for shorter in found):
            continue
        if find_layout({p.removeprefix(start): v for p, v in paths.items() if p.startswith(start)}) is not None:
            found.append(start)
    return found


def _covers(paths: dict[str, Tensor], start: str, want: Collection[str]) -> bool:
    return all(f"{start}{key}" in paths for key in want)
