"""A benchmark as SLURM jobs: an array, and a last job that compares the results.

A cell is one (encoder, task, protocol). An array task computes all cells of an encoder that need features only, in one process, so that the
encoder computes them once; a cell that trains on images is an array task of its own. Results are records, and each cell has an exit status,
so that only what failed is computed again.
"""

import shlex
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from encoders.runtime import paths, slurm, slurm_jobs
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, read_json, write_json
from encoders.runtime.slurm_site import Site
from encoders.zoo import zoo
from encoders.zoo.pixels import has_network
from transfer.bench.baselines import describe_repeated_encoders, resolve_encoders
from transfer.bench.bench_folder import BenchFolder
from transfer.bench.dependencies import Dependencies, depend_on_job
from transfer.bench.options import BenchOptions
from transfer.tasks.task import choose_tasks

Per = Literal["encoder", "task", "cell"]


@dataclass(frozen=True)
class BenchCell:
    """One encoder on one task under one protocol: the arguments of its `transfer bench`."""

    encoder: str
    task: str
    protocol: str
    options: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """The arguments of the command."""
        return ["--encoder", self.encoder, "--task", self.task, "--protocol", self.protocol, *self.options]


def find_pretraining_job(encoder: str) -> str | None:
    """The SLURM job that is pretraining this encoder; None when no job of that run is in the queue."""
    return slurm_jobs.find_active_job(paths.runs_dir() / Path(encoder.partition("@")[0]).name)


def list_bench_cells(
    encoders: Sequence[str],
    tasks: Sequence[str],
    protocols: Sequence[str],
    baselines: Sequence[str] | None,
    options: Sequence[str] = (),
    floor: bool = True,
    expected: Collection[str] = (),
) -> tuple[list[BenchCell], Dependencies, dict[str, str]]:
    """The cells, the jobs that must end before they can start, and what is left out, with the reason.

    expected: encoders that do not exist yet. A job that trains one may be in the queue, or end at any moment; without one their cells fail
    until they exist.

    Baselines have cells of their own. Those of an encoder that is still being pretrained, whose network is not known yet, are computed in
    its cells. Raises InputError for an unknown encoder, task or protocol."""
    from transfer.protocols import find_protocol

    for name in protocols:
        find_protocol(name)  # raises for an unknown one
    if not encoders:
        raise InputError("no encoder was given; name one with --encoder, `encoders list` shows all")
    waiting = {name: job for name in encoders if (job := find_pretraining_job(name)) is not None or name in expected}
    if waiting and not tasks:
        raise InputError(f"{', '.join(waiting)} is still being pretrained and its modality is not known yet; name the tasks with --task")
    known = [name for name in encoders if name not in waiting]
    entries, missing = resolve_encoders(known, baselines, floor and bool(known))
    left_out = describe_repeated_encoders([*known, *(baselines or [])], entries) | missing
    task_names = [t.name for t in choose_tasks(tasks, [e.card.modality for e in entries if e.name in encoders])]
    available = [e for e in entries if e.requested or zoo.is_available_locally(e.name)]
    left_out |= {e.name: zoo.describe_location(zoo.find_encoder(e.name)) for e in entries if e not in available}
    default = [] if baselines is None else ["none"]
    baselines_of = {e.name: ["none"] for e in available} | dict.fromkeys(waiting, default)
    own_options = [*([] if floor else ["--no-floor"]), *options]
    without_network = {e.name for e in available if not e.requested and not has_network(e.card)}
    trains = {name for name in protocols if needs_training(name)} if without_network else set()
    left_out |= {
        f"{name} by {protocol}": "it has no network that could be trained" for name in without_network for protocol in sorted(trains)
    }
    cells = [
        BenchCell(name, task, protocol, (*(word for b in own_baselines for word in ("--baseline", b)), *own_options))
        for name, own_baselines in baselines_of.items()
        for task in task_names
        for protocol in protocols
        if not (name in without_network and protocol in trains)
    ]
    return cells, sum(map(depend_on_job, filter(None, waiting.values())), Dependencies()), left_out


def needs_training(protocol: str) -> bool:
    """Whether a protocol trains on images, which takes much longer than the features of all images."""
    from transfer.protocols import find_protocol

    return find_protocol(protocol).load().NEEDS == "images"


def group_cells(cells: Sequence[BenchCell], per: Per = "encoder") -> list[list[int]]:
    """The numbers of the cells of each array task, in the order of their first cells.

    encoder: the cells of an encoder together, but each that trains on images alone.  task: the same by encoder and task.  cell: each."""
    groups: dict[tuple[str, ...], list[int]] = {}
    training = {protocol: needs_training(protocol) for protocol in {cell.protocol for cell in cells}} if per != "cell" else {}
    for number, cell in enumerate(cells):
        alone = training.get(cell.protocol, True)
        together = (cell.encoder, cell.task)[: 1 if per == "encoder" else 2]
        key = (cell.encoder, cell.task, cell.protocol, *cell.options) if alone else together
        groups.setdefault(key, []).append(number)
    return list(groups.values())


