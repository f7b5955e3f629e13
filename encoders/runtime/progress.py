"""How much of a piece of work is done, and how long the rest will take.

Work has one or more kinds, such as images to embed and probes to train, whose units take different times. The amounts are known in advance;
the seconds per unit of each kind are those of its recent units. There is no estimate before every kind that is left was seen: the mean over
other kinds may be wrong by a factor of a hundred. Work that turns out to be done already takes no part in the rates.
"""

import time
from collections.abc import Callable, Mapping

MEMORY = 0.1  # of the units of a kind: after as many more, what was measured before counts half
ENOUGH_UNITS, ENOUGH_SECONDS = 0.01, 5.0  # of a kind: its share that is done, or the time it took, from which on its rate is believed
FEW = 0.2  # a single report is believed from this share of the units on: it contains whatever happened before it


class KindOfWork:
    """The units of one kind, and how long they took."""

    def __init__(self, total: float):
        self.total, self.left, self.reports, self.share = total, total, 0, 0.0
        self.units = self.seconds = 0.0  # decayed sums over the reports but the first, which contains the start

    def add(self, units: float, seconds: float) -> None:
        """`units` were done in `seconds`."""
        self.left = max(self.left - units, 0.0)
        self.reports += 1
        self.share += units / self.total
        if self.reports == 2:
            self.units = self.seconds = 0.0
        keep = 0.5 ** (units / (MEMORY * self.total))
        self.units, self.seconds = keep * self.units + units, keep * self.seconds + seconds

    def seconds_left(self) -> float | None:
        """None without evidence."""
        if self.left <= 1e-9 * self.total:  # sums of shares are rounded
            return 0.0
        believed = self.share >= FEW if self.reports < 2 else self.share >= ENOUGH_UNITS or self.seconds >= ENOUGH_SECONDS
        return self.left * self.seconds / self.units if believed and self.units else None


class Progress:
    """Receives what was done. Without kinds, an item is a unit of work: call it with the number of items done since the last call."""

    def __init__(
        self,
        total: int,
        work: Mapping[str, float] | None = None,
        show: Callable[["Progress"], None] = lambda progress: None,
        clock: Callable[[], float] | None = None,
    ):
        """total: items, which are shown.  work: kind -> units; None: items are the units.  show: called after each report.  clock: s."""
        self.total, self.done, self.skipped, self.clock, self.show = total, 0, 0, clock or time.monotonic, show
        self.is_even = work is None
        self.kinds = {name: KindOfWork(units) for name, units in ({"": float(total)} if work is None else work).items() if units > 0}
        self.started = self.last = self.clock()

    def __call__(self, n: int) -> None:
        """`n` items are done; without kinds, they took the time since the last report."""
        self.done += n
        if self.is_even:
            self.spend("", n)
        else:
            self.show(self)

    def spend(self, kind: str, units: float) -> None:
        """The time since the last report was spent on these units."""
        now = self.clock()
        if kind in self.kinds and units > 0:
            self.kinds[kind].add(units, now - self.last)
        self.last = now
        self.show(self)

    def skip(self, items: int, units: Mapping[str, float] | None = None) -> None:
        """These items, and these units of each kind, turned out to be done already; the time since the last report is nobody's."""
        self.done += items
        self.skipped += items
        for kind, amount in ({"": float(items)} if units is None else units).items():
            if kind in self.kinds:
                self.kinds[kind].left = max(self.kinds[kind].left - amount, 0.0)
                self.kinds[kind].share += amount / self.kinds[kind].total if self.kinds[kind].reports else 0.0
        self.last = self.clock()
        self.show(self)

    def seconds_left(self) -> float | None:
        """The estimate; None before there is evidence on every kind of work that is left."""
        parts = [kind.seconds_left() for kind in self.kinds.values()]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    def describe_rate(self) -> str:
        """Items per second without those that were skipped; "" for work of several kinds, and before the first item."""
        worked = self.done - self.skipped
        return f"{worked / max(self.clock() - self.started, 1e-9):.1f}/s" if self.is_even and worked else ""


def skip_items(tick: Callable[[int], None], n: int) -> None:
    """Tells `tick` that `n` items were done already, if it can tell them from work."""
    if n:
        tick.skip(n) if isinstance(tick, Progress) else tick(n)


def describe_seconds(seconds: float) -> str:
    """45 s, 12 min, 3.4 h: as exact as an estimate is."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
