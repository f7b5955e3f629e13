"""Decides what may leave this machine: settings, results and texts without patients, files, folders, dates, hosts and users.

Everything that is meant to be passed on goes through `redact_private` (settings, values) or `redact_text` (sentences): trackers, cards,
exported folders, tables, pages, and errors in the log of a job. What a user names to be shown stays: data sets, tasks, labels, encoders
and runs.
"""

import getpass
import os
import re
import socket
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import overload

from encoders.runtime.json_types import Json
from encoders.runtime.paths import home_dir

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
QUOTED_PATH = re.compile(r"'((?:[^'\n]*[/\\])[^'\n]+)'|\"((?:[^\"\n]*[/\\])[^\"\n]+)\"")  # may contain spaces
PATH_PATTERN = re.compile(r"(?<!<)[^\s'\"=,;|()\[\]{}<>]*[/\\][^\s'\"=,;|()\[\]{}<>]*")  # `</b>` is none
# Files of data, which may be named after a patient. Our own files have the names in OWN_FILES.
DATA_SUFFIXES = (
    "h5|hdf5|he5|mat|npz|npy|csv|tsv|txt|xlsx|xls|ods|parquet|json|jsonl|geojson|xml|yaml|yml|png|jpg|jpeg|jpe|jp2|j2k|jxl|bmp|gif|webp"
    "|tif|tiff|svs|ndpi|mrxs|scn|bif|vms|czi|qptiff|dcm|dicom|ima|nii|mgz|mha|mhd|nrrd|gz|zip|tar|pt|pth|ckpt|safetensors|onnx|bin|pkl"
    "|log|out|html|keys|lst"
)
DATA_SUFFIX = re.compile(rf".\.(?:{DATA_SUFFIXES})$", re.IGNORECASE)
KIND_OF_FILE = re.compile(rf"\.(?:(?:{DATA_SUFFIXES})(?:\.(?:gz|zip))?)$", re.IGNORECASE)
FILE_PATTERN = re.compile(  # from its beginning: what follows `(file)` is the kind of one that was hidden
    rf"(?<![^\s'\"=,;|(\[\]{{}}<>:/\\])[^\s'\"=,;|()\[\]{{}}<>:/\\]+\.(?:{DATA_SUFFIXES})\b(?:\.(?:gz|zip))?", re.IGNORECASE
)
OWN_FILES = {
    "model.safetensors", "model.onnx", "card.yaml", "config.yaml", "config.json", "manifest.npz", "metrics.jsonl", "run.json", "slurm.yaml",
    "README.md", "report.html", "index.html", "ledger.jsonl", "events.jsonl", "leaks.csv", "local-errors.log",
}  # fmt: skip
# Names below these folders of ours are names of runs, encoders and tasks, which are shown.
OWN_FOLDERS = ("runs", "zoo", "tasks", "records", "benches", "sweeps")
PUBLIC_ADDRESS = re.compile(
    r"(?:hf|wandb):|https://(huggingface\.co|hf\.co|github\.com|arxiv\.org|doi\.org|zenodo\.org|api\.wandb\.ai|wandb\.ai)/"
)
DATE_PATTERN = re.compile(
    r"(?<![\w.])(?:(?:19|20)\d\d([-/.]?)(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])|(?:0[1-9]|[12]\d|3[01])[/.](?:0[1-9]|1[0-2])[/.](?:19|20)\d\d)"
    r"(?![\d])"
)
UID_PATTERN = re.compile(r"(?<![\w.])\d+(?:\.\d+){4,}(?![\w.])")  # of DICOM
MAX_COUNT_DIGITS = 4
FILE_WORD, FOLDER_WORD = "(file)", "(folder)"


@overload
def redact_private(value: Mapping[str, object]) -> dict[str, Json]: ...
@overload
def redact_private(value: object) -> Json: ...
def redact_private(value: object) -> Json:
    """`value` without entries that name patients, hosts or users, and with every text as `redact_text` returns it."""
    if isinstance(value, Mapping):
        return {str(k): redact_private(v) for k, v in value.items() if str(k).lower() not in PRIVATE_KEYS}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact_private(v) for v in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact_text(str(value))


