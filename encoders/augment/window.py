"""A random intensity window: two values become black and white, and values between are stretched linearly."""

import numpy as np
from pydantic import Field
from torch import Tensor

from encoders.augment.colour import ColourLane, colour_lanes
from encoders.augment.device_params import DeviceParams
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
        apply_window(views, params["window"][:, 0], params["window"][:, 1])

    def apply_on_device(self, views: Tensor, params: DeviceParams) -> Tensor:
        ends = params.single("window")
        return apply_window(views, ends[:, :1], ends[:, 1:])


def apply_window(images: Tensor, black: Array | Tensor, white: Array | Tensor) -> Tensor:
    """black, white (B,): the values that become black and white; tensors are (B, 1, 1, 1). In place."""
    low, high = broadcast_per_image(black, images), broadcast_per_image(white, images)
    return images.sub_(low).div_(high - low).clamp_(0, 1)
