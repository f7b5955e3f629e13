"""What fine-tuning costs: trained parameters, images seen, validations, and the memory of a training step."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from encoders.runtime.json_types import Json

MemorySource = Literal["allocator", "counted"]


@dataclass
class TrainingCost:
    """Counted while a network is trained.

    memory_bytes: on a CUDA device the peak that the allocator saw from the start of training, and so the true peak; on a CPU, whose
    allocator counts nothing, the largest sum over phases of weights, averaged weights, gradients, optimizer state and what the forward pass
    keeps for the backward pass. The second leaves out what exists within one operation only, and is the same at every run."""

    device: torch.device
    parameters: int
    trained_parameters: int = 0  # the most of all phases
    images_seen: int = 0
    validations: int = 0
    memory_bytes: int = 0

    def __post_init__(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    @property
    def memory_source(self) -> MemorySource:
        return "allocator" if self.device.type == "cuda" else "counted"

    @contextmanager
    def measure(self, networks: Sequence[nn.Module], optimizer: torch.optim.Optimizer) -> Iterator[None]:
        """Measures the training step in the block. networks: that in training, and its average if that is another."""
        if self.device.type == "cuda":
            yield
            return
        weights = [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]
        known, saved = {tensor.untyped_storage().data_ptr() for tensor in weights}, dict[int, int]()

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                saved[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()  # the tensor itself would refer to the graph that keeps it

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            yield
        held = [*weights, *(p.grad for network in networks for p in network.parameters() if p.grad is not None)]
        held += [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
        storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in held}
        self.memory_bytes = max(self.memory_bytes, sum(saved.values()) + sum(storages.values()))

    def note_peak(self) -> None:
        """Takes over the allocator's peak; a training that goes on from a file has one of each session."""
        if self.device.type == "cuda":
            self.memory_bytes = max(self.memory_bytes, torch.cuda.max_memory_allocated(self.device))

    def as_record(self) -> dict[str, Json]:
        """What a record holds. Reads the allocator's peak; the host does not wait for the device."""
        self.note_peak()
        return {
            "parameters": self.parameters,
            "trained_parameters": self.trained_parameters,
            "images_seen": self.images_seen,
            "validations": self.validations,
            "memory_bytes": self.memory_bytes,
            "memory_source": self.memory_source,
        }
