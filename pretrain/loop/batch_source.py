"""Where the loop gets its batches from."""

from collections.abc import Callable, Iterator
from typing import Protocol

from encoders.loading.batches import LoadPart, MicroBatch


class BatchSource(Protocol):
    """Batches by step. `encoders.loading.batches.Batches` is one."""

    waited: float  # seconds spent waiting for data so far

    def on_lap(self, callback: Callable[[LoadPart], None]) -> None:
        """Calls `callback` whenever a micro-batch has been read ("wait") and when it has been augmented ("augment")."""
        ...

    def micro_batches(self, step: int) -> Iterator[MicroBatch]:
        """The micro-batches of a step on this rank."""
        ...
