"""A benchmark as SLURM jobs: an array with one element for each encoder, task and protocol, and a last job that compares.

Everything is kept in `benches/<name>/`: `cells.txt` (a command a line, in the order of the array), the two scripts, the logs, `status/<i>`
(the exit status of an element that ended), `jobs.txt`, and the table and report of the last job. Results are records as always, so an
element that failed is submitted again alone.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from encoders import zoo
from encoders.runtime import home, slurm
from encoders.runtime.errors import InputError, unknown
from encoders.runtime.files import atomic, read_json, write_json
from transfer.lineup import lineup
from transfer.task import chosen

TAIL = 16 << 10  # bytes of a log that are looked through for the reason of a failure


@dataclass(frozen=True)
class Cell:
    """One element: the words of its `transfer bench`."""

    encoder: str
    task: str
    protocol: str
    more: tuple[str, ...] = ()

    @property
    def words(self) -> list[str]:
        return ["--encoder", self.encoder, "--task", self.task, "--protocol", self.protocol, *self.more]


@dataclass(frozen=True)
class Folder:
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


def place(name: str) -> Folder:
    """The folder of a bench. Raises InputError for a name that is no file name."""
    if not name or name != Path(name).name or name.startswith("."):
        raise InputError(f"{name!r} cannot be the name of a bench: use letters, digits, - and _")
    return Folder(home.benches_dir() / name)


def existing(name: str) -> Folder:
    """The folder of a bench that was submitted. Raises InputError naming the nearest one."""
    where = place(name)
    if not where.info.is_file():
        known = [p.parent.name for p in sorted(home.benches_dir().glob("*/bench.json"))]
        raise unknown("submitted bench", name, known, f"They are in {home.benches_dir()}.")
    return where


def pending(encoder: str) -> str | None:
    """The SLURM job that still pretrains this encoder; None when no job of a run of that name is in the queue."""
    return slurm.alive(home.runs_dir() / Path(encoder.partition("@")[0]).name)


def cells(
    encoders: Sequence[str], tasks: Sequence[str], protocols: Sequence[str], baselines: Sequence[str] | None, more: Sequence[str] = ()
) -> tuple[list[Cell], list[str], dict[str, str]]:
    """The elements, the jobs that must end well before they may start, and the default baselines that are not here with the reason.

    Baselines are elements of their own; only those of an encoder that is still being pretrained, whose network is not known yet, are
    computed in its own elements. Raises InputError for an encoder, task or protocol that does not exist."""
    from transfer.protocols import PROTOCOLS

    for name in protocols:
        if name not in PROTOCOLS:
            raise unknown("protocol", name, PROTOCOLS)
    if not encoders:
        raise InputError("no encoder was given; name one with --encoder, `encoders list` shows all")
    waiting = {name: job for name in encoders if (job := pending(name)) is not None}
    if waiting and not tasks:
        raise InputError(f"{', '.join(waiting)} is still being pretrained and its modality is not known yet: say which --task")
    entries, missing = lineup([name for name in encoders if name not in waiting], baselines)
    which = [t.name for t in chosen(tasks, [e.card.modality for e in entries if e.name in encoders])]
    here = [e for e in entries if e.asked or zoo.at_hand(e.name)]
    missing |= {e.name: zoo.whereabouts(zoo.find(e.name)) for e in entries if e not in here}
    own = {e.name: ["none"] for e in here} | {name: list(baselines) if baselines else ["none"] * (baselines == []) for name in waiting}
    made = [
        Cell(name, task, protocol, (*(word for b in base for word in ("--baseline", b)), *more))
        for name, base in own.items()
        for task in which
        for protocol in protocols
    ]
    return made, list(dict.fromkeys(waiting.values())), missing


def scripts(where: Folder, tasks: Sequence[str], wants: slurm.Site, compare: Sequence[str]) -> tuple[str, str]:
    """The texts of the array's script and of the last job's."""
    common = {"chdir": str(Path.cwd())}
    options = slurm.directives(wants) | common | {"job-name": where.path.name, "output": str(where.path / "slurm-%A_%a.out")}
    setup = [f"export ISOGRAFT_HOME={slurm.quoted(home.home())}", *wants.setup]
    array = slurm.filled(slurm.template("bench.sbatch"), options, [str(where.cells), str(where.status)], setup)
    light = wants.model_copy(update={"gpus": None, "cpus": None, "time": None})  # comparing needs no GPU and takes minutes
    options = slurm.directives(light) | common | {"job-name": f"{where.path.name}-compare", "output": str(where.path / "compare-%j.out")}
    last = slurm.filled(slurm.template("compare.sbatch"), options, [where.path.name, ",".join(tasks), *compare], setup)
    return array, last


def prepare(where: Folder, made: Sequence[Cell], wants: slurm.Site, compare: Sequence[str]) -> None:
    """Writes the folder of a bench. Raises InputError when one of that name has other elements."""
    lines = "".join(f"{shlex.join(cell.words)}\n" for cell in made)
    if where.cells.is_file() and where.cells.read_text() != lines:
        raise InputError(f"bench {where.path.name!r} exists with other elements ({where.cells}); choose another --name")
    refuse_busy(where)
    tasks = list(dict.fromkeys(cell.task for cell in made))
    array, last = scripts(where, tasks, wants, compare)
    for name, text in (("cells.txt", lines), ("bench.sbatch", array), ("compare.sbatch", last)):
        with atomic(where.path / name) as part:
            part.write_text(text)
    write_json(where.info, {"tasks": tasks, "elements": len(made)})


def refuse_busy(where: Folder) -> None:
    """Raises InputError when a job of the bench is still in the queue."""
    job = slurm.alive(where.path)
    if job is not None:
        raise InputError(f"bench {where.path.name!r} is still in the queue (job {job}); `transfer jobs {where.path.name}` shows it")


def send(where: Folder, elements: Sequence[int], after: Sequence[str]) -> tuple[str, str]:
    """Submits these elements of the array and the last job behind them; returns both job ids."""
    for i in elements:
        (where.status / str(i)).unlink(missing_ok=True)
    wait = [f"--dependency=afterok:{':'.join(after)}", "--kill-on-invalid-dep=yes"] if after else []
    array = slurm.sbatch(where.path / "bench.sbatch", f"--array={spans(elements)}", *wait)
    slurm.noted(where.path, array)
    last = slurm.sbatch(where.path / "compare.sbatch", f"--dependency=afterany:{array}")
    slurm.noted(where.path, last)
    write_json(where.info, read_json(where.info) | {"array": array, "compare": last})
    return array, last


def spans(numbers: Sequence[int]) -> str:
    """Numbers as `sbatch --array` takes them: 0-3,7."""
    found: list[list[int]] = []
    for n in sorted(set(numbers)):
        if found and n == found[-1][1] + 1:
            found[-1][1] = n
        else:
            found.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


def unfinished(where: Folder) -> list[int]:
    """The elements that did not end with status 0."""
    return [i for i in range(len(where.commands())) if where.exit_of(i) != 0]


def last_words(log: Path) -> str:
    """Why a command ended badly, from the end of its log: the last `error:` line, or else the last line of all; "" for an empty one."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or [""])[-1]


def table(where: Folder) -> list[tuple[str, str, str, str]]:
    """(element, command, state, log) of each element."""
    array = str(read_json(where.info).get("array", ""))
    rows = []
    for i, words in enumerate(where.commands()):
        code = where.exit_of(i)
        logs = sorted(where.path.glob(f"slurm-*_{i}.out"), key=lambda p: p.stat().st_mtime)
        state = {None: slurm.state(f"{array}_{i}").lower() or "not ended", 0: "done"}.get(code, f"failed ({code})")
        rows.append((str(i), shlex.join(words), state, logs[-1].name if logs else ""))
    return rows
