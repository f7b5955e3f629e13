"""SLURM: fills in the template of a job script and submits it with `sbatch`."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from pydantic import Field

from encoders.runtime import paths
from encoders.runtime.config import Config, read_yaml, validate_config
from encoders.runtime.errors import InputError

TEMPLATE_FOLDER = Path(__file__).resolve().parents[2] / "slurm"


class Site(Config):
    """Job options of a cluster: `slurm.yaml` in the working folder, or `~/.config/isograft/slurm.yaml`."""

    partition: str | None = Field(None, description="queue to submit to (sbatch --partition)")
    account: str | None = Field(None, description="account to charge (sbatch --account)")
    qos: str | None = Field(None, description="quality of service (sbatch --qos)")
    constraint: str | None = Field(None, description="node features (sbatch --constraint)")
    gpus: int | None = Field(None, ge=0, description="GPUs per node; 0 requests none")
    cpus: int | None = Field(None, ge=1, description="CPU cores for the process and its loader workers")
    memory: str | None = Field(None, description="memory of the node, e.g. 64G")
    time: str | None = Field(None, description="time limit of one start, e.g. 24:00:00; the job requeues itself")
    signal_s: int | None = Field(None, ge=10, description="seconds before the time limit at which the run gets a signal to save")
    mail: str | None = Field(None, description="address notified when the job ends or fails")
    setup: list[str] = Field([], description="shell lines run before the command: modules, container, environment")
    max_restarts: int | None = Field(None, ge=0, description="how often a job may requeue itself")
    stage: str | None = Field(None, description="folder on each node's local disk to which a pretraining job first copies its stores")
    shared: list[str] = Field([], description="folders that are visible on every node although they look local, e.g. /tmp/project")


def load_site() -> Site:
    """The options of the cluster: from `slurm.yaml` of the working folder, else of the user, else none."""
    for path in (paths.home_dir() / "slurm.yaml", Path.home() / ".config" / "isograft" / "slurm.yaml"):
        if path.is_file():
            return validate_config(Site, read_yaml(path), str(path))
    return Site()


def site_with_options(given: Mapping[str, object]) -> Site:
    """The options of the cluster, overridden by those of the command line that are not None."""
    return validate_config(
        Site, load_site().model_dump() | {key: value for key, value in given.items() if value is not None}, "the command line"
    )


def read_template(name: str) -> str:
    """The text of `slurm/<name>`, from the checkout or from the installed package."""
    path = TEMPLATE_FOLDER / name
    return path.read_text() if path.is_file() else (files("encoders") / "slurm" / name).read_text()


def sbatch_directives(site: Site) -> dict[str, str | None]:
    """The `#SBATCH` options of `site`; None removes an option from the template."""
    values: dict[str, str | None] = {
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "cpus-per-task": None if site.cpus is None else str(site.cpus),
        "mem": site.memory,
        "time": site.time,
        "signal": None if site.signal_s is None else f"USR1@{site.signal_s}",
        "mail-user": site.mail,
        "mail-type": "END,FAIL,REQUEUE" if site.mail else None,
    }
    directives: dict[str, str | None] = {key: value for key, value in values.items() if value is not None}
    if site.gpus is not None:
        directives["gpus-per-node"] = str(site.gpus) if site.gpus else None
        if not site.gpus:
            directives["gres-flags"] = None  # binds CPUs to GPUs
    return directives


def read_directive(text: str, name: str) -> str | None:
    """The value of a script's `#SBATCH --name=`, or None."""
    match = re.search(rf"^#SBATCH --{re.escape(name)}=(\S+)", text, re.M)
    return match.group(1) if match else None


def parse_time_limit(limit: str) -> int:
    """A time limit as SLURM reads it: minutes, minutes:seconds, hours:minutes:seconds, days-hours[:minutes[:seconds]].

    Raises InputError for anything else."""
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", limit.strip())
    if not match:
        raise InputError(f"{limit!r} is not a time limit of SLURM; write e.g. 24:00:00, 90 (minutes) or 2-12 (days-hours)")
    days, first, *rest = match.groups()
    parts = [int(first), *(int(x) for x in rest if x is not None)]
    if days is None and len(parts) < 3:
        parts = [0, *parts]  # it starts with minutes
    hours, minutes, left = [*parts, 0, 0][:3]
    return int(days or 0) * 86400 + hours * 3600 + minutes * 60 + left


def fill_template(text: str, options: Mapping[str, str | None], arguments: Sequence[str], setup: Sequence[str]) -> str:
    """The template with `#SBATCH` options replaced or added, and with its arguments and the set-up lines of the cluster inserted."""
    for key, value in options.items():
        line = re.compile(rf"^#SBATCH --{re.escape(key)}=\S*.*\n", re.M)
        new = "" if value is None else f"#SBATCH --{key}={value}\n"
        if line.search(text):
            text = line.sub(new.replace("\\", r"\\"), text, count=1)
        elif new:
            text = text.replace("set -euo pipefail\n", new + "set -euo pipefail\n", 1)
    text = _insert_into_part(text, "arguments", f"set -- {shlex.join(arguments)}\n")
    return _insert_into_part(text, "set-up", "".join(f"{line}\n" for line in setup))


def quote_path(path: Path) -> str:
    """A path as one word of a shell script."""
    return shlex.quote(str(path))


def _insert_into_part(text: str, name: str, lines: str) -> str:
    """`text` with `lines` inserted before the line that ends the part `name`."""
    return text.replace(f"# --- end of {name} ---\n", f"{lines}# --- end of {name} ---\n", 1)


def submit_script(script: Path, *options: str) -> str:
    """Submits a script and returns the job's id. Raises InputError with the message of SLURM when it is rejected."""
    if not shutil.which("sbatch"):
        raise InputError("`sbatch` is not installed on this machine; run this on a login node, or print the script with --dry-run")
    done = subprocess.run(["sbatch", "--parsable", *options, str(script)], capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"SLURM rejected {script}: {done.stderr.strip()}")
    return done.stdout.strip().split(";")[0]
