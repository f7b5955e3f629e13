"""SLURM: fills in the template of a job script and submits it with `sbatch`."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path

from encoders.runtime import paths
from encoders.runtime.errors import InputError
from encoders.runtime.slurm_container import container_lines
from encoders.runtime.slurm_site import Site, find_commands
from encoders.runtime.slurm_values import conflicting_options, count_gpus, split_gres

TEMPLATE_FOLDER = Path(__file__).resolve().parents[2] / "slurm"
FLAG = ""  # the value of an option without one
# Options of sbatch that the job which compares does not need: it has one process, no GPU, and takes minutes.
HEAVY_OPTIONS = {"exclusive", "gres-flags", "mem-per-cpu", "mem-per-gpu", "cpus-per-gpu", "threads-per-core", "hint", "mincpus", "tmp"}


def read_template(name: str) -> str:
    """The text of `slurm/<name>`, from the checkout or from the installed package."""
    path = TEMPLATE_FOLDER / name
    return path.read_text() if path.is_file() else (files("encoders") / "slurm" / name).read_text()


def sbatch_directives(site: Site) -> dict[str, str | None]:
    """The `#SBATCH` options of `site`; None removes an option from the template, "" is a flag."""
    values: dict[str, str | None] = {
        "partition": site.partition,
        "account": site.account,
        "qos": site.qos,
        "constraint": site.constraint,
        "gres": site.gres,
        "cpus-per-task": None if site.cpus is None else str(site.cpus),
        "mem": site.memory,
        "time": site.time,
        "signal": None if site.signal_s is None else f"USR1@{site.signal_s}",
        "mail-user": site.mail,
        "mail-type": "END,FAIL,REQUEUE" if site.mail else None,
    }
    directives: dict[str, str | None] = {key: value for key, value in values.items() if value is not None}
    if site.gpus is not None:
        directives["gpus-per-node"] = site.gpus if count_gpus(site.gpus, None) else None
        if not count_gpus(site.gpus, None):
            directives["gres-flags"] = None  # binds CPUs to GPUs
    elif split_gres(site.gres)[0]:
        directives["gpus-per-node"] = None
    for name, value in site.options():
        directives |= dict.fromkeys(conflicting_options(name)) | {name: FLAG if value is None else value}
    return directives


def light_site(site: Site) -> Site:
    """The options for a job that needs no GPU and takes minutes: without GPUs, cores, time limit and options that belong to them."""
    lines = [line for (name, _), line in zip(site.options(), site.sbatch, strict=True) if name not in HEAVY_OPTIONS]
    gres = ",".join(split_gres(site.gres)[1]) or None
    return site.model_copy(update={"gpus": None, "gres": gres, "cpus": None, "time": None, "sbatch": lines})


def read_directive(text: str, name: str) -> str | None:
    """The value of a script's `#SBATCH --name=`, or None."""
    match = re.search(rf"^#SBATCH (--{re.escape(name)}=.*)", text, re.M)
    return shlex.split(match.group(1), comments=True)[0].partition("=")[2] if match else None


def gpus_per_node(script: str) -> int:
    """GPUs of each node, as the options of a script request them."""
    return count_gpus(read_directive(script, "gpus-per-node"), read_directive(script, "gres"))


def fill_template(text: str, options: Mapping[str, str | None], arguments: Sequence[str], setup: Sequence[str]) -> str:
    """The template with `#SBATCH` options replaced or added, and with its arguments and the set-up lines of the cluster inserted.

    options: values as they are meant; they are quoted here. None removes an option, "" is a flag.  Raises InputError for a value that no
    line can hold."""
    for key, value in options.items():
        line = re.compile(rf"^#SBATCH --{re.escape(key)}(?:[=\s].*)?\n", re.M)
        new = "" if value is None else f"#SBATCH --{key}\n" if value == FLAG else f"#SBATCH --{key}={quote_directive(value)}\n"
        if line.search(text):
            text = line.sub(new.replace("\\", r"\\"), text, count=1)
        elif new:
            text = text.replace("set -euo pipefail\n", new + "set -euo pipefail\n", 1)
    text = _insert_into_part(text, "arguments", f"set -- {shlex.join(arguments)}\n")
    return _insert_into_part(text, "set-up", "".join(f"{line}\n" for line in setup))


def quote_directive(value: str) -> str:
    """A value as `sbatch` reads it: between double quotes, with backslashes before `"` and `\\`, unless it is plain.

    Raises InputError for a line break, which ends a `#SBATCH` line."""
    if any(character in value for character in "\n\r\0"):
        raise InputError(f"{value!r} holds a line break; a #SBATCH line cannot hold it")
    if re.fullmatch(r"[\w./:@%+,=&|*~^()\[\]{}<>!?-]+", value):
        return value
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def log_pattern(folder: Path, name: str) -> str:
    """The value of `--output` for logs in a folder.  name: with SLURM's patterns, e.g. `slurm-%j.out`.

    Raises InputError for a folder with a backslash, at which SLURM stops to read patterns."""
    if "\\" in str(folder):
        raise InputError(f"{folder} has a backslash in its name, and SLURM cannot write logs there; use a folder without it")
    return f"{str(folder).replace('%', '%%')}/{name}"


def setup_lines(site: Site, gpus: bool = True) -> list[str]:
    """The set-up lines of a job: the working folder, those of the site, the commands in PATH, and the container.

    gpus: whether the job has any. Raises InputError for a container that cannot mount the working folder, or a wrong environment."""
    lines = [f"export ISOGRAFT_HOME={quote_path(paths.home_dir())}", *site.setup]
    if site.container is not None:
        try:
            return [*lines, *container_lines(site.container, gpus)]
        except ValueError as error:
            raise InputError(f"container: {error}") from error
    commands = find_commands(site.python)
    if commands is not None:  # those of this process only where the job has none
        lines.append(f'export PATH={quote_path(commands)}:"$PATH"' if site.python else f'export PATH="$PATH":{quote_path(commands)}')
    return lines


def quote_path(path: Path) -> str:
    """A path as one word of a shell script."""
    return shlex.quote(str(path))


def format_array(numbers: Sequence[int], at_once: int | None = None) -> str:
    """Numbers in the format of `sbatch --array`: 0-3,7, and with `at_once` the number of tasks that may run at a time: 0-3,7%2."""
    ranges: list[list[int]] = []
    for n in sorted(set(numbers)):
        if ranges and n == ranges[-1][1] + 1:
            ranges[-1][1] = n
        else:
            ranges.append([n, n])
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
    return text if at_once is None else f"{text}%{at_once}"


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
