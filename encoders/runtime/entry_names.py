"""Names that users choose: of encoders, runs, sweeps, tasks, benches and labels. A name is data, never syntax.

A name is a folder or a file, a word of a command, a cell of a table and a part of other names (`runs/NAME@400`, `A+B`), so it has no
character that means something there. One rule for all of them, checked where an entry is made, found or removed.
"""

import re
import unicodedata
from collections.abc import Mapping
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Literal, TypeAlias

from encoders.runtime.errors import InputError

NamedKind: TypeAlias = Literal["encoder", "run", "sweep", "task", "bench"]
MAX_ENTRY_BYTES = 160  # as MAX_NAME_BYTES of a file name: what `atomic_write` adds to it must fit in 255
MAX_LABEL_BYTES = 255
PLAIN_KINDS = ("encoder", "task")  # their names stand in lists with commas, on cards and on hubs
PLAIN_LETTERS = re.compile(r"[A-Za-z0-9_.-]")
MARKS = "_.- "  # beside letters and digits of any script in the names of runs, sweeps and benches
RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}  # devices of Windows


def check_entry_name(kind: NamedKind, name: str) -> str:
    """`name`, if an entry of this kind may have it. Raises InputError that says what is wrong with it, and what to do."""
    if wrong := find_fault(kind, name):
        letters = "letters, digits, '_', '-' and '.'"
        raise InputError(f"{show_name(name)} is not a valid {kind} name: {wrong}; use {letters}")
    return name


def find_fault(kind: NamedKind, name: str) -> str:
    """What is wrong with a name, as the end of a sentence; "" if nothing is."""
    if not name:
        return "it is empty"
    if any("\ud800" <= c <= "\udfff" for c in name):
        return "it is not valid Unicode"
    if len(name.encode()) > MAX_ENTRY_BYTES:
        return f"it has {len(name.encode())} bytes, at most {MAX_ENTRY_BYTES} are possible"
    for c in name:
        if is_invisible(c):
            return f"it has the invisible character U+{ord(c):04X}"
        if not PLAIN_LETTERS.match(c) and (
            kind in PLAIN_KINDS or not (c.isalnum() or c in MARKS or unicodedata.category(c) in ("Mn", "Mc"))
        ):
            return f"it has the character {c!r}"
    if name[0] in "-. ":
        return f"it begins with {name[0]!r}"
    if name[-1] in ". ":
        return f"it ends with {name[-1]!r}"
    if PurePosixPath(name).stem.split(".")[0].casefold() in RESERVED:
        return "Windows reserves it"
    return "" if unicodedata.normalize("NFC", name) == name else "its Unicode form is not NFC"


@lru_cache(4096)  # an ingest asks for every image
def check_label_name(name: str) -> str:
    """`name`, if a label, a class or a finding may have it: any text in one line that can be seen. Raises InputError otherwise."""
    wrong = "it is empty" if not name.strip() else ""
    if hidden := next((c for c in name if is_invisible(c)), ""):
        wrong = f"it has the invisible character U+{ord(hidden):04X}"
    elif len(name.encode(errors="replace")) > MAX_LABEL_BYTES:
        wrong = f"it has {len(name.encode(errors='replace'))} bytes, at most {MAX_LABEL_BYTES} are possible"
    if wrong:
        raise InputError(f"{show_name(name)} cannot be a label: {wrong}; rename the column or the value in the table of labels")
    return name


def check_labels(labels: Mapping[str, object]) -> None:
    """Raises InputError for the name of a label, or a class, that cannot be seen as it is.  labels: name -> value of one image or slide."""
    for name, value in labels.items():
        check_label_name(name)
        if isinstance(value, str) and value.strip():
            check_label_name(value.strip())


def is_invisible(c: str) -> bool:
    """Whether a character is a control character, a line break, or one that is not seen or turns the direction of others."""
    return unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") or (c != " " and unicodedata.category(c) == "Zs")


def show_name(name: str) -> str:
    """A name in a message: between quotes, with invisible characters as escapes, and not longer than a line."""
    shown = "".join(c if not is_invisible(c) else f"\\u{ord(c):04x}" for c in (name if len(name) <= 60 else f"{name[:57]}..."))
    return f"'{shown}'"
