"""Parts of a timm network that `nn.Module` does not declare, as protocols for `isinstance`.

`isinstance` sees methods and plain attributes. It does not see submodules, parameters or buffers, which `nn.Module` keeps in dictionaries
of its own: look those up with `named_children` or `get_submodule`.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class HasTokenFeatures(Protocol):
    """Returns features before pooling: (B, N, D), (B, D, H, W) or (B, H, W, D)."""

    def forward_features(self, x: Tensor) -> Tensor: ...


@runtime_checkable
class HasPrefixTokens(Protocol):
    """Puts class and register tokens before the patch tokens."""

    num_prefix_tokens: int


@runtime_checkable
class HasOutputFormat(Protocol):
    """Names the layout of its last feature map, e.g. NCHW or NHWC."""

    output_fmt: object


@runtime_checkable
class HasPatchSize(Protocol):
    """Cuts images into patches; the side or sides of one, in pixels."""

    patch_size: int | tuple[int, ...] | None


@runtime_checkable
class HasNumFeatures(Protocol):
    """Width of the last feature map or of the tokens."""

    num_features: int


@runtime_checkable
class HasHeadHiddenSize(Protocol):
    """Width of the pooled features, where a layer follows the pooling."""

    head_hidden_size: int | None


@runtime_checkable
class HasDefaultCfg(Protocol):
    """timm's record of the network: names of the first convolution and of the classifier, among others."""

    default_cfg: Mapping[str, object]
