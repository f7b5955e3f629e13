"""Encoders of pretraining runs: the last export of `runs/X`, or what a checkpoint of it holds."""

from collections.abc import Mapping
from pathlib import Path

from encoders import weights
from encoders.card import Card
from encoders.runtime.config import validated
from encoders.runtime.errors import InputError, unknown
from encoders.runtime.home import home, runs_dir


def newest(name: str) -> tuple[Card, Path, weights.State | None]:
    """Card, file, and tensors (None: the file is the weights alone) for `runs/X` or `runs/X@step`.

    Without a step: the export (`runs/X/encoder`), or else the last checkpoint. Raises InputError naming the runs or steps there are."""
    base, at, step = name.partition("@")
    folder = home() / base
    if not folder.is_dir():
        raise unknown("run", base, names())
    if not at and (folder / "encoder" / "card.yaml").is_file():
        card = Card.read(folder / "encoder" / "card.yaml")
        return card.changed(name=name), folder / "encoder" / "model.safetensors", None
    known = steps(folder)
    if not known:
        raise InputError(f"{base} has no export and no checkpoint yet; `pretrain status` says how far it is")
    if at and (not step.isdigit() or int(step) not in known):
        raise InputError(f"{base} has no checkpoint at step {step or '(none given)'}; it has {', '.join(map(str, sorted(known)))}")
    file = known[int(step)] if at else known[max(known)]
    card, state = checkpoint(file)
    return card.changed(name=name), file, state


def steps(folder: Path) -> dict[int, Path]:
    """The checkpoints of a run by step."""
    found = {p.stem.removeprefix("step-"): p for p in (folder / "checkpoints").glob("step-*.pt")}
    return {int(step): path for step, path in found.items() if step.isdigit()}


def checkpoint(file: Path) -> tuple[Card, weights.State]:
    """The card and encoder inside a training checkpoint."""
    whole = weights.raw(file)
    if not isinstance(whole, Mapping) or not {"encoder", "card"} <= set(whole):
        raise InputError(f"{file} is no checkpoint of `pretrain run`: it lacks `encoder` or `card`")
    return validated(Card, whole["card"], f"the card in {file}"), weights.unwrapped(whole["encoder"], file)


def names() -> list[str]:
    """The runs there are, as `runs/X`."""
    there = runs_dir()
    return sorted(f"runs/{p.name}" for p in there.iterdir() if p.is_dir()) if there.is_dir() else []
