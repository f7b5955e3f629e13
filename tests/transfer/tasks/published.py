"""Small copies of published layouts: files with the true names of folders and columns, and the commands that a recipe prints."""

import csv
import shlex
from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner

from encoders.cli.main import app as encoders_app
from encoders.runtime.errors import InputError
from transfer.cli.main import app as transfer_app
from transfer.tasks.load import LoadedTask, load_task
from transfer.tasks.task import read_task


def call(words):
    """Runs one command in this process."""
    app = {"encoders": encoders_app, "transfer": transfer_app}[words[0]]
    alone = ["--workers", "1"] if words[0] == "encoders" else []  # no pool to start for a few images
    done = CliRunner().invoke(app, [*words[1:], *alone])
    if isinstance(done.exception, InputError):
        raise done.exception
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def printed_commands(recipe: str) -> list[str]:
    """The commands that `transfer tasks recipes NAME` prints, in order."""
    page = call(["transfer", "tasks", "recipes", recipe]).output.splitlines()
    return [line.partition(": ")[2] for line in page if line.startswith(("  ingest: ", "  task: "))]


def add_published(recipe: str, folder: Path, status: int = 0) -> tuple[LoadedTask, str]:
    """The task of a recipe, after its printed commands ran with `folder` for FOLDER, and all that they printed.

    status: that the ingest commands must have."""
    said = ""
    for command in printed_commands(recipe):
        words = shlex.split(command.replace("FOLDER", str(folder)))
        done = call(words)
        said += done.output
        assert done.exit_code == (status if words[0] == "encoders" else 0), done.output
    return load_task(read_task(words[words.index("add") + 1])), said


def people_of(loaded: LoadedTask) -> dict[str, set[str]]:
    """Patient -> the keys of its images."""
    found: dict[str, set[str]] = {}
    for patient, key in zip(loaded.patient, loaded.key, strict=True):
        found.setdefault(str(patient), set()).add(str(key))
    return found


def parts_of_people(loaded: LoadedTask) -> dict[str, set[str]]:
    """Patient -> the parts that hold its images."""
    found: dict[str, set[str]] = {}
    for patient, part in zip(loaded.patient, loaded.split.part, strict=True):
        found.setdefault(str(patient), set()).add(str(part))
    return found


def table(path: Path, head: str, rows, delimiter=","):
    """Writes a table. head: names of the columns, joined by the delimiter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([head.split(delimiter), *rows])


def picture(path: Path, seed=0, size=(24, 20), colour=False):
    """A noisy image of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(abs(hash(str(path.name))) % 2**32 if seed is None else seed)
    coarse = rng.integers(0, 255, (6, 5, 3 if colour else 1), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(coarse[..., 0] if not colour else coarse).resize(size, Image.Resampling.BICUBIC))
    Image.fromarray(pixels).save(path)
