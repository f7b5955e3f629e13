"""A share of a run's time for work that is not training: what would exceed it is postponed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class TimeBudget:
    """Adds up the time of pieces of work, and says whether one more fits into their share of all time since the budget began."""

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic):
        """share: of all time, (0, 1]; 1: everything fits.  clock: seconds."""
        self.share, self.clock, self.started = share, clock, clock()
        self.spent = 0.0  # seconds
        self.last = 0.0  # seconds of the newest piece of work

    @contextmanager
    def spend(self) -> Iterator[None]:
        """Measures the work inside."""
        began = self.clock()
        try:
            yield
        finally:
            self.last = self.clock() - began
            self.spent += self.last

    def fits(self, reserved: int = 0) -> bool:
        """Whether another piece of work as long as the last one fits, and `reserved` more that cannot be postponed."""
        return self.share >= 1 or self.spent + (1 + reserved) * self.last <= self.share * (self.clock() - self.started)

    def used_share(self) -> float:
        """The share of all time that the work took so far."""
        return self.spent / max(self.clock() - self.started, 1e-9)
