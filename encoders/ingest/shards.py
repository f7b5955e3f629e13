"""Every item of a source into one store: in parallel, resumable, and with the same bytes however often it was interrupted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from encoders.ingest.source import Row, Source, Unreadable, file_stamp, gray

__all__ = ["Row", "Source", "Summary", "Unreadable", "file_stamp", "gray", "ingest"]


@dataclass(frozen=True)
class Summary:
    """What an ingest did."""

    out: Path
    rows: int
    patients: int
    channels: int
    dtype: str
    fingerprint: str
    quarantined: list[tuple[str, str]] = field(default_factory=list)  # (item, reason)
    notes: list[str] = field(default_factory=list)  # what the reader should know: promotions, patients in two splits

    @property
    def exit_code(self) -> int:
        """0 when every item became rows, 1 when something was quarantined."""
        return 1 if self.quarantined else 0


def ingest(
    source: Source,
    out: str | Path,
    workers: int = 1,
    overwrite: bool = False,
    tick: Callable[[int], None] | None = None,
) -> Summary:
    """Writes every row of `source` to the store `out`.  `tick(n)`: called with the number of items done since the last call."""
    raise NotImplementedError
