"""Deletion and insertion: how fast the probability of the label falls, or rises, as the pixels of a map are taken in its order.

Source: Petsiuk, Das, Saenko 2018, RISE (arXiv:1806.07421), sec. 4.3. Deletion covers pixels by the mean of the card, the largest first, and
a small area is good; insertion uncovers them in a blurred image, and a large one is good.
Departures: 32 steps; the blur has a standard deviation of an eighth of the side, as findings on radiographs are larger than the edges
that the paper's blur hides; pixels with equal values come in random order, not row by row.

Shapes: n images, K channels, S side of the input, T steps.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.runtime.arrays import FloatArray, IntArray
from encoders.runtime.random import Purpose, generator
from transfer.trained.predict import TrainedModel

DELETION_STEPS = 32
BLUR = 1 / 8  # standard deviation, of the side


def measure_deletion(model: TrainedModel, x: Tensor, label: IntArray, maps: Tensor) -> tuple[FloatArray, FloatArray]:
    """(n,) areas under the curves of deletion and of insertion, of the calibrated probability.  x: (n, K, S, S).  maps: (n, S, S)."""
    order = rank_pixels(maps)
    deletion = probability_curve(model, x, torch.zeros_like(x), label, order)
    insertion = probability_curve(model, blur_images(x), x, label, order)
    return area_under_curve(deletion), area_under_curve(insertion)


def rank_pixels(maps: Tensor) -> Tensor:
    """(n, S * S): the place of each pixel in the order from the largest value; equal values at random, the same at every call."""
    flat = maps.flatten(1).double().cpu().numpy()
    tie = generator(0, Purpose.EXPLAIN, 1).random(flat.shape[1])
    ranks = np.empty(flat.shape, np.int64)
    for i, values in enumerate(flat):
        ranks[i, np.lexsort((tie, -values))] = np.arange(len(values))
    return torch.from_numpy(ranks)


def probability_curve(
    model: TrainedModel, start: Tensor, end: Tensor, label: IntArray, ranks: Tensor, steps: int = DELETION_STEPS
) -> FloatArray:
    """(n, T + 1) probability of each image's label while its pixels change from those of `start` to those of `end`, by rank."""
    ranks, pixels = ranks.to(start.device).reshape(len(start), 1, *start.shape[-2:]), start.shape[-1] * start.shape[-2]
    rows = np.arange(len(start))
    curve = [model.probabilities(torch.where(ranks < round(pixels * step / steps), end, start))[rows, label] for step in range(steps + 1)]
    return np.stack(curve, axis=1)


def area_under_curve(curve: FloatArray) -> FloatArray:
    """(n,) the mean height of curves (n, T + 1), by trapezoids over [0, 1]."""
    return np.asarray((curve[:, 1:] + curve[:, :-1]).mean(axis=1) / 2)


def blur_images(x: Tensor) -> Tensor:
    """(n, K, S, S) convolved with a Gaussian, edges repeated."""
    sigma = BLUR * x.shape[-1]
    radius = math.ceil(3 * sigma)
    line = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    weight = torch.exp(-0.5 * (line / sigma) ** 2)
    kernel = (weight / weight.sum()).expand(x.shape[1], 1, 1, -1)
    across = F.conv2d(F.pad(x, (radius, radius, 0, 0), mode="replicate"), kernel, groups=x.shape[1])
    return F.conv2d(F.pad(across, (0, 0, radius, radius), mode="replicate"), kernel.transpose(2, 3), groups=x.shape[1])
