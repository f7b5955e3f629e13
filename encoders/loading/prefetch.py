"""Copies to a CUDA device while it computes: on a stream of their own, from pinned memory, one micro-batch ahead of the one in use."""

from typing import Any

import torch
from torch import Tensor

from encoders.augment.masks import Masks
from encoders.loading.views import RawBatch


class DevicePrefetcher:
    """`started` sends a micro-batch on its way; `arrived` is what the device may compute with. On a CPU both give back what they get."""

    def __init__(self, device: torch.device):
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def started(self, made: Any) -> Any:
        """The micro-batch on the device, not yet to be read."""
        if not isinstance(made, RawBatch):
            return made  # finished where it was made, for a CPU
        with torch.cuda.stream(self.stream):  # with None it does nothing
            masks = made.masks and [Masks(*map(self._sent, one)) for one in made.masks]
            images, index, positions = map(self._sent, (made.images, made.index, made.positions))
            partners = None if made.partners is None else self._sent(made.partners)
        return made._replace(images=images, masks=masks, index=index, positions=positions, partners=partners)

    def _sent(self, part: Tensor) -> Tensor:
        if self.stream is None:
            return part
        part = part if part.is_pinned() else part.pin_memory()  # from other memory a copy would hold up the host
        return part.to(self.device, non_blocking=True)

    def arrived(self, sent: Any) -> Any:
        """The same, after the copy: the device waits for it, the host does not."""
        if self.stream is not None and isinstance(sent, RawBatch):
            now = torch.cuda.current_stream(self.device)
            now.wait_stream(self.stream)
            for part in list_tensors(sent):
                part.record_stream(now)  # its memory belongs to the other stream, which must not use it again before this one is done
        return sent


def list_tensors(raw: RawBatch) -> list[Tensor]:
    """All that is copied."""
    masks = [part for one in raw.masks or [] for part in one]
    return [raw.images, raw.index, raw.positions, *masks, *([] if raw.partners is None else [raw.partners])]
