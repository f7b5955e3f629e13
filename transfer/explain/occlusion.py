"""Occlusion: how far the logit falls when a square of the image is covered.  Source: Zeiler and Fergus 2014 (arXiv:1311.2901), sec. 4.2.

A pixel has the mean over the squares that cover it. It works with every network, and needs a forward pass for each square.

Shapes: B images, K channels, S side of the input.
"""

from functools import partial

import torch
from pydantic import Field
from torch import Tensor

from encoders.runtime.config import Config
from encoders.runtime.errors import InputError
from transfer.explain.contract import EvidenceMaps, Method, chosen_logits
from transfer.protocols.finetune_network import FinetuneNetwork

PATCHES_PER_SIDE = 8  # of the default square


class OcclusionSettings(Config):
    """The square that covers the image."""

    patch: int | None = Field(None, ge=1, description="side of the square, pixels of the input; null: an eighth of the side")
    stride: int | None = Field(None, ge=1, description="distance of squares, pixels; null: half of the square")


def explain_occlusion(settings: OcclusionSettings, fill: Tensor, network: FinetuneNetwork, x: Tensor, label: Tensor) -> EvidenceMaps:
    """fill: (K, 1, 1), what covers, as prepared input. The others: see the contract."""
    side = x.shape[-1]
    patch = settings.patch or max(1, side // PATCHES_PER_SIDE)
    if patch > side:
        raise InputError(f"the occluding square has {patch} pixels and the input {side}; choose a smaller --occlusion-patch")
    starts = list_starts(side, patch, settings.stride or max(1, patch // 2))
    total, count = torch.zeros(len(x), side, side, device=x.device), torch.zeros(side, side, device=x.device)
    with torch.no_grad():
        whole = chosen_logits(network(x), label)
        for top in starts:
            for left in starts:
                covered = x.clone()
                covered[:, :, top : top + patch, left : left + patch] = fill.to(x)
                window = (..., slice(top, top + patch), slice(left, left + patch))
                total[window] += (whole - chosen_logits(network(covered), label))[:, None, None]
                count[window] += 1
    return EvidenceMaps((total / count.clamp(min=1)).clamp(min=0), len(starts))


def list_starts(side: int, patch: int, stride: int) -> list[int]:
    """Where squares start, so that they cover the whole side; the last one ends with it."""
    starts = list(range(0, side - patch + 1, stride))
    return starts if starts[-1] == side - patch else [*starts, side - patch]


def build_occlusion(settings: OcclusionSettings, fill: Tensor) -> Method:
    """The method with its settings."""
    source = "Zeiler and Fergus 2014, arXiv:1311.2901"
    return Method("occlusion", "occlusion", source, "outputs", partial(explain_occlusion, settings, fill))
