"""Flips and quarter turns: the eight symmetries of a square view."""

from collections.abc import Mapping

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from encoders.augment.operation import Augmentation, DrawnParams, Draws
from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.config import Config
from encoders.runtime.random import Purpose


class FlipSettings(Config):
    flip: float = Field(0.0, ge=0, le=1, description="probability of a left-right flip; 0 where the side matters")
    flip_vertical: float = Field(0.0, ge=0, le=1, description="probability of an up-down flip")
    turn: float = Field(0.0, ge=0, le=1, description="probability of a quarter turn, one of 90, 180, 270 degrees; square views")


class Flip(Augmentation[FlipSettings]):
    """flip: (B, 2) left-right and up-down, part of the resampling.  turn: (B,) quarter turns of the finished view."""

    settings = FlipSettings
    params = ("flip", "turn")

    def draw(self, cfg: FlipSettings, draws: Draws) -> DrawnParams:
        if not (cfg.flip or cfg.flip_vertical or cfg.turn):
            return {}
        u = draws.lanes(Purpose.FLIP, 4)
        flip = np.stack([u[0] < cfg.flip, u[1] < cfg.flip_vertical], axis=1)
        return {"flip": flip, "turn": np.where(u[2] < cfg.turn, 1 + (u[3] * 3).astype(np.int64), 0)}

    def changed_rows(self, params: DrawnParams) -> BoolArray:
        rows: BoolArray = params["turn"] != 0
        return rows

    def apply(self, views: Tensor, params: DrawnParams) -> None:
        for view, turn in zip(views, params["turn"], strict=True):
            view.copy_(torch.rot90(view, int(turn), (1, 2)).clone())


def read_flips(params: Mapping[str, Array], n: int) -> BoolArray:
    """(B, 2) whether a row is flipped left-right and up-down; nowhere when no flip is drawn."""
    return params["flip"] if "flip" in params else np.zeros((n, 2), dtype=bool)
