"""Flips and quarter turns: the eight symmetries of a square view."""

from collections.abc import Mapping

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from encoders.augment.device_params import DeviceParams
from encoders.augment.operation import Augmentation, DrawnParams, Draws
from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.config import Config
from encoders.runtime.random import Purpose


class FlipSettings(Config):
    flip: float = Field(0.0, ge=0, le=1, description="probability of a left-right flip; 0 where the side matters")
    flip_vertical: float = Field(0.0, ge=0, le=1, description="probability of an up-down flip")
    turn: float = Field(0.0, ge=0, le=1, description="probability of a quarter turn, one of 90, 180, 270 degrees; square views")


class Flip(Augmentation[FlipSettings]):
    """flip: (B, 2) left-right and up-down, part of the resampling.  turn: (B,) quarter turns of the finished view, if any are asked for."""

    settings = FlipSettings
    params = ("flip", "turn")

    def draw(self, cfg: FlipSettings, draws: Draws) -> DrawnParams:
        if not (cfg.flip or cfg.flip_vertical or cfg.turn):
            return {}
        u = draws.lanes(Purpose.FLIP, 4)
        flip = np.stack([u[0] < cfg.flip, u[1] < cfg.flip_vertical], axis=1)
        turn = {"turn": np.where(u[2] < cfg.turn, 1 + (u[3] * 3).astype(np.int64), 0)} if cfg.turn else {}
        return {"flip": flip} | turn

    def changed_rows(self, params: DrawnParams) -> BoolArray | None:
        rows: BoolArray | None = params["turn"] != 0 if "turn" in params else None
        return rows

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        for view, turn in zip(views, params["turn"], strict=True):
            view.copy_(torch.rot90(view, int(turn), (1, 2)).clone())

    def apply_on_device(self, views: Tensor, params: DeviceParams) -> Tensor:
        return turn_views(views, params.single("turn")) if "turn" in params else views


def turn_views(views: Tensor, turn: Tensor) -> Tensor:
    """The views (B, C, S, S), each turned by 0 to 3 quarters counter-clockwise.  turn: (B, 1, 1, 1).

    One quarter is a transposition and an up-down flip, two are both flips, three are a transposition and a left-right flip."""
    views = torch.where(turn.remainder(2) == 1, views.transpose(2, 3), views)
    views = torch.where((turn - 1.5).abs() < 1, views.flip(2), views)
    return torch.where(turn >= 2, views.flip(3), views)


def read_flips(params: Mapping[str, Array], n: int) -> BoolArray:
    """(B, 2) whether a row is flipped left-right and up-down; nowhere when no flip is drawn."""
    return params["flip"] if "flip" in params else np.zeros((n, 2), dtype=bool)
