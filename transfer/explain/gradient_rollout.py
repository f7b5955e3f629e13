"""Gradient-weighted attention.  Source: Chefer, Gur, Wolf 2021 (arXiv:2103.15679), eq. 5 and 6, for self-attention.

Departure: a network that pools by the mean of its tokens is read at all of them, where the paper reads the class token.
"""

import torch
from torch import Tensor

from transfer.explain.attention import record_attention, tokens_to_cells
from transfer.explain.contract import EvidenceMaps, Method, chosen_logits, enlarge_maps
from transfer.protocols.finetune_network import FinetuneNetwork


def accumulate_relevance(weights: list[Tensor], gradients: list[Tensor], read: Tensor) -> Tensor:
    """(B, N) relevance of each input token.  weights, gradients: L of (B, H, N, N).  read: (N,).

    The identity with which relevance starts is left out of the sum: it says nothing of a place, and small gradients would be lost in it."""
    gained = torch.zeros_like(weights[0][:, 0])
    for layer, gradient in zip(weights, gradients, strict=True):
        own = (gradient * layer).clamp(min=0).mean(1)
        gained = gained + own + own @ gained
    return read @ gained


def explain_gradient_rollout(network: FinetuneNetwork, x: Tensor, label: Tensor) -> EvidenceMaps:
    """See the contract."""
    attention = record_attention(network, x)
    gradients = torch.autograd.grad(chosen_logits(attention.logits, label).sum(), attention.weights)
    relevance = accumulate_relevance([layer.detach() for layer in attention.weights], list(gradients), attention.read)
    return enlarge_maps(tokens_to_cells(relevance, attention.prefix), x.shape[-1])


GRADIENT_ROLLOUT = Method(
    "gradient_rollout", "gradient-weighted attention", "Chefer et al. 2021, arXiv:2103.15679", "attention", explain_gradient_rollout
)
