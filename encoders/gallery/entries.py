"""What the overview of a working folder lists: encoders, runs, submitted benchmarks, and results of tasks.

Everything is read from small files, without torch and without validation: an entry whose files cannot be read is listed with the reason.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from encoders.runtime.errors import InputError

EntryKind = Literal["encoder", "run", "bench", "task"]
EntryGrade = Literal["good", "warned", "bad", "open"]
# What a file that was edited, or is being written, raises when it is read as another than it is.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError, RecursionError, InputError)


class Link(NamedTuple):
    """A link on the page.  target: path of a file relative to the working folder, or the entry that it leads to."""

    text: str
    target: "str | tuple[EntryKind, str]"


@dataclass
class GalleryEntry:
    """One row of the overview.

    changed: seconds since the epoch.  numbers: column -> text; a column that no entry of the kind has is not shown.
    links: files of the entry, and other entries.  details: shown when the row is opened.
    steady: nothing but its files decides it, and not the time."""

    kind: EntryKind
    name: str
    status: str
    grade: EntryGrade = "good"
    changed: float = 0.0
    numbers: dict[str, str] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)
    details: list[tuple[str, str]] = field(default_factory=list)
    steady: bool = True


def describe_error(error: Exception, folder: Path) -> str:
    """An error in one short line without the folder's path; with its type, where the message is not one of ours."""
    text = " ".join(str(error).replace(f"{folder}/", "").split())
    return (text if isinstance(error, InputError) else f"{type(error).__name__} {text}")[:160].strip()


def modified_at(path: Path) -> float:
    """When a file was last written, seconds since the epoch; 0 if it does not exist."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def relative_link(text: str, path: Path, home: Path) -> list[Link]:
    """A link to a file below the working folder, if it exists."""
    return [Link(text, path.relative_to(home).as_posix())] if path.is_file() else []
