"""Where the time of a run goes: each part of a step gets the time from the previous mark to its own.

On a CPU the marks are times of its clock. A GPU runs asynchronously, so there the marks are events in its stream: they measure the GPU's
time, which includes its waiting for images.
"""

import time
from typing import Protocol, Self

import torch

from encoders.runtime.peak_memory import peak_memory
from pretrain.loop.batch_source import BatchSource
from pretrain.loop.step_parts import STEP_PARTS, StepPart


class TimeMark(Protocol):
    """A moment."""

    def elapsed_time(self, later: Self, /) -> float:
        """Milliseconds from this moment to `later`."""
        ...


class HostTimeMark:
    """A moment of the host's clock, with the interface of a CUDA event."""

    def __init__(self) -> None:
        self.seconds = time.perf_counter()

    def elapsed_time(self, later: "HostTimeMark", /) -> float:
        return 1e3 * (later.seconds - self.seconds)  # milliseconds, as CUDA events give them


class StepTimer:
    """Speed since the last reading: images per second, and the share of the time in each of STEP_PARTS."""

    def __init__(self, batches: BatchSource, batch: int, step: int, device: torch.device):
        """batch: images per step.  step: that at which the timing starts."""
        self.batches, self.batch, self.device = batches, batch, device
        self.marks: list[tuple[StepPart | None, TimeMark]] = [(None, self._now())]  # the part that ends here; None at the start
        self.last = (time.perf_counter(), step, batches.waited)
        batches.on_lap(self.lap)  # only `batches` knows where reading ("wait") ends and augmentation ("augment") begins

    def lap(self, part: StepPart) -> None:
        """The time since the last mark was spent in `part`. Does not wait for the device."""
        self.marks.append((part, self._now()))

    def _now(self) -> TimeMark:
        if self.device.type != "cuda":
            return HostTimeMark()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def read(self, step: int) -> dict[str, float]:
        """The numbers since the last reading. On a GPU it waits for the device, once per logged line."""
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
        """Peak memory of this process in GiB: of the GPU if there is one."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 2**30
        return peak_memory()

    def _shares(self) -> dict[str, float]:
        spent = dict.fromkeys(STEP_PARTS, 0.0)
        for (_, before), (part, mark) in zip(self.marks[:-1], self.marks[1:], strict=True):
            if part is not None:
                spent[part] += before.elapsed_time(mark)
        self.marks = self.marks[-1:]
        total = max(sum(spent.values()), 1e-9)
        return {f"time/{part}": ms / total for part, ms in spent.items()}
