"""Images under an acquisition shift, one batch or a whole store."""

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from encoders.runtime.arrays import Array
from encoders.runtime.config import json_digest
from encoders.runtime.random import Purpose, uniform
from encoders.store.store import Store
from transfer.bench.shifts import SHIFTS, VERSION


def apply_shift(images: NDArray[np.float32], rows: Array, name: str, strength: int, modality: str) -> NDArray[np.float32]:
    """(B, H, W, C) in [0, 1] under a shift. rows: (B,) rows of the images in their store, from which their random numbers are drawn.

    strength: 0 (unchanged) to 5."""
    if strength == 0:
        return images
    kind = SHIFTS[name]
    u = uniform(0, Purpose.ACQUISITION, rows, list(SHIFTS).index(name), 6)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    return kind.load()(x, kind.values[strength - 1], u, modality).clamp(0, 1).permute(0, 2, 3, 1).contiguous().numpy()


class ShiftedStore(Store):
    """A store whose images in [0, 1] are under a shift. It has a fingerprint of its own, so that its features are cached separately."""

    def __init__(self, store: Store, name: str, strength: int):
        super().__init__(store.parts)
        self.shift, self.strength = name, strength

    @property
    def fingerprint(self) -> str:
        value = SHIFTS[self.shift].values[self.strength - 1]
        return json_digest([super().fingerprint, "shifted", VERSION, self.shift, value], 64)

    def unit_images(self, index: ArrayLike) -> NDArray[np.float32]:
        rows = np.asarray(index).reshape(-1)
        return apply_shift(super().unit_images(rows), rows, self.shift, self.strength, self.modality)

    def compact_images(self, index: ArrayLike) -> tuple[Array, float]:
        return self.unit_images(index), 1.0  # the shifted values are not bytes
