"""`config.json` in timm's form, as `timm.create_model("local-dir:FOLDER")`, `hf-hub:` names and transformers' TimmWrapper read it."""

from typing import Any

from torch import nn

from encoders.runtime.json_types import Json
from encoders.zoo import backbone
from encoders.zoo.card import Card
from encoders.zoo.network_args import CLS_AND_MEAN, to_timm_args
from encoders.zoo.timm_protocols import HasDefaultCfg

CROP_MODES = {"crop": "center", "squash": "squash", "pad": "border"}  # Preprocess.resize -> timm's crop_mode
ARCH_FIELDS = ("first_conv", "classifier", "fixed_input_size", "pool_size")  # of timm's record of an architecture, true for any weights


def build_timm_config(card: Card, model: nn.Module) -> dict[str, Json]:
    """The content of config.json for the network of an encoder.

    Arguments that JSON cannot state to timm are left out; see `list_code_arguments`."""
    p = card.preprocess
    mean, std = p.unit_mean_std  # timm knows only [0, 1]
    record = model.default_cfg if isinstance(model, HasDefaultCfg) else {}
    preprocess: dict[str, Json] = {
        "input_size": [p.channels, p.size, p.size],
        "interpolation": p.interpolation,
        "mean": list(mean),
        "std": list(std),
        "crop_pct": p.crop_pct,
        "crop_mode": CROP_MODES[p.resize],
    }
    own: dict[str, Any] = {key: value for key in ARCH_FIELDS if (value := record.get(key)) is not None}
    config: dict[str, Json] = {
        "architecture": card.arch,
        "num_classes": 0,
        "num_features": backbone.feature_dim(model),
        "model_args": config_arguments(card),
        "pretrained_cfg": {**own, **preprocess, "num_classes": 0, "license": card.licence, "custom_load": False},
    }
    pooling = card.model_args.get("global_pool")
    return config if pooling in (None, CLS_AND_MEAN) else {**config, "global_pool": pooling}


def config_arguments(card: Card) -> dict[str, Any]:
    """The arguments of the network that config.json states."""
    args: dict[str, Any] = {key: value for key, value in card.model_args.items() if key not in _list_own_arguments(card)}
    if args.get("global_pool") == CLS_AND_MEAN:
        args["global_pool"] = "token"
    if backbone.has_fixed_size(card.arch):
        args.setdefault("img_size", card.preprocess.size)
    return args if card.preprocess.channels == 3 else {**args, "in_chans": card.preprocess.channels}


def list_code_arguments(card: Card) -> list[str]:
    """What config.json cannot state, so that the code that loads the network must: `layer_norm_eps`, `mlp_layer`, ...; [] for most."""
    listed = _list_own_arguments(card)
    listed += ["global_pool"] if card.model_args.get("global_pool") == CLS_AND_MEAN else []
    return listed + (["stages"] if card.stages is not None else [])


def _list_own_arguments(card: Card) -> list[str]:
    """The arguments that timm's constructors do not take, and those that are Python objects there."""
    return [key for key in card.model_args if key not in to_timm_args(card.model_args) or key == "mlp_layer"]


def write_loading_code(card: Card, source: str) -> str:
    """Python that loads the network with timm alone and computes `features` of an `image` (PIL).

    source: `local-dir:FOLDER` or `hf-hub:OWNER/NAME`."""
    layer = card.model_args.get("mlp_layer")
    own = f", mlp_layer=timm.layers.{layer}" if isinstance(layer, str) else ""
    lines = [
        "import timm",
        "import torch",
        "",
        f'model = timm.create_model("{source}", pretrained=True, num_classes=0{own}).eval()',
    ]
    for key, kind in (("layer_norm_eps", "nn.LayerNorm"), ("batch_norm_eps", "nn.modules.batchnorm._BatchNorm")):
        if key in card.model_args:
            lines.append(f"for layer in model.modules():  # config.json cannot state {key}")
            lines += [f"    if isinstance(layer, torch.{kind}):", f"        layer.eps = {card.model_args[key]!r}"]
    if "stem_stride" in card.model_args:
        lines.append(f"model.conv1.stride = ({card.model_args['stem_stride']},) * 2  # config.json cannot state it")
    if card.model_args.get("caffe_strides"):
        lines.append("for block in model.modules():  # config.json cannot state caffe_strides")
        lines.append("    if isinstance(block, timm.models.resnet.Bottleneck):")
        lines.append("        block.conv1.stride, block.conv2.stride = block.conv2.stride, (1, 1)")
    mode = "L" if card.preprocess.channels == 1 else "RGB"
    lines += [
        "transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)",
        "with torch.inference_mode():",
        f'    x = transform(image.convert("{mode}"))[None]',
    ]
    if card.model_args.get("global_pool") == CLS_AND_MEAN:
        lines += [
            "    tokens = model.forward_features(x)",
            "    patches = tokens[:, model.num_prefix_tokens :]",
            f"    features = torch.cat([tokens[:, 0], patches.mean(1)], dim=1)  # (1, {card.dim})",
        ]
    else:
        lines.append(f"    features = model(x)  # (1, {backbone_dim(card)})")
    return "\n".join(lines)


def backbone_dim(card: Card) -> str:
    """The width of the network's own features, for a comment."""
    return "D" if card.stages is not None else str(card.dim)
