"""A benchmark as SLURM jobs: an array with one element for each encoder, task and protocol, and a last job that compares.

Everything is kept in `benches/<name>/`: `cells.txt` (a command a line, in the order of the array), the two scripts, the logs, `status/<i>`
(the exit status of an element that ended), `jobs.txt`, and the table and report of the last job. Results are records as always, so an
element that failed is submitted again alone.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from encoders.runtime import paths, slurm
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.files import atomic_write, read_json, write_json
from encoders.zoo import zoo
from transfer.bench.baselines import resolve_encoders
from transfer.tasks.task import choose_tasks

LOG_TAIL_BYTES = 16 << 10  # bytes of a log that are looked through for the reason of a failure


@dataclass(frozen=True)
class ArrayElement:
    """One element: the words of its `transfer bench`."""

    encoder: str
    task: str
    protocol: str
    more: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        return ["--encoder", self.encoder, "--task", self.task, "--protocol", self.protocol, *self.more]


@dataclass(frozen=True)
class BenchFolder:
    """Where a submitted benchmark keeps what it needs and leaves."""

    path: Path

    @property
    def cells(self) -> Path:
        return self.path / "cells.txt"

    @property
    def status(self) -> Path:
        return self.path / "status"

    @property
    def info(self) -> Path:
        return self.path / "bench.json"

    def commands(self) -> list[list[str]]:
        """The words of each element."""
        return [shlex.split(line) for line in self.cells.read_text().splitlines()]

    def exit_of(self, element: int) -> int | None:
        """The exit status that an element left; None while it has not ended."""
        try:
            return int((self.status / str(element)).read_text())
        except (FileNotFoundError, ValueError):
            return None


def bench_folder(name: str) -> BenchFolder:
    """The folder of a bench. Raises InputError for a name that is no file name."""
    if not name or name != Path(name).name or name.startswith("."):
        raise InputError(f"{name!r} cannot be the name of a bench: use letters, digits, - and _")
    return BenchFolder(paths.benches_dir() / name)


def find_bench_folder(name: str) -> BenchFolder:
    """The folder of a bench that was submitted. Raises InputError naming the nearest one."""
    where = bench_folder(name)
    if not where.info.is_file():
        known = [p.parent.name for p in sorted(paths.benches_dir().glob("*/bench.json"))]
        raise unknown_name_error("submitted bench", name, known, f"They are in {paths.benches_dir()}.")
    return where


def find_pretraining_job(encoder: str) -> str | None:
    """The SLURM job that still pretrains this encoder; None when no job of a run of that name is in the queue."""
    return slurm.find_active_job(paths.runs_dir() / Path(encoder.partition("@")[0]).name)


def build_elements(
    encoders: Sequence[str], tasks: Sequence[str], protocols: Sequence[str], baselines: Sequence[str] | None, more: Sequence[str] = ()
) -> tuple[list[ArrayElement], list[str], dict[str, str]]:
    """The elements, the jobs that must end well before they may start, and the default baselines that are not here with the reason.

    Baselines are elements of their own; only those of an encoder that is still being pretrained, whose network is not known yet, are
    computed in its own elements. Raises InputError for an encoder, task or protocol that does not exist."""
    from transfer.protocols import PROTOCOLS

    for name in protocols:
        if name not in PROTOCOLS:
            raise unknown_name_error("protocol", name, PROTOCOLS)
    if not encoders:
        raise InputError("no encoder was given; name one with --encoder, `encoders list` shows all")
    waiting = {name: job for name in encoders if (job := find_pretraining_job(name)) is not None}
    if waiting and not tasks:
        raise InputError(f"{', '.join(waiting)} is still being pretrained and its modality is not known yet: say which --task")
    entries, missing = resolve_encoders([name for name in encoders if name not in waiting], baselines)
    which = [t.name for t in choose_tasks(tasks, [e.card.modality for e in entries if e.name in encoders])]
    here = [e for e in entries if e.asked or zoo.is_available_locally(e.name)]
    missing |= {e.name: zoo.describe_location(zoo.find_encoder(e.name)) for e in entries if e not in here}
    own = {e.name: ["none"] for e in here} | {name: list(baselines) if baselines else ["none"] * (baselines == []) for name in waiting}
    made = [
        ArrayElement(name, task, protocol, (*(word for b in base for word in ("--baseline", b)), *more))
        for name, base in own.items()
        for task in which
        for protocol in protocols
    ]
    return made, list(dict.fromkeys(waiting.values())), missing


def render_scripts(where: BenchFolder, tasks: Sequence[str], wants: slurm.Site, compare: Sequence[str]) -> tuple[str, str]:
    """The texts of the array's script and of the last job's."""
    common = {"chdir": str(Path.cwd())}
    options = slurm.sbatch_directives(wants) | common | {"job-name": where.path.name, "output": str(where.path / "slurm-%A_%a.out")}
    setup = [f"export ISOGRAFT_HOME={slurm.quote_path(paths.home_dir())}", *wants.setup]
    array = slurm.fill_template(slurm.read_template("bench.sbatch"), options, [str(where.cells), str(where.status)], setup)
    light = wants.model_copy(update={"gpus": None, "cpus": None, "time": None})  # comparing needs no GPU and takes minutes
    options = (
        slurm.sbatch_directives(light) | common | {"job-name": f"{where.path.name}-compare", "output": str(where.path / "compare-%j.out")}
    )
    last = slurm.fill_template(slurm.read_template("compare.sbatch"), options, [where.path.name, ",".join(tasks), *compare], setup)
    return array, last


def write_bench_folder(where: BenchFolder, made: Sequence[ArrayElement], wants: slurm.Site, compare: Sequence[str]) -> None:
    """Writes the folder of a bench. Raises InputError when one of that name has other elements."""
    lines = "".join(f"{shlex.join(cell.words)}\n" for cell in made)
    if where.cells.is_file() and where.cells.read_text() != lines:
        raise InputError(f"bench {where.path.name!r} exists with other elements ({where.cells}); choose another --name")
    refuse_busy(where)
    tasks = list(dict.fromkeys(cell.task for cell in made))
    array, last = render_scripts(where, tasks, wants, compare)
    for name, text in (("cells.txt", lines), ("bench.sbatch", array), ("compare.sbatch", last)):
        with atomic_write(where.path / name) as part:
            part.write_text(text)
    write_json(where.info, {"tasks": tasks, "elements": len(made)})


def refuse_busy(where: BenchFolder) -> None:
    """Raises InputError when a job of the bench is still in the queue."""
    job = slurm.find_active_job(where.path)
    if job is not None:
        raise InputError(f"bench {where.path.name!r} is still in the queue (job {job}); `transfer jobs {where.path.name}` shows it")


def submit_array(where: BenchFolder, elements: Sequence[int], after: Sequence[str]) -> tuple[str, str]:
    """Submits these elements of the array and the last job behind them; returns both job ids."""
    for i in elements:
        (where.status / str(i)).unlink(missing_ok=True)
    wait = [f"--dependency=afterok:{':'.join(after)}", "--kill-on-invalid-dep=yes"] if after else []
    array = slurm.submit_script(where.path / "bench.sbatch", f"--array={format_array_ranges(elements)}", *wait)
    slurm.record_job(where.path, array)
    last = slurm.submit_script(where.path / "compare.sbatch", f"--dependency=afterany:{array}")
    slurm.record_job(where.path, last)
    write_json(where.info, read_json(where.info) | {"array": array, "compare": last})
    return array, last


def format_array_ranges(numbers: Sequence[int]) -> str:
    """Numbers as `sbatch --array` takes them: 0-3,7."""
    found: list[list[int]] = []
    for n in sorted(set(numbers)):
        if found and n == found[-1][1] + 1:
            found[-1][1] = n
        else:
            found.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def list_unfinished(where: BenchFolder) -> list[int]:
    """The elements that did not end with status 0."""
    return [i for i in range(len(where.commands())) if where.exit_of(i) != 0]


def read_failure_reason(log: Path) -> str:
    """Why a command ended badly, from the end of its log: the last `error:` line, or else the last line of all; "" for an empty one."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_TAIL_BYTES))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or [""])[-1]


def list_elements(where: BenchFolder) -> list[tuple[str, str, str, str]]:
    """(element, command, state, log) of each element."""
    array = str(read_json(where.info).get("array", ""))
    rows = []
    for i, words in enumerate(where.commands()):
        code = where.exit_of(i)
        logs = sorted(where.path.glob(f"slurm-*_{i}.out"), key=lambda p: p.stat().st_mtime)
        state = {None: slurm.job_state(f"{array}_{i}").lower() or "not ended", 0: "done"}.get(code, f"failed ({code})")
        rows.append((str(i), shlex.join(words), state, logs[-1].name if logs else ""))
    return rows
