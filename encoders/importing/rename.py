"""From the tensors of a source to timm's names: drops, renames, concatenations and reshapes, each recorded.

A layout (encoders/zoo/families.yaml) lists regular expressions in order. What none of them touches keeps its name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from encoders.runtime.errors import InputError

QKV = re.compile(r"(.*\.attn)\.(q|k|v)\.(weight|bias)")


@dataclass
class Renamed:
    """Tensors under timm's names, and where each one comes from."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    origin: dict[str, tuple[str, ...]] = field(default_factory=dict)  # timm's name -> names in the file
    dropped: dict[str, str] = field(default_factory=dict)  # name in the file -> reason
    made: list[str] = field(default_factory=list)  # tensors that the file has not, with their value


def rename_tensors(state: Mapping[str, Tensor], drop: Mapping[str, str], rename: list[tuple[str, str]], steps: list[str]) -> Renamed:
    """`state` under timm's names.

    drop: regular expression -> reason.  rename: (regular expression, replacement), applied in order.  steps: names in `STEPS`.
    Raises InputError if two tensors get one name."""
    out = Renamed()
    for key, value in state.items():
        reason = next((why for pattern, why in drop.items() if re.search(pattern, key)), None)
        if reason is not None:
            out.dropped[key] = reason
            continue
        name = key
        for pattern, replacement in rename:
            name = re.sub(pattern, replacement, name)
        if name in out.tensors:
            raise InputError(f"the tensors {out.origin[name][0]} and {key} would both become {name}; this is another layout")
        out.tensors[name], out.origin[name] = value, (key,)
    for step in steps:
        try:
            STEPS[step](out)
        except (LookupError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(
                f"the tensors have the names of a known source but not its content ({step}: {type(error).__name__} {error}); the file is "
                "incomplete, or of another network"
            ) from error
    return out


def _replace(out: Renamed, name: str, value: Tensor, parts: list[str]) -> None:
    origin = tuple(o for part in parts for o in out.origin[part])
    for part in parts:
        out.tensors.pop(part, None)
        out.origin.pop(part, None)
    out.tensors[name], out.origin[name] = value, origin


def join_qkv(out: Renamed) -> None:
    """`X.attn.q|k|v.weight|bias` -> `X.attn.qkv.*`, in this order; an absent bias of the keys is zeros."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for name in out.tensors:
        if match := QKV.fullmatch(name):
            found.setdefault((match[1], match[3]), {})[match[2]] = name
    for (stem, kind), parts in found.items():
        if kind == "bias" and set(parts) == {"q", "v"}:
            values = [out.tensors[parts["q"]], torch.zeros_like(out.tensors[parts["q"]]), out.tensors[parts["v"]]]
            out.made.append(f"{stem}.qkv.bias of the keys: zeros, the source has none")
        elif set(parts) == {"q", "k", "v"}:
            values = [out.tensors[parts[p]] for p in "qkv"]
        else:
            raise InputError(f"{stem} has {', '.join(sorted(parts))} of q, k, v ({kind}): the file is incomplete")
        _replace(out, f"{stem}.qkv.{kind}", torch.cat(values), [parts[p] for p in "qkv" if p in parts])


def join_gates(out: Renamed) -> None:
    """`X.mlp.gate.*` and `X.mlp.up.*` -> `X.mlp.fc1.*`, the gate first."""
    for name in [n for n in out.tensors if ".mlp.gate." in n]:
        up = name.replace(".gate.", ".up.")
        _replace(out, name.replace(".gate.", ".fc1."), torch.cat([out.tensors[name], out.tensors[up]]), [name, up])


def registers_without_positions(out: Renamed) -> None:
    """DINOv2 with registers: the position of the class token is added to the token, and only patches keep positions."""
    tokens, positions = out.tensors.get("cls_token"), out.tensors.get("pos_embed")
    if "reg_token" in out.tensors and tokens is not None and positions is not None:
        count = positions.shape[1] - 1
        if int(count**0.5) ** 2 == count:
            out.tensors["cls_token"], out.tensors["pos_embed"] = tokens + positions[:, :1], positions[:, 1:]
            out.origin["cls_token"] = (*out.origin["cls_token"], *out.origin["pos_embed"])


def class_position_of_zeros(out: Renamed) -> None:
    """A network that adds positions to patches only: a zero position for the class token."""
    if "cls_token" in out.tensors:
        positions = out.tensors["pos_embed"]
        out.tensors["pos_embed"] = torch.cat([torch.zeros_like(positions[:, :1]), positions], dim=1)
        out.made.append("pos_embed of the class token: zeros, the source has none")


def flatten_gamma(out: Renamed) -> None:
    """ConvNeXt's layer scale (C, 1, 1) -> (C)."""
    for name in [n for n in out.tensors if n.endswith(".gamma")]:
        out.tensors[name] = out.tensors[name].flatten()


def clip_tokens(out: Renamed) -> None:
    """OpenAI's class embedding (D) -> (1, 1, D) and positions (N, D) -> (1, N, D)."""
    for name in ("cls_token", "pos_embed"):
        value = out.tensors[name]
        out.tensors[name] = value.reshape(1, -1, value.shape[-1])


def vgg_linears_as_convolutions(out: Renamed) -> None:
    """torchvision's first two linear layers of VGG as the convolutions that timm has in their place."""
    for name, side in (("pre_logits.fc1.weight", 7), ("pre_logits.fc2.weight", 1)):
        value = out.tensors[name]
        out.tensors[name] = value.reshape(value.shape[0], -1, side, side)


def linear_head_as_convolution(out: Renamed) -> None:
    """MobileNetV3's linear layer after pooling as the 1x1 convolution that timm has in its place."""
    out.tensors["conv_head.weight"] = out.tensors["conv_head.weight"][:, :, None, None]


def split_qv_bias(out: Renamed) -> None:
    """`X.attn.qkv.bias` -> `X.attn.q_bias`, `X.attn.v_bias`. Raises InputError if the bias of the keys is not 0 or masked."""
    for name in [n for n in out.tensors if n.endswith(".attn.qkv.bias")]:
        q, k, v = out.tensors[name].chunk(3)
        mask = out.tensors.get(f"{name}_mask")
        if bool(k.nan_to_num().any()) and (mask is None or bool(mask.chunk(3)[1].nan_to_num().any())):
            raise InputError(f"{name}: the bias of the keys is not 0, and timm's network has none")
        stem, origin = name.removesuffix(".qkv.bias"), out.origin[name]
        _replace(out, f"{stem}.q_bias", q.clone(), [name])
        out.tensors[f"{stem}.v_bias"], out.origin[f"{stem}.v_bias"] = v.clone(), origin
    for name in [n for n in out.tensors if n.endswith(".bias_mask")]:
        out.tensors.pop(name)
        out.dropped[out.origin.pop(name)[0]] = "mask of the bias of the keys"


def copy_positions_to_blocks(out: Renamed) -> None:
    """SimMIM and BEiT: the one table of relative positions, copied to every block."""
    shared = "rel_pos_bias.relative_position_bias_table"
    if shared in out.tensors:
        table, origin = out.tensors.pop(shared), out.origin.pop(shared)
        for block in sorted({n.split(".")[1] for n in out.tensors if n.startswith("blocks.")}, key=int):
            name = f"blocks.{block}.attn.relative_position_bias_table"
            out.tensors[name], out.origin[name] = table, origin


STEPS: dict[str, Callable[[Renamed], None]] = {
    "class_position_of_zeros": class_position_of_zeros,
    "clip_tokens": clip_tokens,
    "copy_positions_to_blocks": copy_positions_to_blocks,
    "flatten_gamma": flatten_gamma,
    "join_gates": join_gates,
    "join_qkv": join_qkv,
    "linear_head_as_convolution": linear_head_as_convolution,
    "registers_without_positions": registers_without_positions,
    "split_qv_bias": split_qv_bias,
    "vgg_linears_as_convolutions": vgg_linears_as_convolutions,
}
