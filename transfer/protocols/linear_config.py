"""The settings of the linear probe and the published budgets of its presets on images, shared by `linear` and `augmented_probe`."""

from typing import Literal

import numpy as np
from pydantic import Field

from encoders.runtime.arrays import FloatArray
from encoders.runtime.config import Config as Base

PUBLISHED_BUDGETS = {"mae": (16_384, 90), "dinov2": (1024, 12_500)}  # images per step; epochs of mae, steps of dinov2


class Config(Base):
    """Which probe, and for the logistic one the grid of C and the precision of the solution."""

    preset: Literal["logistic", "dinov2_log", "thunder", "eva", "uni", "mae", "dinov2"] = Field(
        "logistic",
        description="logistic: ours; the others are probes as published (presets.py; mae and dinov2, which augment images: probe.py)",
    )
    seed: int = Field(0, description="seed of order, initialisation and augmentation of thunder, eva, mae and dinov2; the others use none")
    batch: int | None = Field(None, ge=2, description="mae, dinov2: images per step; null: 16384 and 1024, at most the train part")
    length: int | None = Field(None, ge=1, description="mae: epochs; dinov2: steps; null: 90 and 12500")

    low: float = Field(-6.0, description="log10 of the smallest C (inverse strength of the L2 penalty)")
    high: float = Field(5.0, description="log10 of the largest C")
    steps: int = Field(45, ge=1, description="number of values of C between them; 45 from 1e-6 to 1e5 as in DINOv2's log_regression.py")
    standardise: bool = Field(
        True, description="subtract the train mean and divide by the train standard deviation; constant columns become 0"
    )
    tolerance: float = Field(
        1e-6,
        gt=0,
        description="stop when the loss is estimated to be above its minimum by this share of itself; the estimate can be too low where "
        "classes are rare and C is large: in simulations the default keeps the true excess below 1e-3",
    )
    max_iter: int = Field(500, ge=1, description="iterations for every block of the grid; a table says when they did not suffice")
    refit: bool = Field(False, description="after C is chosen, solve once more on train and validation rows")

    @property
    def grid(self) -> FloatArray:
        """(S,) ascending values of C."""
        return np.logspace(self.low, self.high, self.steps)
