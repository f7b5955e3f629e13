"""The contract of a method of explanation, and what all methods share.

A map says how much each pixel speaks for a label: 0 or more, in units of the method. It is a statement about the network, not the patient.

Shapes: B images, K channels, S side of the input, h x w cells of a network's own grid.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from encoders.runtime.errors import InputError
from transfer.protocols.finetune_network import FinetuneNetwork


class EvidenceMaps(NamedTuple):
    """maps: (B, S, S), 0 or more.  cells: side of the grid on which the method knows them, for random maps that are as smooth."""

    maps: Tensor
    cells: int


ExplainBatch = Callable[[FinetuneNetwork, Tensor, Tensor], EvidenceMaps]  # network, (B, K, S, S) prepared images, (B,) outputs


@dataclass(frozen=True)
class Method:
    """One method. needs: what it reads of a network: its last map of features, its attention, or nothing but its outputs."""

    name: str
    title: str
    source: str
    needs: str
    explain: ExplainBatch


def enlarge_maps(cells: Tensor, side: int) -> EvidenceMaps:
    """Maps (B, h, w) of a network's grid at the size of its input, bilinear, without what speaks against the label."""
    positive = cells.detach().float().clamp(min=0)
    large = F.interpolate(positive[:, None], (side, side), mode="bilinear", align_corners=False)[:, 0]
    return EvidenceMaps(large, max(cells.shape[-2:]))


def chosen_logits(logits: Tensor, label: Tensor) -> Tensor:
    """(B,) the logit of each image's label.  logits: (B, C).  label: (B,)."""
    return logits.gather(1, label[:, None])[:, 0]


def require_tensor(x: object) -> Tensor:
    """The prepared input of an encoder of one network. Raises InputError for one of parts, which has an input for each."""
    if not isinstance(x, Tensor):
        raise InputError("an encoder made of parts has an input for each part, and a map is of one; explain one of its parts")
    return x
