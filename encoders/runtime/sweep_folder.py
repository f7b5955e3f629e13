"""The folder of a sweep: `sweeps/<name>/sweep.json` lists its runs; scripts, logs and jobs are those of its SLURM arrays.

The runs themselves are ordinary runs, each in its own folder. A run keeps its number in the list, which is that of its array task.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from encoders.runtime import paths
from encoders.runtime.config import Config, validate_config
from encoders.runtime.entry_names import check_entry_name, find_fault
from encoders.runtime.errors import InputError
from encoders.runtime.files import read_json, write_json


class SweepRun(Config):
    """One run of a sweep."""

    name: str
    settings: list[str] = Field(description="key=value of the settings that the sweep varies")


class SweepInfo(Config):
    """The contents of sweep.json."""

    recipe: str
    overrides: list[str] = Field(description="key=value of the settings that all runs share")
    keys: list[str] = Field(description="the settings that vary, in the order of the command line")
    folder: str | None = Field(None, description="folder of the runs' folders, if it is not runs/")
    runs: list[SweepRun]


@dataclass(frozen=True)
class SweepFolder:
    """The files of a sweep."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def info_file(self) -> Path:
        return self.path / "sweep.json"

    @property
    def commands_file(self) -> Path:
        """The arguments of one run a line, in the order of the array."""
        return self.path / "runs.txt"

    def read(self) -> SweepInfo:
        """The contents of sweep.json. Raises InputError if they cannot be read."""
        return validate_config(SweepInfo, read_json(self.info_file), str(self.info_file))

    def write(self, info: SweepInfo) -> None:
        """Writes sweep.json, atomically."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.info_file, info.model_dump(mode="json"))

    def run_names(self) -> list[str]:
        """The names of its runs, which are those of its encoders."""
        return [run.name for run in self.read().runs]


def find_sweep(name: str) -> SweepFolder | None:
    """The sweep of that name; None if there is none."""
    if find_fault("sweep", name):
        return None
    folder = SweepFolder(paths.sweeps_dir() / name)
    return folder if folder.info_file.is_file() else None


def list_sweeps() -> list[SweepFolder]:
    """Every sweep, by name."""
    return [SweepFolder(path.parent) for path in sorted(paths.sweeps_dir().glob("*/sweep.json"))]


def expand_sweeps(names: Sequence[str], missing: list[str] | None = None) -> list[str]:
    """The names of encoders with each sweep replaced by its runs, each name once.

    missing: receives the runs of sweeps that have no encoder yet. Without it, such a run is an error: none is left out silently. Raises
    InputError also for a name that is both a sweep and an encoder of the zoo."""
    expanded: list[str] = []
    for name in names:
        sweep = find_sweep(name)
        if sweep is None:
            expanded.append(name)
            continue
        if (paths.zoo_dir() / name).exists():
            raise InputError(f"{name!r} is a sweep ({sweep.path}) and an encoder; write zoo/{name} for the encoder, or name the runs")
        runs = sweep.run_names()
        without = [run for run in runs if not _has_encoder(run)]
        if missing is not None:
            missing += without
        elif without:
            left = ",".join(run for run in runs if run not in without)
            others = f", or name those that have one: --encoder {left}" if left else ""
            raise InputError(
                f"{len(without)} of {len(runs)} runs of sweep {name!r} have no encoder: {', '.join(without)}; "
                f"`pretrain status {name}` says why; finish them{others}"
            )
        expanded += runs
    return list(dict.fromkeys(expanded))


def _has_encoder(run: str) -> bool:
    """Whether the run was exported to the zoo."""
    return (paths.zoo_dir() / run / "card.yaml").is_file()


def refuse_sweep_name(name: str) -> None:
    """Raises InputError if no run can have this name, because of its letters or because a sweep has it."""
    check_entry_name("run", name)
    if (sweep := find_sweep(name)) is not None:
        raise InputError(f"{name!r} is a sweep of {len(sweep.run_names())} runs ({sweep.path}); choose another --name for this run")
