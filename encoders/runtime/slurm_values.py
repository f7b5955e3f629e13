"""Values of SLURM's options as users write them: time limits, memory, GPUs, and whole options of `sbatch`."""

import re
import shlex

from encoders.runtime.errors import InputError

TIME_HELP = "12:00:00 (hours:minutes:seconds), 1-06:00:00 (days-hours:minutes:seconds) or 90 (minutes)"
NO_LIMIT = ("UNLIMITED", "INFINITE")
SHORT_OPTIONS = {
    "A": "account", "C": "constraint", "D": "chdir", "G": "gpus", "J": "job-name", "L": "licenses", "M": "clusters", "N": "nodes",
    "a": "array", "b": "begin", "c": "cpus-per-task", "d": "dependency", "e": "error", "m": "distribution", "n": "ntasks", "o": "output",
    "p": "partition", "q": "qos", "t": "time", "w": "nodelist", "x": "exclude",
}  # fmt: skip
# Options that the job scripts set themselves, with what to write instead.
OWN_OPTIONS = {
    "job-name": "the job has the name of its run or benchmark, --name",
    "chdir": "the job starts in the folder of the command",
    "output": "logs are in the folder of the run or benchmark",
    "error": "logs are in the folder of the run or benchmark",
    "open-mode": "logs are appended to",
    "array": "the number of array tasks that run at a time is at_once",
    "dependency": "use `transfer submit --after JOB`",
    "nodes": "use `pretrain submit --nodes N`",
    "ntasks": "use `pretrain submit --nodes N --procs N`",
    "ntasks-per-node": "use `pretrain submit --procs N`",
    "gpus": "GPUs are counted per node; write gpus: a100:4",
    "gpus-per-task": "all processes of a node see all its GPUs; write gpus: a100:4, per node",
    "gpus-per-socket": "GPUs are counted per node; write gpus: a100:4",
    "wrap": "the job runs a script of isograft",
    "parsable": "isograft reads the job id itself",
}
# Options of which SLURM accepts one: setting one of them removes the others of the template.
EXCLUSIVE_OPTIONS = (
    {"mem", "mem-per-cpu", "mem-per-gpu"},
    {"cpus-per-task", "cpus-per-gpu"},
    {"requeue", "no-requeue"},
)


def parse_time_limit(limit: str) -> int | None:
    """Seconds of a time limit as SLURM reads it; None for no limit.

    It is minutes, minutes:seconds, hours:minutes:seconds or days-hours[:minutes[:seconds]]. Raises InputError for anything else."""
    if limit.strip().upper() in NO_LIMIT:
        return None
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", limit.strip(), re.ASCII)
    if not match:
        raise InputError(f"{limit!r} is not a time limit of SLURM; write {TIME_HELP}")
    days, first, *rest = match.groups()
    parts = [int(first), *(int(x) for x in rest if x is not None)]
    if days is None and len(parts) < 3:
        parts = [0, *parts]  # it starts with minutes
    hours, minutes, left = [*parts, 0, 0][:3]
    return (int(days or 0) * 86400 + hours * 3600 + minutes * 60 + left) or None


def check_time_limit(text: str) -> str:
    """The time limit as it was written. Raises ValueError for what SLURM cannot read."""
    try:
        parse_time_limit(text)
    except InputError:
        raise ValueError(f"expected a time limit: {TIME_HELP}") from None
    return text.strip()


def check_memory(text: str) -> str:
    """Memory as SLURM writes it: `64G` for `64G`, `64 GB` or `64GiB`. Raises ValueError without a unit, which would mean megabytes."""
    match = re.fullmatch(r"(\d+)\s*([KMGT])?(?:i?B)?", text.strip(), re.IGNORECASE | re.ASCII)
    if not match or (match[2] is None and "b" in text.lower()):
        raise ValueError("expected a whole number with K, M, G or T, e.g. 64G (1536M for 1.5G)")
    if match[2] is None and int(match[1]):
        raise ValueError(f"a number without a unit means megabytes in SLURM; write {match[1]}G or {match[1]}M")
    return match[1] + (match[2] or "").upper()


