"""Features of several stages of one network: their pooled outputs, each L2-normalised, concatenated.

Source: Evci et al. 2022, Head2Toe (arXiv:2201.03529), sec. 3: features of all layers, pooled over positions and normalised by their norm.
Departures: whole stages (blocks of a ViT) instead of layers, and no selection among them; the probe's penalty decides.

Stages have timm's indices, those of `out_indices`: from 0, the feature maps of a CNN (0 is the stem where timm counts it, as in a ResNet)
or the blocks of a ViT. A map is averaged over its positions. A ViT gives, after its final norm, the class token if it pools by it, and
otherwise the mean of the patches. The stage `pooled` is the network's own pooled output, with all that follows the last map.

Shapes: B images, K channels of the model, S side of its input, N tokens, D width.
"""

from collections.abc import Mapping
from typing import Any, Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json
from encoders.zoo import backbone
from encoders.zoo.card import Card, Stage
from encoders.zoo.timm_protocols import HasPrefixTokens


@runtime_checkable
class HasStages(Protocol):
    """A timm network that returns the outputs of its stages or blocks; `feature_info` has one entry for each."""

    feature_info: list[dict[str, Any]]

    def forward_intermediates(self, x: Tensor, **options: object) -> Any: ...

    def forward_head(self, x: Tensor) -> Tensor: ...


class StageFeatures(nn.Module):
    """Maps prepared images (B, K, S, S) to features (B, D) of the chosen stages of `network`, each L2-normalised."""

    def __init__(self, network: nn.Module, stages: tuple[Stage, ...]):
        super().__init__()
        self.network, self.stages = network, stages
        self.indices = [stage for stage in stages if stage != "pooled"]
        names = {name for name, _ in network.named_children()}
        self.has_tokens = {"blocks", "patch_embed"} <= names and isinstance(network, HasPrefixTokens)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.normalize(features, dim=1) for features in self.stage_outputs(x)], dim=1)

    def stage_outputs(self, x: Tensor) -> list[Tensor]:
        """(B, D of the stage) pooled output of every stage, not normalised, in the order of `stages`."""
        if not self.indices:
            return [backbone.pooled_features(self.network, x)]
        network = cast(HasStages, self.network)
        options: dict[str, object] = {"norm": True, "output_fmt": "NLC", "return_prefix_tokens": True} if self.has_tokens else {}
        if "pooled" not in self.stages:
            maps = network.forward_intermediates(x, indices=self.indices, intermediates_only=True, stop_early=True, **options)
            return [self._pool(m) for m in maps]
        final, maps = network.forward_intermediates(x, indices=self.indices, **options)
        return [*(self._pool(m) for m in maps), network.forward_head(final)]

    def _pool(self, output: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """(B, D): the class token or the mean of the patches, or the mean over a map (B, D, H, W)."""
        if not self.has_tokens:
            assert isinstance(output, Tensor)
            return output.mean((2, 3))
        patches, prefix = output if isinstance(output, tuple) else (output, None)  # (B, N, D); without prefix tokens only patches
        return prefix[:, 0] if prefix is not None and getattr(self.network, "global_pool", "") == "token" else patches.mean(1)


def select_stages(network: nn.Module, stages: tuple[Stage, ...] | None) -> nn.Module:
    """`network` with the features of these stages; `network` itself for None."""
    return network if stages is None else StageFeatures(network, stages)


def inner_network(model: nn.Module) -> nn.Module:
    """The timm network whose stages give the features; `model` itself if it is one."""
    return model.network if isinstance(model, StageFeatures) else model


def stage_width(card: Card, stages: tuple[Stage, ...]) -> int:
    """D, the width of the features of these stages of the card's network.

    Raises InputError for stages that the network does not have, and for a network whose stages timm does not return."""
    with torch.device("meta"):
        network = backbone.build_backbone(card.arch, card.model_args, card.preprocess.channels, card.preprocess.size)
    widths = list_stage_widths(network, card.arch, card.model_args)
    wrong = [stage for stage in stages if stage != "pooled" and stage >= len(widths)]
    if wrong:
        raise InputError(
            f"stages={'/'.join(map(str, stages))}: {card.arch} has the stages 0 to {len(widths) - 1} (widths "
            f"{', '.join(map(str, widths))}) and `pooled`, so there is no stage {wrong[0]}"
        )
    return sum(backbone.feature_dim(network) if stage == "pooled" else widths[stage] for stage in stages)


def list_stage_widths(network: nn.Module, arch: str, model_args: Mapping[str, Json]) -> list[int]:
    """The width of every stage of a timm network, by timm's index. Raises InputError for a network whose stages timm does not return."""
    if not isinstance(network, HasStages):
        raise InputError(f"timm does not return the stages of {arch}; leave stages out")
    return [int(info["num_chs"]) for info in network.feature_info]
