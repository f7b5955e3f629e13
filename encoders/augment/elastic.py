"""A smooth random warp, part of the single resampling: displacements at a coarse grid of knots, interpolated bicubically."""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from encoders.augment.device_params import DeviceParams
from encoders.augment.operation import Augmentation, DrawnParams, Draws
from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.config import Config
from encoders.runtime.random import Purpose

ELASTIC_KNOTS = 6  # a side of the grid


class ElasticSettings(Config):
    elastic: float = Field(0.0, ge=0, le=1, description="probability of a smooth random warp")
    elastic_px: float = Field(4.0, ge=0, description="standard deviation of the warp at its 6 x 6 knots, in view pixels at 224")


class Elastic(Augmentation[ElasticSettings]):
    """elastic: (B, 2, ELASTIC_KNOTS, ELASTIC_KNOTS) displacements right and down, as shares of the view."""

    settings = ElasticSettings
    params = ("elastic",)

    def draw(self, cfg: ElasticSettings, draws: Draws) -> DrawnParams:
        if not (cfg.elastic and cfg.elastic_px):
            return {}
        knots = draws.normal(Purpose.ELASTIC, 2 * ELASTIC_KNOTS * ELASTIC_KNOTS) * cfg.elastic_px / 224
        picked = draws.lanes(Purpose.SHIFT, 1)[0] < cfg.elastic
        return {"elastic": (knots * picked[:, None]).reshape(-1, 2, ELASTIC_KNOTS, ELASTIC_KNOTS)}

    def lookup_rows(self, params: DrawnParams) -> BoolArray:
        rows: BoolArray = np.any(params["elastic"], axis=(1, 2, 3))
        return rows


def displacement_of_row(params: Mapping[str, Array], size: int) -> Tensor | None:
    """(2, S, S) displacement of each output pixel of the single row; None when it has none."""
    if "elastic" not in params or not params["elastic"].any():
        return None
    return interpolate_knots(torch.as_tensor(params["elastic"], dtype=torch.float32), size)[0]


def displacements(params: DeviceParams, size: int) -> Tensor | None:
    """(B, 2, S, S) displacement of each output pixel of all rows; None when the operation is off."""
    if "elastic" not in params:
        return None
    return interpolate_knots(params.single("elastic").reshape(-1, 2, ELASTIC_KNOTS, ELASTIC_KNOTS), size)


def interpolate_knots(knots: Tensor, size: int) -> Tensor:
    """(B, 2, KNOTS, KNOTS) -> (B, 2, S, S)."""
    return F.interpolate(knots, size=(size, size), mode="bicubic", align_corners=True)
