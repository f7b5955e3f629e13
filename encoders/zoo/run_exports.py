"""Encoders of pretraining runs: the last export of `runs/X`, or what a checkpoint of it holds."""

from pathlib import Path

from encoders.runtime import checkpoint
from encoders.runtime.config import validate_config
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.paths import home_dir, runs_dir
from encoders.zoo import weights
from encoders.zoo.card import Card


def find_run_encoder(name: str) -> tuple[Card, Path, weights.StateDict | None]:
    """Card, file, and tensors (None: the file is the weights alone) for `runs/X` or `runs/X@step`.

    Without a step: the export (`runs/X/encoder`), or else the newest good checkpoint. Raises InputError naming the runs or steps there
    are."""
    base, at, step = name.partition("@")
    folder = home_dir() / base
    if not folder.is_dir():
        raise unknown_name_error("run", base, list_runs())
    if not at and (folder / "encoder" / "card.yaml").is_file():
        card = Card.read(folder / "encoder" / "card.yaml")
        return card.changed(name=name), folder / "encoder" / "model.safetensors", None
    known = checkpoint.list_steps(folder / "checkpoints")
    if not known:
        raise InputError(f"{base} has no export and no checkpoint yet; `pretrain status` says how far it is")
    if at and (not step.isdigit() or int(step) not in known):
        raise InputError(f"{base} has no checkpoint at step {step or '(none given)'}; it has {', '.join(map(str, known))}")
    return _read_run_checkpoint(folder / "checkpoints", int(step) if at else None, name)


def _read_run_checkpoint(checkpoints: Path, step: int | None, name: str) -> tuple[Card, Path, weights.StateDict]:
    """Card, file and tensors in the checkpoint of `step`, or in the newest good one."""
    if step is None:
        whole, _ = checkpoint.load_newest(checkpoints)
        file = checkpoints
    else:
        file = checkpoint.checkpoint_path(checkpoints, step)
        whole = checkpoint.load_checkpoint(file)
    if not whole or not {"encoder", "card"} <= set(whole):
        raise InputError(f"{file} holds no encoder and card: it is no checkpoint of `pretrain run`")
    card = validate_config(Card, whole["card"], f"the card in {file}")
    return card.changed(name=name), file, weights.unwrap_state_dict(whole["encoder"], file)


def list_runs() -> list[str]:
    """The runs there are, as `runs/X`."""
    there = runs_dir()
    return sorted(f"runs/{p.name}" for p in there.iterdir() if p.is_dir()) if there.is_dir() else []
