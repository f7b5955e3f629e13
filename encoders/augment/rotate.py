"""Rotation and magnification about the centre of the crop, part of the single resampling."""

from collections.abc import Mapping
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from encoders.augment.device_params import DeviceParams
from encoders.augment.operation import Augmentation, DrawnParams, Draws, FloatRange, check_positive, log_uniform_between, uniform_between
from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.config import Config
from encoders.runtime.random import Purpose


class RotateSettings(Config):
    rotate: float = Field(0.0, ge=0, le=180, description="rotation about the centre of the crop, uniform in +- this many degrees")
    rotate_p: float = Field(1.0, ge=0, le=1, description="probability of the rotation")
    scale: FloatRange = Field((1.0, 1.0), description="magnification about the centre of the crop, drawn log-uniformly; 2: twice as large")

    @model_validator(mode="after")
    def _check_scale(self) -> Self:
        check_positive("scale", self.scale)
        return self


class Rotate(Augmentation[RotateSettings]):
    """angle: (B,) degrees, counter-clockwise.  zoom: (B,) magnification."""

    settings = RotateSettings
    params = ("angle", "zoom")

    def draw(self, cfg: RotateSettings, draws: Draws) -> DrawnParams:
        if not cfg.rotate and cfg.scale == (1.0, 1.0):
            return {}
        u = draws.lanes(Purpose.ROTATE, 3)
        angle = np.where(u[0] < cfg.rotate_p, uniform_between(u[1], -cfg.rotate, cfg.rotate), 0.0)
        return {"angle": angle, "zoom": log_uniform_between(u[2], cfg.scale)}

    def lookup_rows(self, params: DrawnParams) -> BoolArray:
        rows: BoolArray = (params["angle"] != 0) | (params["zoom"] != 1)
        return rows


def rotation_of_row(params: Mapping[str, Array]) -> tuple[float, float]:
    """Cosine and sine of the single row's angle, each divided by its magnification."""
    angle, zoom = (np.deg2rad(params["angle"][0]), params["zoom"][0]) if "angle" in params else (0.0, 1.0)
    return np.cos(angle) / zoom, np.sin(angle) / zoom


def rotations(params: DeviceParams, like: Tensor) -> Tensor:
    """(B, 2, 2) float64, each row's [[cos, sin], [-sin, cos]] divided by its magnification.  like: (B, numbers)."""
    if "angle" not in params:
        one, zero = torch.ones_like(like[:, 0]), torch.zeros_like(like[:, 0])
        return torch.stack([one, zero, zero, one], 1).view(-1, 2, 2)
    angle, zoom = params.exact("angle").deg2rad(), params.exact("zoom")
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    return torch.cat([cos, sin, -sin, cos], 1).view(-1, 2, 2)
