"""The contents of run.json as types: their keys are those of the file."""

from collections.abc import Mapping, Sequence
from typing import TypedDict

from encoders.runtime.json_types import Json


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


def read_baseline(info: RunInfo) -> dict[str, float]:
    """The watchdog's metrics of the untrained network; {} if it was not probed."""
    return {name: float(value) for name, value in info.get("untrained", {}).items()}
