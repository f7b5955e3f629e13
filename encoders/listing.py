"""What there is: names of encoders, and a row about each, from cards alone (no network is built, no library loaded)."""

import json
import math
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from encoders import hub
from encoders.card import Card
from encoders.runtime.errors import InputError
from encoders.runtime.home import runs_dir, zoo_dir

HARMLESS = ("global_pool", "pad_type", "img_size", "drop_rate", "drop_path_rate", "dynamic_img_size")  # model_args that keep the tensors


class Row(NamedTuple):
    """A line of `encoders list`."""

    name: str
    arch: str
    params: str  # millions
    size: str
    channels: str
    modality: str
    where: str


@cache
def usual() -> dict[str, dict[str, Any]]:
    """The architectures shown: weight tag of `imagenet_`, dim, size, parameters in millions."""
    return yaml.safe_load((files("encoders") / "cards" / "builtin.yaml").read_text())


def names() -> list[str]:
    """Every name that `encoders list` shows."""
    return [row.name for row in rows()]


def rows() -> list[Row]:
    """The zoo, then runs with an export, then what is built in and not replaced by an entry of the zoo."""
    mine = [_own(folder, folder.name, "zoo") for folder in entries(zoo_dir())]
    trained = [_own(folder / "encoder", f"runs/{folder.name}", "run") for folder in entries(runs_dir(), "encoder/card.yaml")]
    taken = {row.name for row in mine}
    drawn = [Row(f"random_{arch}", arch, *_facts(arch), "3", "any", "drawn") for arch in usual()]
    return mine + trained + [row for row in map(_imagenet, usual()) if row.name not in taken] + drawn


def entries(folder: Path, card: str = "card.yaml") -> list[Path]:
    """The folders below `folder` that hold a card; hidden ones are unfinished."""
    return sorted(p.parents[card.count("/")] for p in folder.glob(f"*/{card}") if not p.parents[card.count("/")].name.startswith("."))


def _own(folder: Path, name: str, where: str) -> Row:
    try:
        card = Card.read(folder / "card.yaml")
    except InputError as wrong:
        return Row(name, "?", "?", "?", "?", "?", f"unreadable card: {wrong}")
    there = where if (folder / "model.safetensors").is_file() else "no: model.safetensors is missing"
    if card.arch in usual() and not set(card.model_args) - set(HARMLESS):
        params = f"{usual()[card.arch]['params']:.1f}"
    else:
        n = counted(folder / "model.safetensors") if there == where else None
        params = "?" if n is None else f"{n / 1e6:.1f}"
    p = card.preprocess
    return Row(name, card.arch, params, str(p.size), str(p.channels), card.modality or "any", there)


def counted(path: Path) -> int | None:
    """The parameters in a file of weights, from its header alone, without the averages that BatchNorm keeps; None for a damaged file."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size)) if size < path.stat().st_size else {}
        kept = [of for name, of in header.items() if name != "__metadata__" and not re.search(r"\.(running|num_batches)_", name)]
        return sum(math.prod(of["shape"]) for of in kept) or None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _imagenet(arch: str) -> Row:
    name, tag = f"imagenet_{arch}", usual()[arch]["tag"]
    if (zoo_dir() / name / "model.safetensors").is_file():
        where = "zoo (file)"
    else:
        where = "hub cache" if hub.cached(f"timm/{arch}.{tag}", "model.safetensors") else "no"
    return Row(name, arch, *_facts(arch), "3", "any", where)


def _facts(arch: str) -> tuple[str, str]:
    return f"{usual()[arch]['params']:.1f}", str(usual()[arch]["size"])