def check_gpus(text: str) -> str:
    """GPUs per node, `[type:]number`, several types with commas. Raises ValueError for anything else."""
    plain = text.strip()
    for part in plain.split(","):
        if re.fullmatch(r"[A-Za-z][\w.-]*", part, re.ASCII):
            raise ValueError(f"expected a number of GPUs per node, with or without their type: 4 or {part}:4")
        if not re.fullmatch(r"(?:[A-Za-z0-9][\w.-]*:)?\d+", part, re.ASCII):
            raise ValueError("expected a number of GPUs per node, with or without their type: 4 or a100:4")
    return plain


def check_gres(text: str) -> str:
    """Generic resources per node, `name[:type][:number]`, several with commas. Raises ValueError for anything else."""
    plain = text.strip().removeprefix("--gres=")
    for part in plain.split(","):
        if not re.fullmatch(r"[A-Za-z][\w./-]*(?::[\w.-]+){0,2}", part, re.ASCII):
            raise ValueError("expected resources per node as name:type:number, e.g. gpu:a100:4, several with commas: gpu:4,nvme:1")
        if part.startswith("gpu:") and not part.rpartition(":")[2].isdecimal():
            raise ValueError(f"expected a number of GPUs at the end, e.g. {part}:4")
    return plain


def count_gpus(gpus: str | None, gres: str | None) -> int:
    """GPUs per node of the options `--gpus-per-node` and `--gres`."""
    parts = [part for part in (gpus or "").split(",") if part]
    parts += [part.partition(":")[2] or "1" for part in split_gres(gres)[0]]
    return sum(int(part.rpartition(":")[2]) for part in parts)


def split_gres(gres: str | None) -> tuple[list[str], list[str]]:
    """The elements of `--gres` that request GPUs, and the others."""
    parts = [part for part in (gres or "").split(",") if part]
    gpus = [part for part in parts if part.partition(":")[0] == "gpu"]
    return gpus, [part for part in parts if part not in gpus]


def parse_option(line: str) -> tuple[str, str | None]:
    """The name and the value of an option of `sbatch`, `--exclude=n1`, `--exclude n1`, `-x n1` or `#SBATCH ...`; a flag has no value.

    Raises ValueError for what is not one option."""
    text = line.strip().removeprefix("#SBATCH").strip()
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{text}: {str(error).lower()}") from None
    if not words or "\n" in text:
        raise ValueError("expected one option of sbatch, e.g. --exclude=n1")
    first, rest = words[0], words[1:]
    if re.fullmatch(r"-[A-Za-z].*", first, re.DOTALL):
        name, own = SHORT_OPTIONS.get(first[1]), first[2:]
        if name is None:
            raise ValueError(f"write the long name of the option {first[:2]}, e.g. --exclude=n1 for -x n1")
        rest = [own, *rest] if own else rest
    elif match := re.fullmatch(r"--([a-z][a-z0-9_-]*)(?:=(.*))?", first, re.DOTALL):
        name, rest = match[1], rest if match[2] is None else [match[2], *rest]
    else:
        raise ValueError(f"expected an option of sbatch, which starts with --, e.g. --{first.lstrip('-').partition('=')[0]}=VALUE")
    if len(rest) > 1:
        raise ValueError(f"{text} is more than one option with one value; give one option an element, and quote a value with spaces")
    if name in OWN_OPTIONS:
        raise ValueError(f"--{name} is set by isograft: {OWN_OPTIONS[name]}")
    return name, rest[0] if rest else None


def format_option(name: str, value: str | None) -> str:
    """An option as one text that `parse_option` reads back."""
    return f"--{name}" if value is None else f"--{name}={shlex.quote(value)}"


def conflicting_options(name: str) -> set[str]:
    """The options that cannot stand beside `name` in a script, itself included."""
    return {name}.union(*(group for group in EXCLUSIVE_OPTIONS if name in group))
