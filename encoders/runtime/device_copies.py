"""Copies between host and a CUDA device that neither waits for: from and to pinned memory, on a stream of their own.

On a CPU nothing is copied, and every function returns its argument.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class DeviceCopies:
    """`start` begins to copy tensors to the device; `wait` returns what the device may compute with. The host waits for neither."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def start(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors on the device, not to be read before `wait`."""
        if self.stream is None:
            return [x.to(self.device) for x in tensors]
        with torch.cuda.stream(self.stream):
            pinned = [x if x.is_pinned() else x.pin_memory() for x in tensors]  # a copy from other memory would block the host
            return [x.to(self.device, non_blocking=True) for x in pinned]

    def wait(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The same tensors after the copy: the device waits for it, the host does not."""
        if self.stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self.stream)
            for x in tensors:
                x.record_stream(current)  # the copy stream must not reuse this memory before the current stream has read it
        return list(tensors)


class HostCopy(NamedTuple):
    """A tensor that is being copied to the host."""

    tensor: Tensor
    copied: torch.cuda.Event | None  # None: nothing to wait for

    @classmethod
    def start(cls, x: Tensor) -> "HostCopy":
        """Queues the copy behind the work that computes `x`."""
        if x.device.type != "cuda":
            return cls(x.cpu(), None)
        host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
        host.copy_(x, non_blocking=True)
        copied = torch.cuda.Event()
        copied.record(torch.cuda.current_stream(x.device))
        return cls(host, copied)

    def wait(self) -> Tensor:
        """The tensor in host memory."""
        if self.copied is not None:
            self.copied.synchronize()
        return self.tensor


def fetch_one_late(outputs: Iterable[Tensor]) -> Iterator[Tensor]:
    """The outputs in host memory, in order. Each is waited for only after the work of the next one is queued on the device.

    So the host reads the images of a batch while the device computes the batch before."""
    pending: HostCopy | None = None
    for x in outputs:
        started = HostCopy.start(x)
        if pending is not None:
            yield pending.wait()
        pending = started
    if pending is not None:
        yield pending.wait()
