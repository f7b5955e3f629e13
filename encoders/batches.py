"""Batches of augmented views from a store, in an order that is a function of the step alone.

Shapes: B images of a global batch, b of a micro-batch, V views, C channels, H, W pixels.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from numpy.typing import ArrayLike
from torch import Tensor

from encoders.augment.config import Augment
from encoders.augment.masks import Masks, MaskSpec

__all__ = ["Batches", "MaskSpec", "Masks", "Micro"]


class Micro(NamedTuple):
    """One micro-batch of one rank, on the device."""

    views: list[Tensor]  # V x (b, C, H, W), normalised
    masks: list[Masks] | None  # one a view
    index: Tensor  # (b,) int64 rows of the store
    positions: Tensor  # (b,) int64 places in the global order


class Batches:
    """The batches of a run; `of(step)` gives those of one step of one rank."""

    def __init__(
        self,
        store: Any,
        specs: Sequence[Augment],
        preprocess: Any,
        *,
        seed: int,
        batch: int,
        index: ArrayLike | None = None,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
        workers: int = 0,
        device: str = "cpu",
        mask: MaskSpec | None = None,
        context: str = "fork",
        weights: ArrayLike | None = None,
    ):
        raise NotImplementedError

    steps_per_epoch: int
    waited: float

    def of(self, step: int) -> Iterator[Micro]:
        """The micro-batches of `step`, in order."""
        raise NotImplementedError

    def close(self) -> None:
        """Ends the worker processes."""
