"""The folders of isograft: all below one working folder, so that a project is one folder to copy or delete."""

import os
from pathlib import Path


def home_dir() -> Path:
    """The working folder: `ISOGRAFT_HOME`, by default the current folder."""
    return Path(os.environ.get("ISOGRAFT_HOME") or ".").absolute()


def zoo_dir() -> Path:
    """The folder of encoders: one sub-folder with card and weights each."""
    return home_dir() / "zoo"


def runs_dir() -> Path:
    """The folder of pretraining runs."""
    return home_dir() / "runs"


def sweeps_dir() -> Path:
    """The folder of sweeps: the lists of their runs, with scripts and logs of those that were submitted as jobs."""
    return home_dir() / "sweeps"


def tasks_dir() -> Path:
    """The folder of registered tasks: one YAML file each."""
    return home_dir() / "tasks"


def records_dir() -> Path:
    """The folder of benchmark records: one JSON file and one array file each."""
    return home_dir() / "records"


def benches_dir() -> Path:
    """The folder of scripts, logs and reports of benchmarks submitted as jobs."""
    return home_dir() / "benches"


def cache_dir() -> Path:
    """The folder of files that can be recomputed, such as features: `ISOGRAFT_CACHE`, by default `.isograft/cache`."""
    return Path(os.environ.get("ISOGRAFT_CACHE") or home_dir() / ".isograft" / "cache").absolute()
