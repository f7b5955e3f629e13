"""The contents of run.json as types: their keys are those of the file."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json

RUN_INFO_ADVICE = "restore the file from a backup, or start the run again under another --name"


class SessionInfo(TypedDict, total=False):
    """One process that worked on the run, from its start or resume to its end."""

    from_step: int
    to_step: int
    started: str  # UTC, ISO 8601
    host: str
    pid: int
    device: str
    slurm_job: str | None
    seconds: float
    ended_by: str | None  # name of the signal, or "watchdog"


# One setting that was changed when the run was resumed at `step`. A class could not have a field called `from`.
ChangeInfo = TypedDict("ChangeInfo", {"step": int, "key": str, "from": Json, "to": Json})


class VerdictInfo(TypedDict):
    """The verdict that the last process left, for those who list runs without reading their metrics."""

    status: str  # of the run when the verdict was made
    sentence: str
    grade: str  # good, warned, bad or open


class RunInfo(TypedDict, total=False):
    """run.json: what the run is, and how it went."""

    id: str
    asked: str  # `recipe_identity` of the recipe as the user gave it
    status: str  # running, stopped, diverged or finished
    settings: str  # digest of config.yaml
    steps: int
    warmup: int
    fingerprint: str  # of the store
    images: int
    commit: str | None
    versions: dict[str, str]
    sessions: list[SessionInfo]
    step: int  # of the newest checkpoint
    rollbacks: Sequence[Mapping[str, object]]
    changes: list[ChangeInfo]
    seconds: float  # of training, over all sessions
    encoder: str  # folder in the zoo
    notes: list[str]  # what was adjusted to the data
    verdict: VerdictInfo
    best: int  # step that watch.stop_at_best exported
    untrained: dict[str, float | str]  # metrics of the network at step 0; "nan", "inf" and "-inf" as text
    wandb: str | None  # id of the W&B run
    wandb_sweep: str | None  # id of the W&B sweep whose agent started the run


# The types of the entries of run.json.
ENTRY_TYPES: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("id", "asked", "status", "settings", "fingerprint", "encoder"), (str,)),
    **dict.fromkeys(("steps", "warmup", "images", "step", "best"), (int,)),
    **dict.fromkeys(("sessions", "rollbacks", "changes", "notes"), (list,)),
    **dict.fromkeys(("versions", "verdict", "untrained"), (dict,)),
    **dict.fromkeys(("commit", "wandb", "wandb_sweep"), (str, type(None))),
    "seconds": (int, float),
}


class StoredEntries(dict[str, Any]):
    """The entries of a run.json; one that is missing is an error of the file."""

    def __init__(self, content: Mapping[str, Any], path: Path):
        super().__init__(content)
        self.path = path

    def __missing__(self, name: str) -> Any:
        raise InputError(f"{self.path} lacks {name!r}; {RUN_INFO_ADVICE}")


def check_run_info(content: Mapping[str, Any], path: Path) -> RunInfo:
    """The entries of run.json. Raises InputError for an entry of another type, here, and for one that is missing, where it is used."""
    wrong = [name for name, kinds in ENTRY_TYPES.items() if name in content and type(content[name]) not in kinds]
    lists = [name for name in ("sessions", "rollbacks", "changes") if name not in wrong and name in content]
    wrong += [name for name in lists if not all(isinstance(item, dict) for item in content[name])]
    if wrong:
        raise InputError(f"{path} has {', '.join(wrong)} of another type; {RUN_INFO_ADVICE}")
    return cast(RunInfo, StoredEntries(content, path))


def read_baseline(info: RunInfo) -> dict[str, float]:
    """The watchdog's metrics of the untrained network; {} if it was not probed."""
    return {name: float(value) for name, value in info.get("untrained", {}).items()}
