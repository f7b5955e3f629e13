"""The sixteen turns of an image: its eight flips and quarter turns, each also inverted.

The hash of a turned image follows from the signs of the differences between the cells of the original: a flip reverses the order of the
cells and the sign of the differences along it, a transpose exchanges the two directions, an inversion reverses all signs. Equal cells are
neither above nor below, so that both signs are needed: the bits that rise and the bits that fall.

Shapes: N images; H, W of one image.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import Array
from encoders.similarity.perceptual_hash import Hashes

Signs = tuple[NDArray[np.bool_], NDArray[np.bool_]]  # (N, 16, 8) along the rows, (N, 8, 16) along the columns


class Turn(NamedTuple):
    """What was done to an image, in this order: inverted, transposed, flipped."""

    inverted: bool
    transposed: bool
    flipped_rows: bool  # upside down
    flipped_columns: bool  # left-right

    def __str__(self) -> str:
        return ", ".join([*(["inverted"] if self.inverted else []), *([name] if (name := GEOMETRY[self[1:]]) else [])])

    def apply(self, image: Array) -> Array:
        """A view of an (H, W) or (H, W, C) image turned, but not inverted, because that depends on its range."""
        turned = image.swapaxes(0, 1) if self.transposed else image
        return turned[:: -1 if self.flipped_rows else 1, :: -1 if self.flipped_columns else 1]


GEOMETRY = {  # transposed, flipped rows, flipped columns
    (False, False, False): "",
    (False, False, True): "mirrored",
    (False, True, False): "upside down",
    (False, True, True): "rotated by 180 degrees",
    (True, False, False): "transposed",
    (True, True, False): "rotated by 90 degrees",  # counter-clockwise
    (True, False, True): "rotated by 270 degrees",
    (True, True, True): "transposed and rotated by 180 degrees",
}
TURNS = [Turn(inverted, *geometry) for inverted in (False, True) for geometry in GEOMETRY]


def inverse_turn(number: int) -> int:
    """The number in TURNS of the turn that reverses another: rotations by 90 and 270 degrees reverse each other, all others themselves."""
    turn = TURNS[number]
    swapped = turn._replace(flipped_rows=turn.flipped_columns, flipped_columns=turn.flipped_rows)
    return TURNS.index(swapped if turn.transposed else turn)


def turn_hashes(rises: Hashes, falls: Hashes) -> Hashes:
    """(16, N, 32) hashes of the images under each of TURNS.  rises, falls: (N, 32) bits of the cells above and below their neighbour."""
    up, down = split_directions(rises), split_directions(falls)
    return np.stack([join_directions(*turn_signs(up, down, turn)) for turn in TURNS])


def turn_signs(up: Signs, down: Signs, turn: Turn) -> Signs:
    """The bits that rise in the turned images."""
    if turn.inverted:
        up, down = down, up
    if turn.transposed:
        up, down = ((high.swapaxes(1, 2), wide.swapaxes(1, 2)) for wide, high in (up, down))
    wide = (down if turn.flipped_columns else up)[0]
    high = (down if turn.flipped_rows else up)[1]
    rows, columns = -1 if turn.flipped_rows else 1, -1 if turn.flipped_columns else 1
    return wide[:, ::rows, ::columns], high[:, ::rows, ::columns]


def split_directions(hashes: Hashes) -> Signs:
    bits = np.unpackbits(hashes, axis=1).astype(bool)
    return bits[:, :128].reshape(-1, 16, 8), bits[:, 128:].reshape(-1, 8, 16)


def join_directions(wide: NDArray[np.bool_], high: NDArray[np.bool_]) -> Hashes:
    return np.packbits(np.concatenate([wide.reshape(-1, 128), high.reshape(-1, 128)], axis=1), axis=1)