def list_table_options(options: BenchOptions) -> list[str]:
    """The options of `transfer bench` that change tables only, for the job that compares.

    Raises InputError for files of tables, which every cell would write."""
    for name, path in (("--csv", options.csv), ("--markdown", options.markdown)):
        if path is not None:
            raise InputError(f"{name} {path}: the last job writes table.csv, table.md and report.html into benches/NAME/; leave {name} out")
    words = [] if options.margin is None else ["--margin", f"{options.margin:g}"]
    words += [] if options.score_by == "image" else ["--score-by", options.score_by]
    return words + ([] if options.combine is None else ["--combine", options.combine])


def render_scripts(folder: BenchFolder, tasks: Sequence[str], site: Site, compare_options: Sequence[str]) -> tuple[str, str]:
    """The scripts of the array and of the last job."""
    common: dict[str, str | None] = {"chdir": str(Path.cwd())}
    own: dict[str, str | None] = {"job-name": folder.path.name, "output": slurm.log_pattern(folder.path, "slurm-%A_%a.out")}
    template = slurm.read_template("bench.sbatch")
    # The signal is for the script, which requeues the task. With `signal_s`, that of pretraining, the step would get it, and end.
    own["signal"] = slurm.read_directive(template, "signal")
    options = slurm.sbatch_directives(site) | common | own
    gpus = slurm.gpus_per_node(slurm.fill_template(template, options, [], [])) > 0
    files = [str(folder.commands_file), str(folder.status_dir), str(folder.array_file)]
    array = slurm.fill_template(template, options, files, slurm.setup_lines(site, gpus))
    own = {"job-name": f"{folder.path.name}-compare", "output": slurm.log_pattern(folder.path, "compare-%j.out"), "signal": None}
    options = slurm.sbatch_directives(slurm.light_site(site)) | common | own
    words = [folder.path.name, *compare_options]
    return array, slurm.fill_template(slurm.read_template("compare.sbatch"), options, words, slurm.setup_lines(site, gpus=False))


def write_bench_folder(
    folder: BenchFolder, cells: Sequence[BenchCell], site: Site, compare_options: Sequence[str], per: Per = "encoder"
) -> list[int]:
    """Writes the folder of a bench; returns the numbers of its array tasks. Raises InputError when a bench of that name has other cells."""
    lines = "".join(f"{shlex.join(cell.arguments)}\n" for cell in cells)
    if folder.commands_file.is_file() and folder.commands_file.read_text() != lines:
        raise InputError(f"bench {folder.path.name!r} exists with other cells ({folder.commands_file}); choose another --name")
    refuse_busy(folder)
    tasks = list(dict.fromkeys(cell.task for cell in cells))
    array, last = render_scripts(folder, tasks, site, compare_options)
    groups = group_cells(cells, per)
    numbers = "".join(f"{' '.join(map(str, group))}\n" for group in groups)
    for name, text in (("cells.txt", lines), ("array.txt", numbers), ("bench.sbatch", array), ("compare.sbatch", last)):
        with atomic_write(folder.path / name) as part:
            part.write_text(text)
    write_json(folder.info_file, {"tasks": tasks, "cells": len(cells), "at_once": site.at_once})
    return list(range(len(groups)))


def refuse_busy(folder: BenchFolder) -> None:
    """Raises InputError while a job of the bench is in the queue."""
    job = slurm_jobs.find_active_job(folder.path)
    if job is not None:
        raise InputError(f"bench {folder.path.name!r} is still in the queue (job {job}); `transfer jobs {folder.path.name}` shows it")


def submit_array(folder: BenchFolder, numbers: Sequence[int], after: Dependencies) -> tuple[str, str]:
    """Submits these array tasks, and the last job to run after them; returns both job ids. Cells that are done are not computed again."""
    info = read_json(folder.info_file)
    at_once = info.get("at_once")
    array_option = f"--array={slurm.format_array(numbers, at_once if isinstance(at_once, int) else None)}"
    array = slurm.submit_script(folder.path / "bench.sbatch", array_option, *after.options())
    slurm_jobs.record_job(folder.path, array)
    last = slurm.submit_script(folder.path / "compare.sbatch", f"--dependency=afterany:{array}")
    slurm_jobs.record_job(folder.path, last)
    write_json(folder.info_file, info | {"array": array, "compare": last})
    return array, last
