"""Where the time of a run goes: each part of a step gets the time from the mark before it to its own.

On a CPU the marks are the clock's. On a GPU, which works on while the host goes ahead, they are events in its own stream: what is measured
is the GPU's time, and its waiting for images is part of it.
"""

import resource
import time
from typing import Any, Protocol

import torch

STEP_PARTS = ("wait", "augment", "forward", "backward", "optimizer", "logging")


class TimeMark(Protocol):
    """A moment."""

    def elapsed_time(self, later: Any) -> float: ...


class HostTimeMark:
    """A moment of the host's clock, with the interface of a CUDA event."""

    def __init__(self) -> None:
        self.at = time.perf_counter()

    def elapsed_time(self, later: "HostTimeMark") -> float:
        return 1e3 * (later.at - self.at)  # milliseconds, as CUDA events give them


class StepTimer:
    """Speed since the last reading: images a second, and the share of the time in each of PARTS."""

    def __init__(self, batches: Any, batch: int, step: int, device: torch.device):
        self.batches, self.batch, self.device = batches, batch, device
        self.marks: list[tuple[str, TimeMark]] = []
        self.last = (time.perf_counter(), step, batches.waited)
        batches.lap = self.lap  # a batch's reading ("wait") and its augmentation are told apart where they are done
        self.lap("begin")

    def lap(self, part: str) -> None:
        """The time since the last mark was spent in `part`. Does not wait for the device."""
        self.marks.append((part, self._now()))

    def _now(self) -> TimeMark:
        if self.device.type != "cuda":
            return HostTimeMark()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def read(self, step: int) -> dict[str, float]:
        """The numbers since the last reading. On a GPU it waits for the device, once a line of the record."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = (time.perf_counter(), step, self.batches.waited)
        elapsed, steps, waited = (a - b for a, b in zip(now, self.last, strict=True))
        self.last = now
        return {
            "time/images_per_s": steps * self.batch / max(elapsed, 1e-9),
            "time/s_per_step": elapsed / max(steps, 1),
            "time/memory_gib": self._memory(),
            "time/data_wait": min(waited / max(elapsed, 1e-9), 1.0),
        } | self._shares()

    def _memory(self) -> float:
        """The most that this process held so far: of the GPU's memory where there is one."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**30
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB

    def _shares(self) -> dict[str, float]:
        spent = dict.fromkeys(STEP_PARTS, 0.0)
        for (_, before), (part, mark) in zip(self.marks[:-1], self.marks[1:], strict=True):
            spent[part] += before.elapsed_time(mark)
        self.marks = self.marks[-1:]
        total = max(sum(spent.values()), 1e-9)
        return {f"time/{part}": ms / total for part, ms in spent.items()}
