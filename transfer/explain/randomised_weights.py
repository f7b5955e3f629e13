"""The sanity check: a map of a network whose weights were destroyed should not look like the map of the trained network.

Source: Adebayo et al. 2018 (arXiv:1810.03292), sec. 4.1, cascading randomisation: the head first, then unit after unit from the top.
Departure: the values of each tensor are permuted, not drawn again. A fresh residual block of timm begins as the identity, so that new
values would leave the network above the stem almost as it was.

Shapes: n images, S side of the input.
"""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from encoders.runtime.arrays import FloatArray
from encoders.runtime.random import Purpose, permutation
from transfer.protocols.finetune_network import FinetuneNetwork
from transfer.strategies.units import list_units

UNCHANGED = 0.5  # rank correlation with all weights randomised, from which a method is flagged
SSIM_WINDOW = 7  # pixels; the constants below are those of Wang et al. 2004 for a range of 1
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def iterate_randomised(network: FinetuneNetwork, seed: int = 0) -> Iterator[tuple[str, FinetuneNetwork]]:
    """Yields what is randomised so far, and a network with that; the last one has no trained tensor left. The given one stays as it is."""
    broken = copy.deepcopy(network).eval()
    state = dict(broken.named_parameters()) | dict(broken.named_buffers())
    units = [frozenset(f"backbone.{name}" for name in unit) for unit in list_units(broken.backbone)]
    stages = [("head", {"head.weight", "head.bias"})]
    for i, unit in enumerate(units):
        owners = {name.rsplit(".", 1)[0] for name in unit}
        stages.append((f"{i + 1} of {len(units)} units", {name for name in state if name in unit or name.rsplit(".", 1)[0] in owners}))
    left = set(state) - {name for _, names in stages for name in names}
    stages[-1] = (stages[-1][0], stages[-1][1] | left)
    order = sorted(state)
    for title, names in stages:
        for name in sorted(names):
            permute_values(state[name], seed, order.index(name))
        yield title, broken


def permute_values(tensor: Tensor, seed: int, position: int) -> None:
    """Permutes the values of a tensor in place.  position: of the tensor, so that each has a permutation of its own."""
    with torch.no_grad():
        order = torch.from_numpy(permutation(seed, Purpose.EXPLAIN, 100 + position, tensor.numel())).to(tensor.device)
        tensor.copy_(tensor.flatten()[order].reshape(tensor.shape))


def rank_correlation(a: Tensor, b: Tensor) -> FloatArray:
    """(n,) Spearman's correlation of the pixels of maps (n, S, S); 0 where a map has one value everywhere."""
    from scipy.stats import rankdata

    x, y = (rankdata(maps.flatten(1).double().cpu().numpy(), axis=1) for maps in (a, b))
    x, y = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (x, y))
    norm = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.asarray((x * y).sum(axis=1) / np.where(norm > 0, norm, 1.0))


def structural_similarity(a: Tensor, b: Tensor) -> FloatArray:
    """(n,) mean SSIM of maps (n, S, S), each divided by its largest value, with a uniform window.  Source: Wang et al. 2004, eq. 13."""
    from scipy.ndimage import uniform_filter

    x, y = (scale_to_one(maps).double().cpu().numpy() for maps in (a, b))
    edge, n = SSIM_WINDOW // 2, SSIM_WINDOW**2

    def mean(values: FloatArray) -> FloatArray:
        whole = uniform_filter(values, size=(0, SSIM_WINDOW, SSIM_WINDOW))
        return np.asarray(whole[:, edge : whole.shape[1] - edge, edge : whole.shape[2] - edge])

    mx, my = mean(x), mean(y)
    vx, vy, vxy = (n / (n - 1) * (mean(u * v) - mean(u) * mean(v)) for u, v in ((x, x), (y, y), (x, y)))
    quality = (2 * mx * my + SSIM_C1) * (2 * vxy + SSIM_C2) / ((mx**2 + my**2 + SSIM_C1) * (vx + vy + SSIM_C2))
    return np.asarray(quality.mean(axis=(1, 2)))


def scale_to_one(maps: Tensor) -> Tensor:
    """Maps (n, S, S) divided by their largest value; maps of zeros stay."""
    largest = maps.amax((1, 2), keepdim=True)
    return maps / torch.where(largest > 0, largest, 1.0)
