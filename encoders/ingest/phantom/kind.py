"""The contract of a phantom: how a synthetic person is drawn, and how images of that person are drawn."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

PhantomImage = tuple[NDArray[np.uint8], Mapping[str, str | int]]  # (S, S, C), and the columns of /meta
PhantomMask = NDArray[np.bool_]  # (S, S) where the finding of the label can be seen


class PhantomPerson(Protocol):
    """What all images of one person share."""

    @property
    def label(self) -> int:
        """0 or 1."""


PersonT = TypeVar("PersonT", bound=PhantomPerson)


@dataclass(frozen=True)
class PhantomKind(Generic[PersonT]):
    """One kind of synthetic image. Everything is drawn from the generators it receives, in a fixed order."""

    label: str  # name of the label column that holds `label` of the person
    channels: int
    stream: int  # number of the random stream, unique among the kinds
    draw_person: Callable[[np.random.Generator], PersonT]
    draw_image: Callable[[PersonT, np.random.Generator, int], PhantomImage]  # person, generator, side of the image
    labelled_meta: tuple[str, ...] = ()  # columns of /meta that are labels, too
    modality: str | None = None  # of the store; None: the name of the kind
    draw_mask: Callable[[PersonT, np.random.Generator, int], PhantomMask] | None = None  # as draw_image, from the same generator
