"""Removes paths, host, user and patients from settings and results before they leave the machine."""

import getpass
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import overload

from encoders.runtime.json_types import Json

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


@overload
def redact_private(value: Mapping[str, object]) -> dict[str, Json]: ...
@overload
def redact_private(value: object) -> Json: ...
def redact_private(value: object) -> Json:
    """`value` without entries that name patients, hosts or users, with only the last part of every path, and without this host and user.

    Private words that are not recognisable (a file named after a patient) stay: the caller must not pass them."""
    if isinstance(value, Mapping):
        return {str(k): redact_private(v) for k, v in value.items() if str(k).lower() not in PRIVATE_KEYS}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact_private(v) for v in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    text = PATH_PATTERN.sub(lambda match: last_path_part(match[0]), str(value))
    for name in host_and_user_names():
        text = re.sub(rf"\b{re.escape(name)}\b", "-", text)
    return text


def last_path_part(path: str) -> str:
    """`a/b/c.h5` -> `c.h5`, also with backslashes and with a trailing slash."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def host_and_user_names() -> list[str]:
    """The names of this machine and this user, longest first."""
    names = {socket.gethostname(), socket.gethostname().split(".")[0], os.environ.get("SLURMD_NODENAME", "")}
    with suppress(KeyError, OSError):  # a container whose user has no name
        names.add(getpass.getuser())
    return sorted((n for n in names if n), key=len, reverse=True)
