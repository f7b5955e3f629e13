"""How the rows of the table are measured: CPU seconds of alternating turns, so that other load slows both sides equally.

CPU time counts this process and the processes it started. Ratios are those of the two turns of a round; a row states their median, the
lowest and the highest.
"""

import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

Work = Callable[[], object]


@dataclass(frozen=True)
class Row:
    """A line of the table.

    limit: the most that the ratio, or without a peer our seconds, may be; None: only stated.
    ours, theirs: CPU seconds of each turn.  note: what stands in place of numbers, e.g. that the peer is not installed."""

    work: str
    peer: str = "-"
    limit: float | None = None
    ours: Sequence[float] = ()
    theirs: Sequence[float] = ()
    note: str = ""
    unit: str = "s"

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs, by round."""
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)] if self.theirs else []

    @property
    def judged(self) -> float | None:
        """The number that the limit is for."""
        values = self.ratios or list(self.ours)
        return statistics.median(values) if values else None

    @property
    def is_met(self) -> bool | None:
        """Whether the limit is kept; None without a limit or a number."""
        return None if self.limit is None or self.judged is None else self.judged <= self.limit

    def cells(self) -> list[str]:
        """The row as text, in the order of `HEAD`."""
        spread = ""
        if len(ratios := self.ratios) > 0:
            spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        limit = "" if self.limit is None else f"<= {self.limit:g}{'' if self.peer != '-' else ' ' + self.unit}"
        verdict = self.note or {True: "met", False: "MISSED", None: ""}[self.is_met]
        return [self.work, limit, self.peer, *(_median(side, self.unit) for side in (self.ours, self.theirs)), spread, verdict]


HEAD = ["work", "limit", "peer", "ours", "peer's", "ours / peer's (range)", ""]


def _median(values: Sequence[float], unit: str) -> str:
    return f"{statistics.median(values):.3g} {unit}".rstrip() if values else ""


def cpu_seconds(work: Work) -> float:
    """CPU seconds of the work, with those of processes that it starts and waits for."""
    before = _cpu_time()
    work()
    return _cpu_time() - before


def _cpu_time() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def alternate(rounds: int, *turns: Work, warm: bool = True) -> list[list[float]]:
    """CPU seconds of each turn in each round; the order is reversed in every other round.

    warm: one round before them is not counted; processes of their own need none."""
    for turn in turns if warm else ():
        turn()
    seconds: list[list[float]] = [[] for _ in turns]
    for number in range(rounds):
        for i in range(len(turns)) if number % 2 else reversed(range(len(turns))):
            seconds[i].append(cpu_seconds(turns[i]))
    return seconds


def is_installed(peer: str) -> bool:
    """Whether the package is there; `pip install -e '.[peers]'` brings those that the project does not need itself."""
    return find_spec(peer) is not None


NOT_INSTALLED = "peer not installed"
