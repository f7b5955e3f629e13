"""Work on a CUDA device beside training: a micro-batch is copied and augmented on a stream of its own while the device computes the one
before, from forward pass to optimizer.

Memory is given out per stream. What is allocated on this stream and used only there may be reused there at once; what training reads is
handed over with `record_stream`, so that it is not reused before training has read it.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from encoders.loading.views import RawBatch


class DevicePrefetcher:
    """`start_copy` begins to copy a micro-batch; `hand_over` makes what was computed from it on `side_stream` ready for training.

    The host waits for neither. On a CPU nothing is copied, and the methods do nothing."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def side_stream(self) -> AbstractContextManager[object]:
        """Inside the block, work for the device is queued on the stream of the copies."""
        return torch.cuda.stream(self.stream)  # with None it does nothing

    def start_copy(self, micro_batch: RawBatch) -> RawBatch:
        """The micro-batch on the device, to be read on `side_stream`."""
        with self.side_stream():
            masks = micro_batch.masks and [view.map(self._copy_async) for view in micro_batch.masks]
            images, index, positions = map(self._copy_async, (micro_batch.images, micro_batch.index, micro_batch.positions))
            partners = None if micro_batch.partners is None else self._copy_async(micro_batch.partners)
            packed = micro_batch.packed and micro_batch.packed._replace(buffer=self._copy_async(micro_batch.packed.buffer))
        return micro_batch._replace(images=images, masks=masks, index=index, positions=positions, partners=partners, packed=packed)

    def _copy_async(self, part: Tensor) -> Tensor:
        if self.stream is None:
            return part
        part = part if part.is_pinned() else part.pin_memory()  # a copy from other memory would block the host
        return part.to(self.device, non_blocking=True)

    def hand_over(self, tensors: Iterable[Tensor]) -> None:
        """The current stream waits for all that was queued on `side_stream`, and may then read the tensors; the host does not wait."""
        if self.stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self.stream)
            for part in tensors:
                part.record_stream(current)


def list_tensors(raw: RawBatch) -> list[Tensor]:
    """All tensors that are copied."""
    masks = [part for view in raw.masks or [] for part in view]
    optional = [raw.partners, None if raw.packed is None else raw.packed.buffer]
    return [raw.images, raw.index, raw.positions, *masks, *(part for part in optional if part is not None)]
