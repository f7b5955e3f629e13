"""Arguments of a network that a card can state and timm's constructors do not take as plain values.

`layer_norm_eps`, `batch_norm_eps`: of every LayerNorm and BatchNorm. `stem_stride`: of the first convolution of a ResNet, 1 in MONAI.
`caffe_strides: true`: the bottlenecks of a ResNet stride in their first convolution, as in He et al. 2016 (arXiv:1512.03385), and not in
the 3x3 convolution. `global_pool: cls+mean`: the class token and the mean of the patches
side by side, as Virchow is used (arXiv:2309.07778). `mlp_layer`: the name of a class of `timm.layers`, e.g. SwiGLUPacked.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import timm.layers
import torch
from timm.models.resnet import Bottleneck, ResNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json

CLS_AND_MEAN = "cls+mean"
EPS_ARGS: dict[str, type[nn.Module]] = {"layer_norm_eps": nn.LayerNorm, "batch_norm_eps": _BatchNorm}
# Of timm's `create_model` and its builder: they are overwritten, load files, or return something else than the network.
RESERVED_ARGS = (
    "in_chans", "num_classes", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "pretrained_filter_fn",
    "checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit", "features_only", "feature_cls", "feature_cfg", "out_indices",
)  # fmt: skip
BLOCK_ARGS = ("depth", "depths", "layers", "num_blocks", "num_heads", "reg_tokens")
MAX_ARGUMENT, MAX_BLOCKS = 65_536, 2000  # the deepest networks of timm have 200 blocks
STRIDE_ARGS = ("stem_stride", "caffe_strides")


class ClsMeanPooling(nn.Module):
    """Mixed into the class of a ViT: pools to (B, 2D), the class token and the mean of the patches."""

    num_prefix_tokens: int

    def pool(self, x: Tensor, pool_type: str | None = None) -> Tensor:
        return torch.cat([x[:, 0], x[:, self.num_prefix_tokens :].mean(1)], dim=1)


def require_bounded_args(model_args: Mapping[str, Json]) -> None:
    """Raises InputError for an argument that is not the user's to set, and for a number that no network has.

    To build a network of a million blocks would take hours and all memory."""
    for key, value in model_args.items():
        if key in RESERVED_ARGS:
            raise InputError(f"{key} is no argument of a network: it follows from the card, or names files; leave it out")
        numbers = list(_list_numbers(value))
        if any(abs(number) > MAX_ARGUMENT for number in numbers):
            raise InputError(f"{key} is {value!r:.60}, expected numbers up to {MAX_ARGUMENT:,}")
        if key in BLOCK_ARGS and sum(numbers) > MAX_BLOCKS:
            raise InputError(f"{key} is {value!r:.60}, expected at most {MAX_BLOCKS:,} blocks")


def _list_numbers(value: Json) -> Iterator[int | float]:
    """The numbers in a value and in its lists and mappings."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _list_numbers(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _list_numbers(inner)


def to_timm_args(model_args: Mapping[str, Json]) -> dict[str, Any]:
    """The arguments for timm's constructor. Raises InputError for a layer that timm does not have."""
    args: dict[str, Any] = {key: value for key, value in model_args.items() if key not in (*EPS_ARGS, *STRIDE_ARGS)}
    if args.get("global_pool") == CLS_AND_MEAN:
        args["global_pool"] = "token"
    if isinstance(args.get("mlp_layer"), str):
        layer = getattr(timm.layers, args["mlp_layer"], None)
        if not callable(layer):  # a class, or a partial of one, as SwiGLUPacked is
            raise InputError(f"mlp_layer is {args['mlp_layer']!r}, expected a class of timm.layers, e.g. SwiGLUPacked")
        args["mlp_layer"] = layer
    return args


def apply_own_args(network: nn.Module, model_args: Mapping[str, Json]) -> None:
    """Sets in place what `to_timm_args` leaves out. Raises InputError for an argument that has no effect on this network."""
    for key, kind in EPS_ARGS.items():
        if key in model_args:
            _set_eps(network, key, kind, model_args[key])
    if any(key in model_args for key in STRIDE_ARGS):
        _set_strides(network, model_args)
    if model_args.get("global_pool") == CLS_AND_MEAN:
        if not hasattr(network, "pool") or getattr(network, "cls_token", None) is None:
            raise InputError(f"global_pool={CLS_AND_MEAN} needs a network with a class token; {type(network).__name__} has none")
        kind = type(network)
        network.__class__ = type(f"{kind.__name__}WithClsMean", (ClsMeanPooling, kind), {"__module__": kind.__module__})
        network.head_hidden_size = 2 * int(network.num_features)  # type: ignore[arg-type,assignment]


def _set_eps(network: nn.Module, key: str, kind: type[nn.Module], value: Json) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise InputError(f"{key} is {value!r}, expected a number above 0, e.g. 1e-6")
    layers = [layer for layer in network.modules() if isinstance(layer, kind)]
    if not layers:
        raise InputError(f"{key} has no effect: {type(network).__name__} has no {kind.__name__.strip('_')}")
    for layer in layers:
        vars(layer)["eps"] = float(value)  # a plain attribute of every norm layer


def _set_strides(network: nn.Module, model_args: Mapping[str, Json]) -> None:
    if not isinstance(network, ResNet) or not isinstance(network.conv1, nn.Conv2d):
        raise InputError(f"{' and '.join(STRIDE_ARGS)} belong to a ResNet with one stem convolution; this is a {type(network).__name__}")
    if (stride := model_args.get("stem_stride")) is not None:
        if stride not in (1, 2) or isinstance(stride, bool):
            raise InputError(f"stem_stride is {stride!r}, expected 1 or 2")
        network.conv1.stride = (int(str(stride)),) * 2
    if model_args.get("caffe_strides"):
        blocks = [block for block in network.modules() if isinstance(block, Bottleneck)]
        if not blocks:
            raise InputError("caffe_strides has no effect: the network has no bottlenecks")
        for block in blocks:
            block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)
