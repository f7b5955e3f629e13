"""The list of encoders: their names and one row for each, from cards alone (no network is built, no slow library imported)."""

import math
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple, TypedDict

import yaml

from encoders.runtime.entry_names import find_fault, show_name
from encoders.runtime.errors import InputError
from encoders.runtime.paths import runs_dir, zoo_dir
from encoders.runtime.safetensors_header import read_safetensors_header
from encoders.zoo import hub
from encoders.zoo.card import Card
from encoders.zoo.names import PIXELS

# model_args that do not change the network's tensors
TENSOR_NEUTRAL_ARGS = ("global_pool", "pad_type", "img_size", "drop_rate", "drop_path_rate", "dynamic_img_size")


class ArchFacts(TypedDict):
    """What cards/builtin.yaml holds of an architecture."""

    tag: str  # weight tag of imagenet_<arch>
    dim: int  # width of the pooled features
    size: int  # usual input size, pixels
    params: float  # millions, without classifier


class EncoderRow(NamedTuple):
    """One row of `encoders list`."""

    name: str
    arch: str
    params: str  # millions
    size: str
    channels: str
    modality: str
    where: str  # where the weights are, or why there are none


@cache
def common_archs() -> dict[str, ArchFacts]:
    """The architectures that `encoders list` shows."""
    facts: dict[str, ArchFacts] = yaml.safe_load((files("encoders.zoo") / "cards" / "builtin.yaml").read_text())
    return facts


def list_encoder_names() -> list[str]:
    """Every name that `encoders list` shows."""
    return [row.name for row in list_encoders()]


def list_encoders() -> list[EncoderRow]:
    """Entries of the zoo, runs with an export, built-in encoders that no entry of the zoo replaces, `pixels`, and random encoders, in this
    order."""
    mine = [_card_row(folder, folder.name, "zoo") for folder in find_card_folders(zoo_dir())]
    trained = [_card_row(folder / "encoder", f"runs/{folder.name}", "run") for folder in find_card_folders(runs_dir(), "encoder/card.yaml")]
    taken = {row.name for row in mine}
    drawn = [EncoderRow(f"random_{arch}", arch, *_arch_facts(arch), "3", "any", "drawn") for arch in common_archs()]
    floor = EncoderRow(PIXELS, "none", "0.0", "any", "1+3", "any", "none needed")
    return mine + trained + [row for row in map(_imagenet_row, common_archs()) if row.name not in taken] + [floor, *drawn]


def find_card_folders(folder: Path, card: str = "card.yaml") -> list[Path]:
    """The folders in `folder` that hold a card, sorted; hidden folders are unfinished and left out."""
    return sorted(p.parents[card.count("/")] for p in folder.glob(f"*/{card}") if not p.parents[card.count("/")].name.startswith("."))


def _card_row(folder: Path, name: str, where: str) -> EncoderRow:
    if wrong := find_fault("run" if where == "run" else "encoder", name.removeprefix("runs/")):
        return EncoderRow(show_name(name), "?", "?", "?", "?", "?", f"invalid name ({wrong}): rename its folder")
    try:
        card = Card.read(folder / "card.yaml")
    except InputError as error:
        return EncoderRow(name, "?", "?", "?", "?", "?", f"unreadable card: {error}")
    if card.parts is not None:
        return _joined_row(folder, name, where, card)
    location = where if (folder / "model.safetensors").is_file() else "no: model.safetensors is missing"
    if card.arch in common_archs() and not set(card.model_args) - set(TENSOR_NEUTRAL_ARGS):
        params = f"{common_archs()[card.arch]['params']:.1f}"
    else:
        n = count_parameters(folder / "model.safetensors") if location == where else None
        params = "?" if n is None else f"{n / 1e6:.1f}"
    p = card.preprocess
    return EncoderRow(name, card.arch, params, str(p.size), str(p.channels), card.modality or "any", location)


def _joined_row(folder: Path, name: str, where: str, card: Card) -> EncoderRow:
    """The row of an encoder made of parts: sizes and channels of all parts, and the sum of their parameters."""
    parts = card.parts or ()
    files = [folder / f"model.part{i + 1}.safetensors" for i, part in enumerate(parts) if part.source != PIXELS]
    lost = [file.name for file in files if not file.is_file()]
    counts = [count_parameters(file) for file in files if not lost]
    params = "?" if lost or None in counts else f"{sum(n or 0 for n in counts) / 1e6:.1f}"
    size, channels = (
        "+".join(dict.fromkeys(str(value) for value in values))
        for values in ([p.preprocess.size for p in parts], [p.preprocess.channels for p in parts])
    )
    return EncoderRow(name, card.arch, params, size, channels, card.modality or "any", f"no: {lost[0]} is missing" if lost else where)


def count_parameters(path: Path) -> int | None:
    """The number of parameters in a .safetensors file, from its header, without BatchNorm statistics; None for a damaged file."""
    try:
        kept = [t for t in read_safetensors_header(path) if not re.search(r"\.(running|num_batches)_", t.name)]
    except (OSError, ValueError):
        return None
    return sum(math.prod(tensor.shape) for tensor in kept) or None


def _imagenet_row(arch: str) -> EncoderRow:
    name, tag = f"imagenet_{arch}", common_archs()[arch]["tag"]
    if (zoo_dir() / name / "model.safetensors").is_file():
        where = "zoo (file)"
    else:
        where = "hub cache" if hub.find_cached_file(f"timm/{arch}.{tag}", "model.safetensors") else "no"
    return EncoderRow(name, arch, *_arch_facts(arch), "3", "any", where)


def _arch_facts(arch: str) -> tuple[str, str]:
    return f"{common_archs()[arch]['params']:.1f}", str(common_archs()[arch]["size"])
