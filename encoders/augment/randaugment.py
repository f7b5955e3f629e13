"""RandAugment: for each image a few operations out of a list, drawn at random, all of one strength.

Source: Cubuk et al. 2020, arXiv:1909.13719, algorithm 1. Departures: the list is one that the modality tolerates (`randaugment_settings`);
operations are drawn without replacement and applied in the fixed order of `AUGMENTATIONS`; an operation changes an image by a random amount
up to the strength (the paper's "random magnitude", which it found to be as good), in both directions.

The operations are those of `AUGMENTATIONS`, with their own random numbers. An image for which one is drawn gets its parameters from here;
any other image keeps those of the other settings.

Shapes: B images, K operations of the list.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from encoders.augment.config import AUGMENTATIONS, Augment
from encoders.augment.operation import DrawnParams, Draws
from encoders.augment.randaugment_settings import RandAugmentName
from encoders.runtime.arrays import Array, BoolArray
from encoders.runtime.json_types import Json
from encoders.runtime.random import Purpose


class StrongOperation(NamedTuple):
    """operation: of `AUGMENTATIONS`.  settings: at a share of the full strength, for every image.

    idle: its parameters as they are for an image without it.  changes: those that belong to this entry; all by default."""

    operation: str
    settings: Callable[[float], Mapping[str, Json]]
    idle: Mapping[str, ArrayLike]
    changes: tuple[str, ...] = ()

    @property
    def changed_params(self) -> tuple[str, ...]:
        """The parameters of this entry."""
        return self.changes or tuple(self.idle)


_UNTURNED = {"angle": 0.0, "zoom": 1.0}
STRONG_OPERATIONS: dict[RandAugmentName, StrongOperation] = {
    "rotate": StrongOperation("rotate", lambda s: {"rotate": 30 * s}, _UNTURNED, ("angle",)),
    "zoom": StrongOperation("rotate", lambda s: {"scale": [1 / (1 + 0.3 * s), 1 + 0.3 * s]}, _UNTURNED, ("zoom",)),
    "elastic": StrongOperation("elastic", lambda s: {"elastic": 1.0, "elastic_px": 12 * s}, {"elastic": 0.0}),
    "stain": StrongOperation("stain", lambda s: {"stain": 1.0, "stain_sigma": 0.2 * s}, {"stain_factor": 1.0, "stain_shift": 0.0}),
    "brightness": StrongOperation("brightness", lambda s: {"jitter": 1.0, "brightness": 0.5 * s}, {"brightness": 1.0}),
    "contrast": StrongOperation("contrast", lambda s: {"jitter": 1.0, "contrast": 0.5 * s}, {"contrast": 1.0}),
    "saturation": StrongOperation("saturation", lambda s: {"jitter": 1.0, "saturation": 0.5 * s}, {"saturation": 1.0}),
    "hue": StrongOperation("hue", lambda s: {"jitter": 1.0, "hue": 0.1 * s}, {"hue": 0.0}),
    "window": StrongOperation("window", lambda s: {"window": 1.0, "window_width": 0.3 * s}, {"window": (0.0, 1.0)}),
    "gamma": StrongOperation("gamma", lambda s: {"gamma": 1.0, "gamma_range": [1 / (1 + s), 1 + s]}, {"gamma": 1.0}),
    "clahe": StrongOperation("clahe", lambda s: {"clahe": 1.0, "clahe_limit": [1.0, 1 + 3 * s]}, {"clahe": 0.0}),
    "blur": StrongOperation("blur", lambda s: {"blur": 1.0, "blur_sigma": [0.1, 0.1 + 1.9 * s]}, {"blur": 0.0}),
    "noise": StrongOperation("noise", lambda s: {"noise": 1.0, "noise_std": [0.0, 0.05 * s]}, {"noise": 0.0, "noise_at": 0.0}),
    "cutout": StrongOperation("cutout", lambda s: {"cutout": 1.0, "cutout_area": [0.02, 0.02 + 0.28 * s]}, {"cutout": 0.0}),
}


def add_drawn_operations(cfg: Augment, draws: Draws, params: DrawnParams) -> DrawnParams:
    """The parameters with those of the operations that are drawn for each image.  params: of the other settings."""
    if not cfg.randaugment:
        return params
    names = cfg.randaugment_names
    for name, picked in zip(names, pick_operations(draws, len(names), cfg.randaugment).T, strict=True):
        entry = STRONG_OPERATIONS[name]
        strong = AUGMENTATIONS[entry.operation].draw(settings_at(name, cfg.randaugment_strength), draws)
        for parameter, idle in entry.idle.items():
            others = params.get(parameter)
            others = np.broadcast_to(np.asarray(idle), strong[parameter].shape) if others is None else others
            params[parameter] = _choose(picked, strong[parameter], others) if parameter in entry.changed_params else np.array(others)
    return params


def pick_operations(draws: Draws, k: int, n: int) -> BoolArray:
    """(B, K) which n different operations are drawn for each image."""
    order = np.argsort(draws.lanes(Purpose.RANDAUGMENT, k), axis=0, kind="stable")[:n].T  # (B, n)
    picked = np.zeros((len(draws), k), dtype=bool)
    np.put_along_axis(picked, order, True, axis=1)
    return picked


@lru_cache
def settings_at(name: RandAugmentName, strength: float) -> Augment:
    """The settings that turn an operation on for every image, at a strength from 0 to 10."""
    return Augment.model_validate(STRONG_OPERATIONS[name].settings(strength / 10))


def _choose(picked: BoolArray, strong: Array, others: Array) -> Array:
    """(B, ...) the rows of `strong` where `picked` (B,), elsewhere those of `others`."""
    chosen: Array = np.where(picked.reshape(-1, *[1] * (strong.ndim - 1)), strong, others)
    return chosen
