"""A request to stop, noticed between steps: the cluster's signals and Ctrl-C end a run in order, with a checkpoint.

The loop asks `stop.requested` after each step. A scheduler's notice (SIGTERM at preemption, SIGUSR1 before the time limit) and the user's
Ctrl-C differ only in what the command does afterwards.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

REQUEUE_SIGNALS = ("SIGTERM", "SIGUSR1")  # the run should go on in another job
REQUEUE_EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h, "try again": not 0, which would release jobs that wait for this one with afterok


class StopRequest:
    """`requested` is the name of the first signal received, or None."""

    requested: str | None = None

    def hear(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.requested and name == "SIGINT":
            raise KeyboardInterrupt  # a second Ctrl-C does not wait for the step
        self.requested = self.requested or name


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """A Stop that hears SIGTERM, SIGUSR1 and SIGINT until the block ends; then the former handlers are back."""
    stop = StopRequest()
    former = {number: signal.signal(number, stop.hear) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
