"""The prepared input of an encoder, batch after batch, from the images of a store.

On a CPU the reading process prepares the images. For a CUDA device it only reads them: the stored bytes are copied from pinned memory and
prepared on the device, which computes one batch while the host reads the next. Both give the same input up to rounding.

Shapes: B images of a batch, b of a group of one size, C channels of the images, K of the model, H x W pixels, S side of the model's input.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from encoders.runtime.device_copies import DeviceCopies
from encoders.runtime.worker_process import worker_context
from encoders.store.store import Store
from encoders.zoo.encoder import Encoder, EncoderInput


class StoredGroups(NamedTuple):
    """The images of a batch as they are stored, in groups of one size."""

    images: list[Tensor]  # (b, H, W, C) each: bytes, or float32 in [0, 1]
    whites: list[float]  # stored value of white of each group


def prepares_on_device(device: torch.device) -> bool:
    """Whether the device prepares the images, and not the process that reads them."""
    return device.type == "cuda"


def iterate_inputs(encoder: Encoder, store: Store, parts: Sequence[NDArray[np.int64]], workers: int = 0) -> Iterator[EncoderInput]:
    """Yields the prepared input of each batch, on the encoder's device.

    parts: the rows of the store in each batch.  workers: processes that read, at most one per batch; 0: this process reads when the next
    batch is asked for, which on a CUDA device is while the device computes."""
    workers = min(workers, len(parts))
    device, context = encoder.device, worker_context() if workers else None
    if not prepares_on_device(device):
        prepared: DataLoader[EncoderInput] = DataLoader(
            _PreparedBatches(store, encoder, parts), batch_size=None, num_workers=workers, multiprocessing_context=context
        )
        yield from (move_input(x, device) for x in prepared)
        return
    stored, pin = _StoredBatches(store, parts), device.type == "cuda"
    read: DataLoader[StoredGroups] = DataLoader(
        stored, batch_size=None, num_workers=workers, multiprocessing_context=context, pin_memory=pin
    )
    copies = DeviceCopies(device)
    for groups in read:
        images = copies.wait(copies.start(groups.images))
        yield join_inputs([encoder.prepare(to_unit_planar(x, white)) for x, white in zip(images, groups.whites, strict=True)])


def to_unit_planar(images: Tensor, white: float) -> Tensor:
    """(b, C, H, W) float32 in [0, 1], of stored values (b, H, W, C)."""
    return rearrange(images, "b h w c -> b c h w").float() / white


def join_inputs(inputs: Sequence[EncoderInput]) -> EncoderInput:
    """The inputs of successive images as one; with parts, one for each part."""
    if len(inputs) == 1:
        return inputs[0]
    plain = [x for x in inputs if isinstance(x, Tensor)]
    if plain:
        return torch.cat(plain)  # (B, K, S, S)
    return tuple(torch.cat([x[i] for x in inputs]) for i in range(len(inputs[0])))


def move_input(x: EncoderInput, device: torch.device) -> EncoderInput:
    """The input on a device."""
    return x.to(device) if isinstance(x, Tensor) else tuple(own.to(device) for own in x)


def size_groups(store: Store, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The rows in groups that can be read as one array: all, or single images where sizes differ."""
    return [rows] if store.shape else [rows[j : j + 1] for j in range(len(rows))]


class _PreparedBatches(Dataset[EncoderInput]):
    """Batches of a store as model input, prepared where they are read."""

    def __init__(self, store: Store, encoder: Encoder, parts: Sequence[NDArray[np.int64]]):
        self.store, self.prepare, self.parts = store, encoder.prepare, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, i: int) -> EncoderInput:
        if i >= len(self.parts):
            raise IndexError(i)
        return join_inputs([self.prepare(self.store.unit_images(group)) for group in size_groups(self.store, self.parts[i])])


class _StoredBatches(Dataset[StoredGroups]):
    """Batches of a store as they are stored."""

    def __init__(self, store: Store, parts: Sequence[NDArray[np.int64]]):
        self.store, self.parts = store, parts

    def __len__(self) -> int:
        return len(self.parts)

    def __getitem__(self, i: int) -> StoredGroups:
        if i >= len(self.parts):
            raise IndexError(i)
        read = [self.store.compact_images(group) for group in size_groups(self.store, self.parts[i])]
        return StoredGroups([torch.from_numpy(images) for images, _ in read], [white for _, white in read])
