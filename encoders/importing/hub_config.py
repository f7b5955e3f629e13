"""The description that a folder of timm, transformers or open_clip gives of its weights: network, input, licence and weight file.

timm            config.json with `architecture` and `pretrained_cfg`.  Its `tag` and `license` are those of the weights that the network was
                first built with, so they say nothing about what was trained later, and are not read.
transformers    config.json with `model_type`, and preprocessor_config.json.  TimmWrapper's config.json is timm's without mean and std.
open_clip       open_clip_config.json with `model_cfg` and `preprocess_cfg`.

A value that a folder does not state is None: it is never guessed. The licence is that in the header of README.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from encoders.importing.preprocessor_config import InputDescription, read_preprocessor, read_timm_input
from encoders.runtime.errors import InputError
from encoders.runtime.files import read_json
from encoders.runtime.json_types import Json
from encoders.runtime.limited_yaml import parse_yaml

HubLibrary = Literal["timm", "transformers", "open_clip"]
OPEN_CLIP_CONFIG = "open_clip_config.json"
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".tar", ".ckpt", ".torch")
# Names of transformers' activations in timm; None: the default. Source: transformers/activations.py, timm/layers/create_act.py.
ACTIVATIONS = {
    "gelu": None,
    "quick_gelu": "quick_gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
# Families of transformers that resample position embeddings by its rule: bicubic, not antialiased.
HF_POSITIONS = ("vit", "vit_mae", "dinov2", "dinov2_with_registers", "deit", "ijepa")


@dataclass(frozen=True)
class HubConfig:
    """What a folder states about its weights. None: not stated."""

    folder: Path
    library: HubLibrary
    weight_file: Path
    model_type: str | None = None  # transformers' name of the family
    arch: str | None = None  # timm's name; transformers states the family, and the tensors tell the network
    model_args: Mapping[str, Json] = field(default_factory=dict)  # arguments of the network that tensors do not show
    native_size: int | None = None  # side that the position embeddings were made for, pixels
    input: InputDescription = field(default_factory=InputDescription)
    position_resampling: Literal["timm", "hf"] | None = None
    licence: str | None = None
    source: str | None = None  # hub name and commit, if the folder is a snapshot of the hub's cache
    notes: tuple[str, ...] = ()  # what the folder states and a card cannot

    @property
    def preprocess(self) -> dict[str, Json]:
        """The fields of a card's preprocessing that the folder states."""
        return self.input.stated()


def is_hub_folder(folder: Path) -> bool:
    """Whether the folder has a description that `read_hub_config` reads."""
    return (folder / "config.json").is_file() or (folder / OPEN_CLIP_CONFIG).is_file()


def read_hub_config(folder: Path) -> HubConfig:
    """What the folder states. Raises InputError if it has no description or no weight file, or if they are not understood."""
    if not is_hub_folder(folder):
        raise InputError(f"{folder} has no config.json and no {OPEN_CLIP_CONFIG}; name its weight file, with --arch, --mean and --std")
    name = "config.json" if (folder / "config.json").is_file() else OPEN_CLIP_CONFIG
    config = read_json(folder / name)
    if not isinstance(config, dict):
        raise InputError(f"{folder / name} holds no mapping, so it describes no network")
    if name == OPEN_CLIP_CONFIG or "model_cfg" in config:
        found = _read_open_clip(folder, config)
    elif "architecture" in config:
        found = _read_timm(folder, config)
    elif "model_type" in config:
        found = _read_transformers(folder, config)
    else:
        raise InputError(f"{folder / name} states neither `architecture` (timm) nor `model_type` (transformers)")
    return replace(found, licence=read_licence(folder), source=_snapshot_source(folder))


