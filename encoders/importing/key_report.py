"""What became of every tensor of a file, and where every tensor of the network comes from."""

from collections.abc import Mapping
from dataclasses import dataclass

from encoders.runtime.errors import InputError


@dataclass(frozen=True)
class KeyReport:
    """Every tensor of a file and of the network, in one of these groups. Names in the file are without the prefix of the network.

    Of the network: `matched`, `renamed`, `resampled`, `made`, `missing` and `reshaped`. Of the file: the origins of these, `dropped`,
    `unexplained` and `outside`."""

    matched: tuple[str, ...]  # the same name in the file
    renamed: Mapping[str, tuple[str, ...]]  # name in the network -> names in the file
    resampled: Mapping[str, tuple[tuple[str, ...], str]]  # name in the network -> names in the file, sizes and method
    made: Mapping[str, str]  # name in the network -> its value, which the file does not have
    missing: tuple[str, ...]
    reshaped: Mapping[str, tuple[tuple[str, ...], str]]  # name in the network -> names in the file, both shapes
    filled: tuple[str, ...]  # parts of tensors that the file does not have, with their value
    dropped: Mapping[str, str]  # name in the file -> reason
    unexplained: Mapping[str, str]  # name in the file -> shape
    outside: Mapping[str, str]  # PLACE:NAME of what is not of the network -> reason

    @property
    def loaded(self) -> int:
        """Tensors of the network that come from the file."""
        return len(self.matched) + len(self.renamed) + len(self.resampled)

    def origins(self) -> set[str]:
        """Names in the file of the tensors that the network has."""
        several = [*self.renamed.values(), *(o for o, _ in self.resampled.values()), *(o for o, _ in self.reshaped.values())]
        return {*self.matched, *(name for names in several for name in names)}

    def file_tensors(self) -> int:
        """Tensors of the file: those that the network has, the dropped, the unexplained, and those outside."""
        return len(self.origins() | set(self.dropped) | set(self.unexplained)) + len(self.outside)

    def describe(self) -> list[str]:
        """The report, one line a group, with counts and examples."""
        lines = [f"{self.loaded} tensors loaded: {len(self.matched)} matched, {len(self.renamed)} renamed, {len(self.resampled)} resampled"]
        lines += [f"resampled {name}: {how}" for name, (_, how) in list(self.resampled.items())[:4]]
        if len(self.resampled) > 4:
            lines.append(f"... and {len(self.resampled) - 4} more tensors in the same way")
        by_value: dict[str, list[str]] = {}
        for name, value in self.made.items():
            by_value.setdefault(value, []).append(name)
        lines += [f"not in the file: {_list_some(names)} = {value}" for value, names in by_value.items()]
        lines += [f"not in the file: {_list_some(list(self.filled))}"] if self.filled else []
        for title, group in (("dropped", self.dropped), ("not of this network", self.outside)):
            by_reason: dict[str, list[str]] = {}
            for name, reason in group.items():
                by_reason.setdefault(reason, []).append(name)
            lines += [f"{title}: {_list_some(names)} ({reason})" for reason, names in by_reason.items()]
        return lines

    def faults(self) -> list[str]:
        """Why the tensors do not fit: missing, of another shape, unexplained; [] if they do."""
        total = self.loaded + len(self.made) + len(self.missing) + len(self.reshaped)
        shapes = [f"{name} is {how}" for name, (_, how) in self.reshaped.items()]
        out = []
        if self.missing:
            out.append(f"{len(self.missing)} of {total} tensors are not in the file, first {', '.join(self.missing[:3])}")
        if shapes:
            out.append(f"{len(shapes)} have another shape, first: {shapes[0]}")
        if self.unexplained:
            out.append(f"{len(self.unexplained)} of the file have no place in the network, first {', '.join(list(self.unexplained)[:3])}")
        return out

    def check(self, origin: str, advice: str) -> None:
        """Raises InputError, with `advice`, if tensors of the network are missing or of another shape, or some of the file unexplained."""
        if faults := self.faults():
            raise InputError(f"{origin} does not match the network: {'; '.join(faults)}. {advice}")


def _list_some(names: list[str]) -> str:
    if len(names) <= 3:
        return ", ".join(names)
    return f"{len(names)} tensors, e.g. {', '.join(names[:2])}"
