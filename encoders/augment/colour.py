"""What the colour operations share: the lanes of their draws, the probability of a jitter, and the gray level.

Brightness, contrast, saturation and hue are torchvision's `adjust_*`, applied in this order. (torchvision's ColorJitter draws the order.)
"""

from enum import IntEnum

import numpy as np
from pydantic import Field
from torch import Tensor

from encoders.augment.operation import Draws, uniform_between
from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.config import Config
from encoders.runtime.device_constant import device_constant
from encoders.runtime.random import Purpose

AUGMENT_LUMA = 0.299, 0.587, 0.114  # ITU-R 601, as torchvision and Pillow


class ColourLane(IntEnum):
    """Lanes of `Purpose.COLOUR`. Values are part of every result: append, never renumber."""

    JITTER = 0
    BRIGHTNESS = 1
    CONTRAST = 2
    SATURATION = 3
    HUE = 4
    WINDOW = 5
    WINDOW_BLACK = 6
    WINDOW_WHITE = 7
    GAMMA = 8
    GAMMA_EXPONENT = 9
    GRAYSCALE = 10


class JitterSettings(Config):
    jitter: float = Field(0.0, ge=0, le=1, description="probability of brightness, contrast, saturation and hue together")


def colour_lanes(draws: Draws) -> FloatArray:
    """(lanes, B) uniform numbers, indexed by `ColourLane`."""
    return draws.lanes(Purpose.COLOUR, len(ColourLane))


def draw_jitter_factor(cfg: JitterSettings, draws: Draws, lane: ColourLane, width: float) -> FloatArray:
    """(B,) factors, uniform in [max(0, 1 - width), 1 + width), and 1 where no jitter is drawn."""
    u = colour_lanes(draws)
    return np.where(u[ColourLane.JITTER] < cfg.jitter, uniform_between(u[lane], max(0.0, 1 - width), 1 + width), 1.0)


def luma(images: Tensor) -> Tensor:
    """The gray level (B, 1, H, W)."""
    if images.shape[1] == 1:
        return images
    red, green, blue = (images[:, c : c + 1] for c in range(3))
    return (red * AUGMENT_LUMA[0]).add_(green, alpha=AUGMENT_LUMA[1]).add_(blue, alpha=AUGMENT_LUMA[2])


def luma_together(images: Tensor) -> Tensor:
    """As `luma`, in two operations instead of three."""
    return images if images.shape[1] == 1 else (images * device_constant(_luma_column, like=images)).sum(1, keepdim=True)


def _luma_column() -> Array:
    return np.array(AUGMENT_LUMA, np.float32).reshape(3, 1, 1)