def read_licence(folder: Path) -> str | None:
    """The licence in the header of README.md, its own name if the hub lists it as `other`; None if there is none."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace").lstrip("﻿")
        header = parse_yaml(text.split("---", 2)[1]) if text.startswith("---") else None
    except (OSError, IndexError, yaml.YAMLError):
        return None
    if not isinstance(header, dict) or not header.get("license"):
        return None
    named = header.get("license_name") if header["license"] == "other" else None
    return str(named or (", ".join(map(str, header["license"])) if isinstance(header["license"], list) else header["license"]))


def find_weight_file(folder: Path) -> Path:
    """The weight file of a folder: safetensors before pickled files. Raises InputError if there is none, several, or one in shards."""
    for name in WEIGHT_FILES:
        if (folder / name).is_file():
            return folder / name
    if shards := sorted(folder.glob("*.index.json")):
        raise InputError(f"the weights in {folder} are in several files ({shards[0].name}); join them with the library that wrote them")
    other = sorted(path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES and path.is_file())
    if len(other) == 1:
        return other[0]
    listed = ", ".join(path.name for path in other[:4])
    found = f"several weight files: {listed}" if other else "no weight file"
    raise InputError(f"{folder} has {found}; expected one of {', '.join(WEIGHT_FILES)}")


def _read_timm(folder: Path, config: Mapping[str, Any]) -> HubConfig:
    nested = config.get("pretrained_cfg")
    record: Mapping[str, Any] = nested if isinstance(nested, dict) else config  # older files hold one flat mapping
    args = dict(config.get("model_args") or {})
    channels = args.pop("in_chans", None)
    native = _side(args.pop("img_size", None))
    args.pop("num_classes", None)
    if isinstance(record.get("global_pool"), str):  # timm builds with this one; that beside `architecture` is for information
        args.setdefault("global_pool", record["global_pool"])
    described, notes = read_timm_input(record, channels)
    wrapper = config.get("model_type") == "timm_wrapper"
    if wrapper and described.mean is None:
        notes = (*notes, "a TimmWrapper folder of transformers that does not state mean and std; pass --mean and --std")
    return HubConfig(
        folder,
        "timm",
        find_weight_file(folder),
        model_type="timm_wrapper" if wrapper else None,
        arch=str(config["architecture"]).split(".")[0],
        model_args=args,
        native_size=native or described.size,
        input=described,
        position_resampling="timm",
        notes=notes,
    )


def _read_transformers(folder: Path, config: Mapping[str, Any]) -> HubConfig:
    kind = str(config["model_type"])
    own: Mapping[str, Any] = config.get("vision_config") or config
    if config.get("auto_map") and not own.get("hidden_size") and not own.get("embed_dim"):
        raise InputError(f"{folder} has a network of its own code ({kind}), which is not run; name the weight file and --arch")
    args = _transformers_args(own, folder)
    notes: tuple[str, ...] = ()
    file = folder / "preprocessor_config.json"
    described, unread = read_preprocessor(read_json(file), file) if file.is_file() else (InputDescription(), ())
    if not file.is_file():
        notes = (*notes, "there is no preprocessor_config.json, so mean, std and resizing are not stated")
    channels = own.get("num_channels")
    described = replace(described, channels=described.channels or (channels if channels in (1, 3) else None))
    return HubConfig(
        folder,
        "transformers",
        find_weight_file(folder),
        model_type=kind,
        model_args=args,
        native_size=_side(own.get("image_size")),
        input=described,
        position_resampling="hf" if kind in HF_POSITIONS else None,
        notes=(*notes, *unread),
    )


def _transformers_args(config: Mapping[str, Any], folder: Path) -> dict[str, Json]:
    """Heads, eps and activation: tensors do not show them."""
    args: dict[str, Json] = {}
    if isinstance(heads := config.get("num_attention_heads"), int):
        args["num_heads"] = heads
    if isinstance(eps := config.get("layer_norm_eps"), float):
        args["layer_norm_eps"] = eps
    activation = config.get("hidden_act", "gelu")
    if activation not in ACTIVATIONS:
        raise InputError(f"{folder / 'config.json'}: the activation {activation!r} is not known in timm; known: {', '.join(ACTIVATIONS)}")
    if not config.get("use_swiglu_ffn") and not config.get("use_gated_mlp") and ACTIVATIONS[activation] is not None:
        args["act_layer"] = ACTIVATIONS[activation]
    return args


def _read_open_clip(folder: Path, config: Mapping[str, Any]) -> HubConfig:
    vision = (config.get("model_cfg") or {}).get("vision_cfg") or {}
    arch = vision.get("timm_model_name")
    described, notes = read_timm_input({**(config.get("preprocess_cfg") or {}), "input_size": vision.get("image_size")}, None)
    args: dict[str, Json] = (
        {} if not vision.get("timm_pool") else {"global_pool": {"avg": "avg", "token": "token"}.get(vision["timm_pool"])}
    )
    return HubConfig(
        folder,
        "open_clip",
        find_weight_file(folder),
        arch=str(arch) if arch else None,
        model_args=args,
        native_size=_side(vision.get("image_size")),
        input=described,
        notes=notes,
    )


def _side(value: object) -> int | None:
    """The side of a square given as a number or a pair; None if it is not stated or not square."""
    if isinstance(value, list | tuple) and len(value) == 2 and value[0] == value[1]:
        value = value[0]
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _snapshot_source(folder: Path) -> str | None:
    """`OWNER/NAME@COMMIT` for a snapshot in the hub's cache."""
    repo = folder.parent.parent.name
    if folder.parent.name != "snapshots" or not repo.startswith("models--"):
        return None
    return f"hub: {repo.removeprefix('models--').replace('--', '/', 1)}@{folder.name}"
