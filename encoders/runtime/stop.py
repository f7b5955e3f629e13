"""A request to stop, checked between steps: the scheduler's signals and Ctrl-C end a run with a checkpoint.

The loop reads `stop.requested` after each step. A signal of the scheduler (SIGTERM at preemption, SIGUSR1 before the time limit) and the
user's Ctrl-C differ only in what the command does afterwards.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

REQUEUE_SIGNALS = ("SIGTERM", "SIGUSR1")  # the run is to be resumed in another job
REQUEUE_EXIT_STATUS = 75  # EX_TEMPFAIL of sysexits.h, "try again". Status 0 would start jobs that depend on this one (afterok)


class StopRequest:
    """`requested` is the name of the first signal received, or None."""

    requested: str | None = None

    def handle_signal(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.requested and name == "SIGINT":
            raise KeyboardInterrupt  # a second Ctrl-C does not wait for the end of the step
        self.requested = self.requested or name


@contextmanager
def listen_for_stop() -> Iterator[StopRequest]:
    """Yields a StopRequest that receives SIGTERM, SIGUSR1 and SIGINT until the block ends; then the previous handlers are restored."""
    stop = StopRequest()
    previous = {number: signal.signal(number, stop.handle_signal) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
