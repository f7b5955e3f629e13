"""A random intensity window: two values become black and white, and values between are stretched linearly."""

import numpy as np
from pydantic import Field
from torch import Tensor

from encoders.augment.colour import ColourLane, colour_lanes
from encoders.augment.operation import Augmentation, DrawnParams, Draws, broadcast_per_image
from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.config import Config


class WindowSettings(Config):
    window: float = Field(0.0, ge=0, le=1, description="probability of a random intensity window")
    window_width: float = Field(0.2, ge=0, lt=0.5, description="black is drawn from [0, this], white from [1 - this, 1]")


class Window(Augmentation[WindowSettings]):
    """window: (B, 2) values that become black and white."""

    settings = WindowSettings
    params = ("window",)

    def draw(self, cfg: WindowSettings, draws: Draws) -> DrawnParams:
        if not cfg.window:
            return {}
        u = colour_lanes(draws)
        on = (u[ColourLane.WINDOW] < cfg.window) * cfg.window_width
        return {"window": np.stack([on * u[ColourLane.WINDOW_BLACK], 1 - on * u[ColourLane.WINDOW_WHITE]], axis=1)}

    def changed_rows(self, params: DrawnParams) -> BoolArray:
        rows: BoolArray = (params["window"] != (0, 1)).any(1)
        return rows

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        apply_window(views, params["window"])


def apply_window(images: Tensor, ends: Array) -> Tensor:
    """ends (B, 2): the values that become black and white. In place."""
    low, high = broadcast_per_image(ends[:, 0], images), broadcast_per_image(ends[:, 1], images)
    return images.sub_(low).div_(high - low).clamp_(0, 1)
