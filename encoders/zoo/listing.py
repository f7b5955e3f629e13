"""What there is: names of encoders, and a row about each, from cards alone (no network is built, no library loaded)."""

import json
import math
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from encoders.runtime.errors import InputError
from encoders.runtime.paths import runs_dir, zoo_dir
from encoders.zoo import hub
from encoders.zoo.card import Card

TENSOR_NEUTRAL_ARGS = (
    "global_pool",
    "pad_type",
    "img_size",
    "drop_rate",
    "drop_path_rate",
    "dynamic_img_size",
)  # model_args that keep the tensors


class EncoderRow(NamedTuple):
    """A line of `encoders list`."""

    name: str
    arch: str
    params: str  # millions
    size: str
    channels: str
    modality: str
    where: str


@cache
def common_archs() -> dict[str, dict[str, Any]]:
    """The architectures shown: weight tag of `imagenet_`, dim, size, parameters in millions."""
    return yaml.safe_load((files("encoders.zoo") / "cards" / "builtin.yaml").read_text())


def list_encoder_names() -> list[str]:
    """Every name that `encoders list` shows."""
    return [row.name for row in list_encoders()]


def list_encoders() -> list[EncoderRow]:
    """The zoo, then runs with an export, then what is built in and not replaced by an entry of the zoo."""
    mine = [_card_row(folder, folder.name, "zoo") for folder in find_card_folders(zoo_dir())]
    trained = [_card_row(folder / "encoder", f"runs/{folder.name}", "run") for folder in find_card_folders(runs_dir(), "encoder/card.yaml")]
    taken = {row.name for row in mine}
    drawn = [EncoderRow(f"random_{arch}", arch, *_arch_facts(arch), "3", "any", "drawn") for arch in common_archs()]
    return mine + trained + [row for row in map(_imagenet_row, common_archs()) if row.name not in taken] + drawn


def find_card_folders(folder: Path, card: str = "card.yaml") -> list[Path]:
    """The folders below `folder` that hold a card; hidden ones are unfinished."""
    return sorted(p.parents[card.count("/")] for p in folder.glob(f"*/{card}") if not p.parents[card.count("/")].name.startswith("."))


def _card_row(folder: Path, name: str, where: str) -> EncoderRow:
    try:
        card = Card.read(folder / "card.yaml")
    except InputError as wrong:
        return EncoderRow(name, "?", "?", "?", "?", "?", f"unreadable card: {wrong}")
    there = where if (folder / "model.safetensors").is_file() else "no: model.safetensors is missing"
    if card.arch in common_archs() and not set(card.model_args) - set(TENSOR_NEUTRAL_ARGS):
        params = f"{common_archs()[card.arch]['params']:.1f}"
    else:
        n = count_parameters(folder / "model.safetensors") if there == where else None
        params = "?" if n is None else f"{n / 1e6:.1f}"
    p = card.preprocess
    return EncoderRow(name, card.arch, params, str(p.size), str(p.channels), card.modality or "any", there)


def count_parameters(path: Path) -> int | None:
    """The parameters in a file of weights, from its header alone, without the averages that BatchNorm keeps; None for a damaged file."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size < path.stat().st_size else {}
        kept = [of for name, of in header.items() if name != "__metadata__" and not re.search(r"\.(running|num_batches)_", name)]
        return sum(math.prod(of["shape"]) for of in kept) or None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _imagenet_row(arch: str) -> EncoderRow:
    name, tag = f"imagenet_{arch}", common_archs()[arch]["tag"]
    if (zoo_dir() / name / "model.safetensors").is_file():
        where = "zoo (file)"
    else:
        where = "hub cache" if hub.find_cached_file(f"timm/{arch}.{tag}", "model.safetensors") else "no"
    return EncoderRow(name, arch, *_arch_facts(arch), "3", "any", where)


def _arch_facts(arch: str) -> tuple[str, str]:
    return f"{common_archs()[arch]['params']:.1f}", str(common_archs()[arch]["size"])
