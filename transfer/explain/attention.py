"""The attention weights of a ViT, layer by layer, and which of its tokens the pooled features are read from.

timm's fused attention does not compute the weights, so it is off while they are recorded and as it was afterwards: the outputs of the
network meanwhile differ by rounding, and not at all afterwards.

Shapes: B images, L layers, H heads, N tokens (P prefix tokens, then patches in rows), C outputs.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from encoders.runtime.errors import InputError
from encoders.zoo.timm_protocols import HasPrefixTokens
from transfer.protocols.finetune_network import FinetuneNetwork

CAM_ADVICE = "use occlusion, or for a CNN gradcam, gradcam++ or hirescam"


@runtime_checkable
class HasFusedAttention(Protocol):
    """An attention of timm, which computes its weights only where it is not fused."""

    fused_attn: bool


class RecordedAttention(NamedTuple):
    """weights: L of (B, H, N, N), rows sum to 1.  logits: (B, C), computed from them.  read: (N,) share of each token in the pooled
    features.  prefix: P."""

    weights: list[Tensor]
    logits: Tensor
    read: Tensor
    prefix: int


@contextmanager
def recording(backbone: nn.Module) -> Iterator[list[Tensor]]:
    """Yields the list that receives the attention weights of each forward pass in the block, in the order of the layers."""
    weights: list[Tensor] = []
    layers = {module: dropout for module in backbone.modules() if (dropout := dict(module.named_children()).get("attn_drop")) is not None}
    fused = {module: module.fused_attn for module in layers if isinstance(module, HasFusedAttention)}
    hooks = [dropout.register_forward_hook(lambda module, given, output: weights.append(output)) for dropout in layers.values()]
    try:
        for module in fused:
            module.fused_attn = False
        yield weights
    finally:
        for module, before in fused.items():
            module.fused_attn = before
        for hook in hooks:
            hook.remove()


def record_attention(network: FinetuneNetwork, x: Tensor) -> RecordedAttention:
    """The attention weights of the images (B, K, S, S), in a graph from which gradients can be taken.

    Raises InputError for a network that is no plain ViT."""
    backbone = network.backbone
    with recording(backbone) as weights, torch.enable_grad():
        logits = network(x.detach().requires_grad_())
    name, prefix = type(backbone).__name__, int(backbone.num_prefix_tokens) if isinstance(backbone, HasPrefixTokens) else 0
    if not weights:
        raise InputError(f"{name} has no attention whose weights can be read, so it has no rollout; {CAM_ADVICE}")
    tokens = weights[0].shape[-1]
    whole = all(w.ndim == 4 and w.shape[0] == len(x) and w.shape[-2:] == (tokens, tokens) for w in weights)
    if not whole or math.isqrt(tokens - prefix) ** 2 != tokens - prefix:
        raise InputError(
            f"the attention of {name} is not between all tokens of an image in every layer, so it has no rollout; {CAM_ADVICE}"
        )
    return RecordedAttention(weights, logits, read_out(backbone, tokens, prefix).to(x.device), prefix)


def read_out(backbone: nn.Module, tokens: int, prefix: int) -> Tensor:
    """(N,) the share of each token in the pooled features: 1 for a class token, equal for a mean, and for the two of a distilled network.

    Raises InputError for other pooling."""
    pool, share = str(getattr(backbone, "global_pool", "")), torch.zeros(tokens)
    if pool == "token" and prefix:
        share[: 2 if hasattr(backbone, "dist_token") else 1] = 1.0  # a distilled network reads both of its tokens
    elif pool == "avg":
        share[0 if getattr(backbone, "pool_include_prefix", False) else prefix :] = 1.0
    else:
        raise InputError(f"{type(backbone).__name__} pools its tokens by {pool!r}, which a rollout does not follow; {CAM_ADVICE}")
    return share / share.sum()


def tokens_to_cells(relevance: Tensor, prefix: int) -> Tensor:
    """(B, h, w) of the patches.  relevance: (B, N)."""
    side = math.isqrt(relevance.shape[1] - prefix)
    return relevance[:, prefix:].reshape(len(relevance), side, side)
