"""What a network must be able to do before it trains, and the weights that it starts from."""

from typing import Protocol, runtime_checkable

import timm
from timm.layers import resample_abs_pos_embed
from torch import nn

from encoders.runtime.errors import InputError
from encoders.zoo.encoder import Encoder
from encoders.zoo.timm_protocols import HasPrefixTokens

PLAIN_VIT_MODULES = ("timm.models.vision_transformer", "timm.models.deit")  # where timm defines plain ViTs


@runtime_checkable
class HasGradCheckpointing(Protocol):
    """A timm network that can recompute activations in the backward pass."""

    def set_grad_checkpointing(self, enable: bool = True) -> None: ...


@runtime_checkable
class HasPatchGrid(Protocol):
    """A patch embedding that knows how many rows and columns of patches an image has."""

    grid_size: tuple[int, int]


def is_plain_vit(arch: str) -> bool:
    """Whether timm defines the network where its plain ViTs are. Works before the network is built: no other accepts a ViT's arguments."""
    return timm.model_entrypoint(arch).__module__ in PLAIN_VIT_MODULES


def enable_grad_checkpointing(network: nn.Module, arch: str) -> None:
    """Recomputes activations in the backward pass instead of storing them. Raises InputError for a network that does not support it."""
    unsupported = InputError(f"checkpointing=true: {arch} has no gradient checkpointing in timm; leave it out and raise accumulate")
    if not isinstance(network, HasGradCheckpointing):
        raise unsupported
    try:
        network.set_grad_checkpointing(True)
    except (AttributeError, AssertionError) as error:
        raise unsupported from error


def load_initial_weights(network: nn.Module, initial_encoder: Encoder) -> None:
    """Loads all weights of the encoder into `network`; a position table is resampled to the size of the new one.

    Raises InputError if a weight has no counterpart."""
    state = dict(initial_encoder.model.state_dict())
    own = network.state_dict()
    if "pos_embed" in own and own["pos_embed"].shape != state["pos_embed"].shape:
        patches = network.get_submodule("patch_embed")
        assert isinstance(patches, HasPatchGrid)  # timm's networks with such a table have one
        grid = [int(n) for n in patches.grid_size]
        prefix = network.num_prefix_tokens if isinstance(network, HasPrefixTokens) else 1
        state["pos_embed"] = resample_abs_pos_embed(state["pos_embed"], grid, num_prefix_tokens=prefix)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise InputError(f"the weights of {initial_encoder.card.name} do not fit {initial_encoder.card.arch}: {error}") from error
