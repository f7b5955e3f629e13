"""Encoders of pretraining runs: the export of `runs/X`, or the encoder in one of its checkpoints."""

from pathlib import Path

from encoders.runtime import checkpoint, slurm_jobs
from encoders.runtime.config import validate_config
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.paths import home_dir, runs_dir
from encoders.runtime.sealed_json import read_sealed_json
from encoders.runtime.sweep_folder import find_sweep
from encoders.zoo import weights
from encoders.zoo.card import Card


def find_run_encoder(name: str) -> tuple[Card, Path, weights.StateDict | None]:
    """Card, file and tensors of `runs/X` or `runs/X@step`; the tensors are None if the file holds only the weights.

    Without a step: the export (`runs/X/encoder`), otherwise the newest checkpoint. Raises InputError with the existing runs or steps if
    there is no such encoder, and for a checkpoint that cannot be used: an older one is another encoder, and is used only if it is named."""
    base, at, step = name.partition("@")
    folder = home_dir() / base
    if not folder.is_dir():
        raise unknown_name_error("run", base, list_runs())
    if not at and (folder / "encoder" / "card.yaml").is_file():
        card = Card.read(folder / "encoder" / "card.yaml")
        return card.replace(name=name), folder / "encoder" / "model.safetensors", None
    known = checkpoint.list_steps(folder / "checkpoints")
    if not known:
        raise InputError(f"{base} has no export and no checkpoint yet; `pretrain status` shows its progress")
    chosen = next((own for own in known if str(own) == step), None) if at else known[-1]
    if chosen is None:
        raise InputError(f"{base} has no checkpoint at step {step or '(none given)'}; it has {', '.join(map(str, known))}")
    try:
        return _read_run_checkpoint(folder / "checkpoints", chosen, name)
    except checkpoint.DamagedCheckpoint as error:
        others = ", ".join(f"{base}@{other}" for other in known if other != chosen)
        raise InputError(f"{error}; the run has {f'also {others}' if others else 'no other checkpoint'}") from error


def _read_run_checkpoint(checkpoints: Path, step: int, name: str) -> tuple[Card, Path, weights.StateDict]:
    """Card, file and tensors in the checkpoint of `step`. Raises InputError for another kind of file."""
    file = checkpoint.checkpoint_path(checkpoints, step)
    content = checkpoint.load_checkpoint(file)
    if not isinstance(content.get("encoder"), dict) or not isinstance(content.get("card"), dict):
        raise InputError(f"{file} holds no encoder and card, so it is not a checkpoint of `pretrain run`")
    if content.get("step", step) != step:
        raise InputError(f"{file} is the checkpoint of step {content['step']}, not of the step in its name")
    card = validate_config(Card, content["card"], f"the card in {file}")
    return card.replace(name=name), file, weights.unwrap_state_dict(content["encoder"], file)


def describe_unfinished(name: str) -> str:
    """Why a run of that name has no encoder in the zoo yet, and what can be used; "" if there is no such run."""
    folder = runs_dir() / name
    if (sweep := find_sweep(name)) is not None:
        return f"it is a sweep; name one of its runs: {', '.join(sweep.run_names())}"
    if not name or name != folder.name or not folder.is_dir():
        return ""
    if (folder / "encoder" / "card.yaml").is_file():
        return f"it is the export of a run that is not in the zoo: use runs/{name}, or `pretrain export {name}`"
    if not (folder / "run.json").is_file():
        jobs = slurm_jobs.list_jobs(folder)
        return f"its run was submitted as job {jobs[-1]} and has not started; `pretrain status {name}` shows its state" if jobs else ""
    info = read_sealed_json(folder / "run.json", "restore the file from a backup")
    known = checkpoint.list_steps(folder / "checkpoints")
    use = f"use runs/{name}@{known[-1]}" if known else "it has no checkpoint yet"
    return f"its run is at step {info.get('step', 0)} of {info.get('steps', 'unknown')} ({info.get('status', 'unknown')}): wait, or {use}"


def list_runs() -> list[str]:
    """The names of all runs, as `runs/X`."""
    folder = runs_dir()
    return sorted(f"runs/{p.name}" for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
