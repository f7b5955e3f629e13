"""Attention rollout.  Source: Abnar and Zuidema 2020 (arXiv:2005.00928), sec. 3: mean of the heads, half of it the residual.

It does not depend on the label: it says where the network looks, whatever it then decides.
"""

import torch
from torch import Tensor

from transfer.explain.attention import record_attention, tokens_to_cells
from transfer.explain.contract import EvidenceMaps, Method, enlarge_maps
from transfer.protocols.finetune_network import FinetuneNetwork


def roll_out(weights: list[Tensor], read: Tensor) -> Tensor:
    """(B, N): how much of each input token arrives in the pooled features.  weights: L of (B, H, N, N).  read: (N,)."""
    identity = torch.eye(weights[0].shape[-1], device=weights[0].device)
    flow = identity.expand(len(weights[0]), -1, -1)
    for layer in weights:
        flow = (0.5 * layer.detach().mean(1) + 0.5 * identity) @ flow  # rows of both sum to 1
    return read @ flow


def explain_rollout(network: FinetuneNetwork, x: Tensor, label: Tensor) -> EvidenceMaps:
    """See the contract."""
    attention = record_attention(network, x)
    return enlarge_maps(tokens_to_cells(roll_out(attention.weights, attention.read), attention.prefix), x.shape[-1])


ROLLOUT = Method("rollout", "attention rollout", "Abnar and Zuidema 2020, arXiv:2005.00928", "attention", explain_rollout)
