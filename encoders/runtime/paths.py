"""Where isograft keeps things: all below one working folder, so that a project on disk is one folder to copy or delete."""

import os
from pathlib import Path


def home_dir() -> Path:
    """`ISOGRAFT_HOME`, or else the current folder."""
    return Path(os.environ.get("ISOGRAFT_HOME") or ".").absolute()


def zoo_dir() -> Path:
    """Where encoders are: a folder with a card and weights for each."""
    return home_dir() / "zoo"


def runs_dir() -> Path:
    """Where pretraining runs are."""
    return home_dir() / "runs"


def tasks_dir() -> Path:
    """Where registered tasks are: one YAML file each."""
    return home_dir() / "tasks"


def records_dir() -> Path:
    """Where the records of benchmarks are: one JSON file and one array file each."""
    return home_dir() / "records"


def benches_dir() -> Path:
    """Where benchmarks that were submitted as jobs keep their scripts, logs and reports."""
    return home_dir() / "benches"


def cache_dir() -> Path:
    """What can be made again, cached features above all: `ISOGRAFT_CACHE`, or else `.isograft/cache`."""
    return Path(os.environ.get("ISOGRAFT_CACHE") or home_dir() / ".isograft" / "cache").absolute()
