"""What the micro-batches of a step collect for `after_step`."""

import torch
from torch import Tensor


class StepBuffer:
    """Rows that `forward` adds and `after_step` takes.

    A method that uses `add` in `forward` calls `close` in `after_backward` and `pop_all` in `after_step`. Rows of a rejected step, for
    which `after_step` does not run, are discarded when the next step adds its first rows. Without gradients nothing is added: such a
    forward pass only measures."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.closed = True  # from the start, so that torch.compile meets the same state in every step

    def add(self, x: Tensor) -> None:
        """Keeps the rows x of one micro-batch."""
        if not torch.is_grad_enabled():
            return
        if self.closed:
            self.tensors, self.closed = [], False
        self.tensors.append(x)

    def close(self) -> None:
        """Marks the end of the step's last backward pass."""
        self.closed = True

    def pop_all(self) -> Tensor:
        """All rows of this step; the buffer is empty afterwards."""
        rows, self.tensors = torch.cat(self.tensors), []
        return rows
