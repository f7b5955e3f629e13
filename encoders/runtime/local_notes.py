"""What only the user of this machine may read: files of mode 0600, and messages that a job's log does not take.

The log of a job is often passed on. There, a message has pseudonyms and no paths, and the whole of it is in a local file, which the log
names relative to the working folder.
"""

import hashlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from encoders.runtime.files import atomic_write
from encoders.runtime.paths import home_dir
from encoders.runtime.redact import redact_text

LOCAL_ERRORS = "local-errors.log"


def prints_to_job_log() -> bool:
    """Whether what this process prints ends in the log of a SLURM job, not on a terminal."""
    return "SLURM_JOB_ID" in os.environ and not sys.stderr.isatty()


def write_private(path: Path, text: str) -> Path:
    """Writes a file that only this user may read, atomically; returns its path."""
    with atomic_write(path, private=True) as part:
        part.write_text(text, encoding="utf-8")
    return path


def append_private(path: Path, text: str) -> Path:
    """Adds to a file that only this user may read; returns its path. Text that cannot be written is lost without an error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with open(handle, "a", encoding="utf-8", errors="replace") as file:
            file.write(text)
    except OSError:  # a full or read-only disk: the message that is printed has to do
        pass
    return path


def relative_to_home(path: Path) -> str:
    """A path below the working folder, relative to it; the name of any other file."""
    return str(path.relative_to(home_dir())) if path.is_relative_to(home_dir()) else path.name


def show_key(key: object) -> str:
    """The key of an image or the id of a patient in a message: on a terminal as it is, in the log of a job as a pseudonym.

    The local file of errors says which is meant."""
    if not prints_to_job_log():
        return str(key)
    name = f"image {hashlib.sha256(str(key).encode()).hexdigest()[:12]}"
    _note_locally(f"{name} is {key}")
    return name


def _note_locally(text: str) -> Path:
    """Adds a text to the local file of errors; returns its path."""
    job = os.environ.get("SLURM_JOB_ID", "none")
    return append_private(home_dir() / ".isograft" / LOCAL_ERRORS, f"{time.strftime('%Y-%m-%d %H:%M:%S')} job {job}\n{text}\n\n")


def show_path(path: Path) -> str:
    """The path of a file of ours in a message: whole on a terminal, relative to the working folder in the log of a job."""
    return relative_to_home(path) if prints_to_job_log() else str(path)


def describe_for_log(message: str, whole: str | None = None, redact: Callable[[str], str] = redact_text) -> str:
    """What to print for a message that may name files, images or patients: on a terminal, all of it.

    In the log of a job: the message through `redact`, with the path of the local file that has the whole of it.
    whole: what that file gets, if it is more than the message, such as a traceback."""
    if not prints_to_job_log():
        return message
    shown = redact(message)
    if shown == message and whole is None:
        return message
    path = _note_locally(message if whole is None else whole)
    return f"{shown} (in full, not to be passed on: {relative_to_home(path)})"


def describe_traceback(error: BaseException) -> str:
    """The traceback of an unexpected error as the log of a job shows it: names of code files without folders, the message redacted."""
    last = describe_for_log(f"{type(error).__name__}: {error}", "".join(traceback.format_exception(error)))
    return f"{_list_frames(error)}\n{last}"


def describe_frames(error: BaseException) -> str:
    """The traceback without folders and source lines, and the message of the error."""
    return f"{_list_frames(error)}\n{type(error).__name__}: {error}"


def _list_frames(error: BaseException) -> str:
    frames = [f"  {Path(f.filename).name}, line {f.lineno}, in {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    return "\n".join(["Traceback (most recent call last):", *frames])
