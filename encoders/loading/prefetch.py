"""Asynchronous copies to a CUDA device: on a stream of their own, from pinned memory, one micro-batch ahead of the one in use."""

import torch
from torch import Tensor

from encoders.loading.views import RawBatch


class DevicePrefetcher:
    """`start_copy` begins to copy a micro-batch; `wait_for_copy` returns what the device may compute with. On a CPU nothing is copied."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def start_copy(self, micro_batch: RawBatch) -> RawBatch:
        """The micro-batch on the device, not to be read before `wait_for_copy`."""
        with torch.cuda.stream(self.stream):  # with None it does nothing
            masks = micro_batch.masks and [view.map(self._copy_async) for view in micro_batch.masks]
            images, index, positions = map(self._copy_async, (micro_batch.images, micro_batch.index, micro_batch.positions))
            partners = None if micro_batch.partners is None else self._copy_async(micro_batch.partners)
        return micro_batch._replace(images=images, masks=masks, index=index, positions=positions, partners=partners)

    def _copy_async(self, part: Tensor) -> Tensor:
        if self.stream is None:
            return part
        part = part if part.is_pinned() else part.pin_memory()  # a copy from other memory would block the host
        return part.to(self.device, non_blocking=True)

    def wait_for_copy(self, micro_batch: RawBatch) -> RawBatch:
        """The same micro-batch after the copy: the device waits for it, the host does not."""
        if self.stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self.stream)
            for part in list_tensors(micro_batch):
                part.record_stream(current)  # the copy stream must not reuse this memory before the current stream has read it
        return micro_batch


def list_tensors(raw: RawBatch) -> list[Tensor]:
    """All tensors that are copied."""
    masks = [part for view in raw.masks or [] for part in view]
    return [raw.images, raw.index, raw.positions, *masks, *([] if raw.partners is None else [raw.partners])]
