"""What may leave the machine: settings and results, without paths, host, user or patients."""

import getpass
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

PRIVATE_KEYS = {
    "patient",
    "patients",
    "patient_id",
    "key",
    "keys",
    "host",
    "hostname",
    "node",
    "nodelist",
    "user",
    "username",
    "email",
    "cwd",
}
PATH_PATTERN = re.compile(r"[^\s'\"=,;|()\[\]{}]*[/\\][^\s'\"=,;|()\[\]{}]*")


def redact_private(value: Any) -> Any:
    """`value` without entries that name patients, hosts or users; of every path only the last part; of our host and user nothing.

    What hides in a plain word (a file that is called after a patient) cannot be known: such words are the caller's business."""
    if isinstance(value, Mapping):
        return {str(k): redact_private(v) for k, v in value.items() if str(k).lower() not in PRIVATE_KEYS}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact_private(v) for v in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = PATH_PATTERN.sub(lambda found: last_path_part(found[0]), str(value))
    for name in host_and_user_names():
        text = re.sub(rf"\b{re.escape(name)}\b", "-", text)
    return text


def last_path_part(path: str) -> str:
    """`a/b/c.h5` -> `c.h5`, also with backslashes and a slash at the end."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def host_and_user_names() -> list[str]:
    """This machine's and this user's names, longest first."""
    names = {socket.gethostname(), socket.gethostname().split(".")[0], os.environ.get("SLURMD_NODENAME", "")}
    with suppress(KeyError, OSError):  # a container without a name for its user
        names.add(getpass.getuser())
    return sorted((n for n in names if n), key=len, reverse=True)
