"""Whether a map points at the finding, where a mask says where that is.

Pointing game  whether the largest value is in the mask.  Source: Zhang et al. 2018 (doi:10.1007/s11263-017-1059-x), sec. 4; without the
               paper's tolerance of 15 pixels.
Energy         share of the map's sum that is in the mask.  Source: Wang et al. 2020, Score-CAM (arXiv:1910.01279), sec. 4.3.

Shapes: n images, H x W pixels of a store, S side of the input.
"""

import numpy as np
import torch
from torch import Tensor

from encoders.runtime.arrays import BoolArray, FloatArray
from encoders.zoo.card import Preprocess
from encoders.zoo.preprocess import resize_input


def resize_mask(mask: BoolArray, preprocess: Preprocess) -> BoolArray:
    """(S, S): the mask (H, W) where the network sees it."""
    x = torch.from_numpy(np.ascontiguousarray(mask, dtype=np.float32))[None, None]
    return np.asarray(resize_input(x, preprocess)[0, 0].numpy() > 0.5)


def score_pointing(maps: Tensor, masks: BoolArray) -> FloatArray:
    """(n,) 1 where the largest value of a map (n, S, S) is in the mask (n, S, S), 0 elsewhere and for a map of zeros."""
    flat = maps.flatten(1).cpu().numpy()
    largest = flat.argmax(axis=1)
    hit = masks.reshape(len(masks), -1)[np.arange(len(flat)), largest]
    return np.asarray(hit & (flat.max(axis=1) > 0), dtype=np.float64)


def score_centre(masks: BoolArray) -> FloatArray:
    """(n,) 1 where the centre of the image is in the mask (n, S, S): the pointing game of someone who always points there."""
    return np.asarray(masks[:, masks.shape[1] // 2, masks.shape[2] // 2], dtype=np.float64)


def score_energy(maps: Tensor, masks: BoolArray) -> FloatArray:
    """(n,) share of the sum of each map (n, S, S) in its mask; 0 for a map of zeros."""
    values = maps.double().cpu().numpy()
    whole = values.sum(axis=(1, 2))
    return np.asarray((values * masks).sum(axis=(1, 2)) / np.where(whole > 0, whole, 1.0))


def score_area(masks: BoolArray) -> FloatArray:
    """(n,) share of the image that the mask covers: the energy of a map with one value everywhere."""
    return np.asarray(masks.mean(axis=(1, 2)))