def redact_text(text: str) -> str:
    """A text without paths, names of files, dates, DICOM identifiers, this host and this user.

    A path of a file becomes `(file).h5`, one of a folder `(folder)`; `runs/mine@400` becomes `mine@400`, `timm/resnet18` `resnet18`. A
    patient's name or identifier between other words is not recognisable: the caller must not pass it (`redact_names`)."""
    for root in own_roots():  # may contain spaces, at which the patterns end
        text = re.sub(rf"{re.escape(root)}(?=$|[\s/\\'\":;,)]|\.(?:\s|$))", ".", text)
    text = QUOTED_PATH.sub(lambda match: f"'{hide_path(match[1] or match[2])}'" if " " in match[0] else match[0], text)
    text = DATE_PATTERN.sub("-", text)
    text = PATH_PATTERN.sub(_hide_match, text)
    text = FILE_PATTERN.sub(lambda match: hide_file(match[0]), text)
    text = UID_PATTERN.sub("-", text)
    for name in host_and_user_names():
        text = re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", "-", text)
    return text


def _hide_match(match: re.Match[str]) -> str:
    """What is left of a path in a sentence, with the colon after it."""
    path = match[0].rstrip(":")
    return hide_path(path) + match[0][len(path) :]


def redact_names(text: str, names: Collection[str], word: str = "(withheld)") -> str:
    """The text without these names of images and patients, also where they are written with quotes or are parts of a list.

    Names of several words are replaced first, the longest of them before the others; one that could be a count must not be in `names`."""
    for name in sorted((name for name in names if re.search(r"[\s,;:()'\"]", name)), key=len, reverse=True):
        text = text.replace(name, word)
    is_name = lambda text: text in names or text.rstrip(".") in names  # noqa: E731
    return re.sub(r"[^\s,;:()'\"]+", lambda found: word if is_name(found.group()) else found.group(), text)


def could_be_count(name: str) -> bool:
    """Whether a name is a number so short that in a sentence it is more likely a count, such as a patient called 7."""
    return name.isdigit() and len(name) <= MAX_COUNT_DIGITS


def hide_path(path: str) -> str:
    """What of a path may be shown: names of our own files, runs and encoders, and the kind of any other file or folder."""
    if PUBLIC_ADDRESS.match(path):
        return path
    last = last_path_part(path)
    parts = [part for part in re.split(r"[/\\]", path) if part not in ("", ".")]
    if last.endswith(".py"):  # of a traceback
        return last
    if last in OWN_FILES or DATA_SUFFIX.search(last):
        return hide_file(last)
    is_short_name = len(parts) == 2 and not path.startswith(("/", "\\", "~", ".")) and ":" not in parts[0]
    return last if is_short_name or (len(parts) > 1 and parts[-2] in OWN_FOLDERS) or not last else FOLDER_WORD


def hide_file(name: str) -> str:
    """`cxr.h5` -> `(file).h5`; names of files that this project writes stay."""
    if name in OWN_FILES:
        return name
    kind = KIND_OF_FILE.search(name)
    return FILE_WORD + (kind.group().lower() if kind else "")


def last_path_part(path: str) -> str:
    """`a/b/c.h5` -> `c.h5`, also with backslashes and with a trailing slash."""
    return re.split(r"[/\\]", path.rstrip("/\\"))[-1]


def own_roots() -> list[str]:
    """The working folder, the current folder and the user's own, longest first."""
    roots = {str(home_dir()), os.path.expanduser("~")}
    with suppress(OSError):  # a current folder that was removed
        roots.add(os.getcwd())
    return sorted((root for root in roots if len(root) > 1), key=len, reverse=True)


def host_and_user_names() -> list[str]:
    """The names of this machine and this user, longest first."""
    names = {socket.gethostname(), socket.gethostname().split(".")[0], os.environ.get("SLURMD_NODENAME", ""), os.environ.get("USER", "")}
    with suppress(KeyError, OSError):  # a container whose user has no name
        names.add(getpass.getuser())
    return sorted((n for n in names if n), key=len, reverse=True)
