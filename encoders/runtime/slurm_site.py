"""The job options of a cluster: `slurm.yaml` in the working folder, or `~/.config/isograft/slurm.yaml`, and options of the command line.

The file is read as text: `12:00:00` stays a time, `no` stays a name and `007` keeps its zeros, with quotes or without.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import yaml
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, field_validator, model_validator

from encoders.runtime import paths
from encoders.runtime.config import Config, validate_config
from encoders.runtime.errors import InputError
from encoders.runtime.limited_yaml import LimitedTextLoader, parse_yaml, read_yaml_text
from encoders.runtime.read_errors import describe_reason
from encoders.runtime.slurm_container import Container
from encoders.runtime.slurm_values import (
    OWN_OPTIONS,
    check_gpus,
    check_gres,
    check_memory,
    check_time_limit,
    conflicting_options,
    format_option,
    parse_option,
    split_gres,
)

NULLS = ("", "~", "null", "Null", "NULL")
# Options of sbatch that have a field.
FIELD_OF_OPTION = {
    "partition": "partition", "account": "account", "qos": "qos", "constraint": "constraint", "gpus-per-node": "gpus", "gres": "gres",
    "cpus-per-task": "cpus", "mem": "memory", "time": "time", "signal": "signal_s", "mail-user": "mail",
}  # fmt: skip
# Options of sbatch that a user may take for a field; they are written as elements of `sbatch`.
PLAIN_OPTIONS = {
    "begin", "bb", "clusters", "comment", "cores-per-socket", "cpus-per-gpu", "deadline", "distribution", "exclude", "exclusive", "export",
    "extra-node-info", "gres-flags", "hint", "licenses", "mail-type", "mem-per-cpu", "mem-per-gpu", "mincpus", "network", "nice",
    "no-requeue", "nodelist", "oversubscribe", "priority", "profile", "requeue", "reservation", "sockets-per-node", "spread-job",
    "switches", "threads-per-core", "tmp", "wckey",
}  # fmt: skip


def _as_line(value: object) -> object:
    """A number as text. Raises ValueError for a list or a mapping, which YAML makes of text with brackets, and for several lines."""
    if isinstance(value, list | dict):
        raise ValueError("expected text; put quotes around a value with brackets, braces or a colon and space")
    if isinstance(value, str) and ("\n" in value or not value.strip()):
        raise ValueError("expected text in one line")
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _as_list(value: object) -> object:
    """Lines of text as a list."""
    return [line for line in value.splitlines() if line.strip()] if isinstance(value, str) else value


def _as_joined(value: object) -> object:
    """A list as one text with commas."""
    return ",".join(map(str, value)) if isinstance(value, list) else value


Line: TypeAlias = Annotated[str, BeforeValidator(_as_line)]
Lines: TypeAlias = Annotated[list[str], BeforeValidator(_as_list)]


class Site(Config):
    """Job options of a cluster: `slurm.yaml` in the working folder, or `~/.config/isograft/slurm.yaml`."""

    partition: Line | None = Field(None, examples=["gpu"], description="queue to submit to (sbatch --partition)")
    account: Line | None = Field(None, examples=["radiology"], description="account to charge (sbatch --account)")
    qos: Line | None = Field(None, examples=["normal"], description="quality of service (sbatch --qos)")
    constraint: Line | None = Field(None, examples=["a100&nvlink"], description="node features (sbatch --constraint)")
    gpus: Annotated[Line, AfterValidator(check_gpus)] | None = Field(
        None, examples=["a100:4"], description="GPUs per node, with or without their type; 0 requests none (sbatch --gpus-per-node)"
    )
    gres: Annotated[str, BeforeValidator(_as_joined), AfterValidator(check_gres)] | None = Field(
        None, examples=["gpu:a100:4"], description="generic resources per node, where the site wants GPUs this way (sbatch --gres)"
    )
    cpus: int | None = Field(None, ge=1, examples=["16"], description="CPU cores for the process and its loader workers")
    memory: Annotated[Line, AfterValidator(check_memory)] | None = Field(
        None, examples=["64G"], description="memory of the node; `mem` is the same (sbatch --mem)"
    )
    time: Annotated[Line, AfterValidator(check_time_limit)] | None = Field(
        None, examples=["12:00:00"], description="time limit of one start; a pretraining job requeues itself"
    )
    signal_s: int | None = Field(
        None, ge=10, examples=["180"], description="seconds before the time limit at which the run gets a signal to save"
    )
    mail: Line | None = Field(None, examples=["me@example.org"], description="address notified when the job ends or fails")
    sbatch: Lines = Field([], examples=["[--exclude=n1, --reservation=lab]"], description="further options of sbatch, one an element")
    setup: Lines = Field(
        [],
        examples=["[module load cuda, conda activate isograft]"],
        description="shell lines run before the command: modules, container, environment",
    )
    python: Line | None = Field(
        None, examples=["~/isograft/.venv"], description="environment of Python, or its interpreter, whose commands the jobs run"
    )
    container: Container | None = Field(
        None, examples=["{image: /project/isograft.sif, mounts: [/data]}"], description="image in which the commands run"
    )
    at_once: int | None = Field(None, ge=1, examples=["8"], description="tasks of an array that may run at a time (sbatch --array=...%8)")
    max_restarts: int | None = Field(None, ge=0, examples=["20"], description="how often a job may requeue itself")
    stage: str | None = Field(
        None, examples=["$SLURM_TMPDIR"], description="folder on each node's local disk to which a pretraining job first copies its stores"
    )
    shared: Lines = Field(
        [], examples=["[/tmp/project]"], description="folders that are visible on every node although they look local, e.g. /tmp/project"
    )

    @model_validator(mode="before")
    @classmethod
    def _read_aliases(cls, raw: object) -> object:
        """`mem` as `memory`, and elements of `sbatch` as the field of the same option. Raises ValueError for an option given twice."""
        if not isinstance(raw, Mapping):
            return raw
        if raw.get("mem") is not None and raw.get("memory") is not None:
            raise ValueError("memory and mem are the same option; give one of them")
        fields = {("memory" if key == "mem" else key): value for key, value in raw.items()}
        lines = _as_list(fields.get("sbatch"))
        return _move_to_fields(fields, lines) if isinstance(lines, list) else fields

    @field_validator("container", mode="before")
    @classmethod
    def _read_image(cls, value: object) -> object:
        return {"image": value} if isinstance(value, str) else value

    @field_validator("mail")
    @classmethod
    def _check_mail(cls, value: str | None) -> str | None:
        if value is not None and (any(c.isspace() for c in value) or ":" in value):
            raise ValueError("expected an e-mail address or a user name")
        return value

    @model_validator(mode="after")
    def _check_duplicates(self) -> "Site":
        """Raises ValueError for options that exclude each other."""
        if self.gpus is not None and self.gres is not None and split_gres(self.gres)[0]:
            raise ValueError(f"GPUs are requested twice, by gpus: {self.gpus} and gres: {self.gres}; give one of them")
        given = {
            option: f"{field}: {getattr(self, field)}" for option, field in FIELD_OF_OPTION.items() if getattr(self, field) is not None
        }
        for (name, _), line in zip(self.options(), self.sbatch, strict=True):
            for other in sorted(conflicting_options(name) & given.keys()):
                raise ValueError(f"{line} of sbatch and {given[other]} are given, and SLURM takes one of them")
            given[name] = line
        return self

    def options(self) -> Iterator[tuple[str, str | None]]:
        """(name, value) of the elements of `sbatch`."""
        return map(parse_option, self.sbatch)


def load_site() -> Site:
    """The options of the cluster: from `slurm.yaml` of the working folder, else of the user, else none."""
    for path in (paths.home_dir() / "slurm.yaml", Path.home() / ".config" / "isograft" / "slurm.yaml"):
        if path.is_file():
            return _validate_site(read_site_file(path), str(path))
    return Site()


def site_with_options(given: Mapping[str, object]) -> Site:
    """The options of the cluster, overridden by those of the command line that are not None.

    An option of the command line also replaces the element of `sbatch` in the file that sets the same option of SLURM."""
    base, own = load_site(), _validate_site({key: value for key, value in given.items() if value is not None}, "the command line")
    values = {key: value for key, value in own.model_dump().items() if key in own.model_fields_set and value is not None}
    names = [name for name, _ in own.options()] + [option for option, field in FIELD_OF_OPTION.items() if field in values]
    replaced = set().union(*map(conflicting_options, names))
    kept: dict[str, Any] = base.model_dump() | {FIELD_OF_OPTION[name]: None for name in replaced & FIELD_OF_OPTION.keys()}
    lines = [line for (name, _), line in zip(base.options(), base.sbatch, strict=True) if name not in replaced]
    if own.gpus is not None:
        kept["gres"] = ",".join(split_gres(base.gres)[1]) or None
    if split_gres(own.gres)[0]:
        kept["gpus"] = None
    return _validate_site(kept | values | {"sbatch": [*lines, *own.sbatch]}, "slurm.yaml with the options of the command line")


def read_site_file(path: Path) -> dict[str, Any]:
    """The keys of a file with every value as the text that was written. Raises InputError for what is not YAML, and for unknown keys."""
    try:
        content = parse_yaml(read_yaml_text(path), LimitedTextLoader)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not YAML: {describe_reason(error)}") from error
    if content in NULLS or content is None:
        return {}
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, expected `key: value` lines, e.g. partition: gpu")
    for key in content:
        option = str(key).lstrip("-").replace("_", "-")
        if key in Site.model_fields or key == "mem":
            continue
        if option in FIELD_OF_OPTION:
            field = FIELD_OF_OPTION[option]
            raise InputError(f"{path}: {key}: unknown key; write {field}: {_example(field)}")
        if option in OWN_OPTIONS:
            raise InputError(f"{path}: {key}: unknown key; {OWN_OPTIONS[option]}")
        if option in PLAIN_OPTIONS:
            raise InputError(f"{path}: {key}: unknown key; options of sbatch are elements of a list: sbatch: [--{option}=...]")
    known = {*Site.model_fields, "mem"}
    return {key: value for key, value in content.items() if not (isinstance(value, str) and value in NULLS and key in known)}


def find_commands(python: str | None) -> Path | None:
    """The folder of the commands that a job runs: of the environment `python`, or of this process; None if this process has none.

    Raises InputError for an environment without isograft."""
    if python is None:
        folder = Path(sys.executable).parent
        return folder if (folder / "pretrain").is_file() and ":" not in str(folder) else None
    given = Path(python).expanduser().absolute()
    folder = given.parent if given.name.startswith("python") and not given.is_dir() else given
    folder = folder / "bin" if (folder / "bin").is_dir() else folder
    if not (folder / "pretrain").is_file():
        raise InputError(f"python: {python}: there is no command `pretrain` in {folder}; install isograft in that environment")
    if ":" in str(folder):
        raise InputError(f"python: {python}: a folder whose name holds : cannot be in PATH")
    return folder


def _move_to_fields(fields: Mapping[str, object], lines: list[object]) -> dict[str, object]:
    """The fields with those elements of `sbatch` that have a field of their own in it, and the others in one format."""
    moved, rest = dict(fields), []
    for line in lines:
        name, value = parse_option(str(line))
        field = FIELD_OF_OPTION.get(name)
        if field is None:
            rest.append(format_option(name, value))
            continue
        if moved.get(field) is not None:
            raise ValueError(f"{line} of sbatch and {field}: {moved[field]} set the same option; give one of them")
        if value is None:
            raise ValueError(f"{line} of sbatch needs a value, e.g. --{name}={_example(field)}")
        if field == "signal_s":
            signal, _, value = value.rpartition("@")
            if signal not in ("USR1", "SIGUSR1"):
                raise ValueError(f"{line} of sbatch: a run saves when it gets USR1; write signal_s: 180")
        moved[field] = value
    return moved | {"sbatch": rest}


def _validate_site(raw: Mapping[str, object], origin: str) -> Site:
    try:
        return validate_config(Site, raw, origin)
    except InputError as error:
        faults = error.__cause__.errors() if isinstance(error.__cause__, ValidationError) else []
        fields = dict.fromkeys(str(fault["loc"][0]) for fault in faults if fault["loc"])
        examples = [f"{name}: {_example(name)}" for name in fields if name in Site.model_fields]
        raise InputError(f"{error}. For example {', '.join(examples)}" if examples else str(error)) from error


def _example(field: str) -> str:
    return str((Site.model_fields[field].examples or [""])[0])
