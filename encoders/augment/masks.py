"""What a masked method hides of each view: the contract of its generators, and the random subset of MAE.

A generator is a `MaskSpec`: a method returns one from `mask_spec()`, and the loader calls its `draw` for each view. What it draws is a pure
function of (seed, position, view), like every other draw; where the images of a batch must share a shape, also of the step, which is
position // batch. It is then the same whatever the workers, ranks, micro-batches and restarts.

`Masks` are the tensors that a generator draws for one view. Methods receive one `Masks` per view; the base class itself, without tensors,
for a view of which nothing is hidden. Other generators: `square_masks` (SimMIM), `context_masks` (I-JEPA), `block_masks` (iBOT).

Source: MAE, section 3 (He et al. 2021, arXiv:2111.06377): a uniform random subset without replacement.

Shapes: B images of a micro-batch, N tokens, K kept, M masked; N = K + M.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import ArrayLike
from pydantic import Field
from torch import Tensor

from encoders.runtime.arrays import IntArray
from encoders.runtime.config import Config
from encoders.runtime.random import Purpose, uniform


@dataclass(frozen=True, eq=False)
class Masks:
    """What is hidden of one view. Every field of a subclass is a tensor; iterating yields them in order."""

    def __iter__(self) -> Iterator[Tensor]:
        return (getattr(self, field.name) for field in fields(self))

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """The same masks with every tensor changed: copied to a device, for example."""
        return type(self)(*map(change, self))

    def pin_memory(self) -> Self:
        """A copy in pinned memory; torch's loader calls it."""
        return self.map(Tensor.pin_memory)


@runtime_checkable
class HidesTokens(Protocol):
    """Masks that hide some tokens of a grid."""

    @property
    def hidden(self) -> Tensor:
        """(B, N) bool, true for the hidden tokens."""
        ...


@dataclass(frozen=True, eq=False)
class TokenSubset(Masks):
    """Equally many hidden tokens in each image, as indices.  keep: (B, K) int64, masked: (B, M) int64, each row ascending."""

    keep: Tensor
    masked: Tensor

    @property
    def hidden(self) -> Tensor:
        """(B, N) bool, true for the hidden tokens."""
        n_tokens = self.keep.shape[1] + self.masked.shape[1]
        return torch.zeros(len(self.keep), n_tokens, dtype=torch.bool, device=self.keep.device).scatter_(1, self.masked, True)


@dataclass(frozen=True, eq=False)
class TokenMask(Masks):
    """Hidden tokens as a mask: their number may differ between images.  hidden: (B, N) bool, true for the hidden tokens."""

    hidden: Tensor


class MaskSpec(Config, ABC):
    """A generator of masks: its settings, and how it draws."""

    @abstractmethod
    def draw(self, seed: int, positions: IntArray, view: int) -> Masks:
        """What is hidden of view number `view` of the images at `positions` (B,), all of one step; `Masks()` if nothing is."""


class RandomTokens(MaskSpec):
    """A uniform random subset of the patch tokens of every view."""

    tokens: int = Field(gt=0, description="patch tokens of a view; prefix tokens (class, registers) are never masked")
    ratio: float = Field(0.75, ge=0, lt=1, description="share of the tokens hidden")

    def draw(self, seed: int, positions: IntArray, view: int) -> TokenSubset:
        keep, masked = draw_mask(seed, positions, self.tokens, self.ratio, view)
        return TokenSubset(torch.from_numpy(keep), torch.from_numpy(masked))


def draw_mask(seed: int, position: ArrayLike, n_tokens: int, ratio: float, view: int = 0) -> tuple[IntArray, IntArray]:
    """Indices kept (B, K) and hidden (B, M) for each position; M = N - floor(N (1 - ratio)), as in MAE."""
    order = np.argsort(uniform(seed, Purpose.MASK, position, view, n_tokens), axis=1, kind="stable")  # (B, N)
    kept = int(n_tokens * (1 - ratio) + 1e-9)  # 1e-9: 100 * (1 - 0.9) is 9.999999999999998
    return np.sort(order[:, :kept], axis=1), np.sort(order[:, kept:], axis=1)
