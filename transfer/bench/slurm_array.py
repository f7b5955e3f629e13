"""A benchmark as SLURM jobs: an array with one task per (encoder, task, protocol), and a last job that compares the results.

`benches/<name>/` holds `cells.txt` (one command per line, in the order of the array), the two scripts, the logs, `status/<i>` (the exit
status of a finished element), `jobs.txt`, and the table and report of the last job. Results are records, so that only failed elements are
resubmitted.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from encoders.runtime import paths, slurm, slurm_jobs
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.files import atomic_write, read_json, write_json
from encoders.runtime.slurm_site import Site
from encoders.zoo import zoo
from encoders.zoo.pixels import has_network
from transfer.bench.baselines import resolve_encoders
from transfer.bench.bench_folder import BenchFolder
from transfer.tasks.task import choose_tasks


@dataclass(frozen=True)
class ArrayElement:
    """One element of the array: the arguments of its `transfer bench`."""

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


def build_elements(
    encoders: Sequence[str],
    tasks: Sequence[str],
    protocols: Sequence[str],
    baselines: Sequence[str] | None,
    options: Sequence[str] = (),
    floor: bool = True,
) -> tuple[list[ArrayElement], list[str], dict[str, str]]:
    """The elements, the jobs that must succeed before they can start, and the default baselines that are not available, with the reason.

    Baselines are elements of their own. Those of an encoder that is still being pretrained, whose network is not known yet, are computed in
    its elements. Raises InputError for an unknown encoder, task or protocol."""
    from transfer.protocols import PROTOCOLS

    for name in protocols:
        if name not in PROTOCOLS:
            raise unknown_name_error("protocol", name, PROTOCOLS)
    if not encoders:
        raise InputError("no encoder was given; name one with --encoder, `encoders list` shows all")
    waiting = {name: job for name in encoders if (job := find_pretraining_job(name)) is not None}
    if waiting and not tasks:
        raise InputError(f"{', '.join(waiting)} is still being pretrained and its modality is not known yet; name the tasks with --task")
    known = [name for name in encoders if name not in waiting]
    entries, missing = resolve_encoders(known, baselines, floor and bool(known))
    task_names = [t.name for t in choose_tasks(tasks, [e.card.modality for e in entries if e.name in encoders])]
    available = [e for e in entries if e.requested or zoo.is_available_locally(e.name)]
    missing |= {e.name: zoo.describe_location(zoo.find_encoder(e.name)) for e in entries if e not in available}
    baselines_of = {e.name: ["none"] for e in available} | {
        name: list(baselines) if baselines else ["none"] * (baselines == []) for name in waiting
    }
    own_options = [*([] if floor else ["--no-floor"]), *options]
    without_network = {e.name for e in available if not e.requested and not has_network(e.card)}
    trains = {name: PROTOCOLS[name].load().NEEDS == "images" for name in protocols} if without_network else {}
    elements = [
        ArrayElement(name, task, protocol, (*(word for b in own_baselines for word in ("--baseline", b)), *own_options))
        for name, own_baselines in baselines_of.items()
        for task in task_names
        for protocol in protocols
        if not (name in without_network and trains[protocol])
    ]
    return elements, list(dict.fromkeys(waiting.values())), missing


def render_scripts(folder: BenchFolder, tasks: Sequence[str], site: Site, compare_options: Sequence[str]) -> tuple[str, str]:
    """The scripts of the array and of the last job."""
    common = {"chdir": str(Path.cwd())}
    options = slurm.sbatch_directives(site) | common | {"job-name": folder.path.name, "output": str(folder.path / "slurm-%A_%a.out")}
    setup = [f"export ISOGRAFT_HOME={slurm.quote_path(paths.home_dir())}", *site.setup]
    array = slurm.fill_template(slurm.read_template("bench.sbatch"), options, [str(folder.commands_file), str(folder.status_dir)], setup)
    light = site.model_copy(update={"gpus": None, "cpus": None, "time": None})  # the comparison needs no GPU and takes minutes
    options = (
        slurm.sbatch_directives(light) | common | {"job-name": f"{folder.path.name}-compare", "output": str(folder.path / "compare-%j.out")}
    )
    last = slurm.fill_template(slurm.read_template("compare.sbatch"), options, [folder.path.name, ",".join(tasks), *compare_options], setup)
    return array, last


def write_bench_folder(folder: BenchFolder, elements: Sequence[ArrayElement], site: Site, compare_options: Sequence[str]) -> None:
    """Writes the folder of a bench. Raises InputError when a bench of that name has other elements."""
    lines = "".join(f"{shlex.join(cell.arguments)}\n" for cell in elements)
    if folder.commands_file.is_file() and folder.commands_file.read_text() != lines:
        raise InputError(f"bench {folder.path.name!r} exists with other elements ({folder.commands_file}); choose another --name")
    refuse_busy(folder)
    tasks = list(dict.fromkeys(cell.task for cell in elements))
    array, last = render_scripts(folder, tasks, site, compare_options)
    for name, text in (("cells.txt", lines), ("bench.sbatch", array), ("compare.sbatch", last)):
        with atomic_write(folder.path / name) as part:
            part.write_text(text)
    write_json(folder.info_file, {"tasks": tasks, "elements": len(elements)})


def refuse_busy(folder: BenchFolder) -> None:
    """Raises InputError while a job of the bench is in the queue."""
    job = slurm_jobs.find_active_job(folder.path)
    if job is not None:
        raise InputError(f"bench {folder.path.name!r} is still in the queue (job {job}); `transfer jobs {folder.path.name}` shows it")


def submit_array(folder: BenchFolder, elements: Sequence[int], after: Sequence[str]) -> tuple[str, str]:
    """Submits these elements of the array, and the last job to run after them; returns both job ids."""
    for i in elements:
        (folder.status_dir / str(i)).unlink(missing_ok=True)
    wait = [f"--dependency=afterok:{':'.join(after)}", "--kill-on-invalid-dep=yes"] if after else []
    array = slurm.submit_script(folder.path / "bench.sbatch", f"--array={format_array_ranges(elements)}", *wait)
    slurm_jobs.record_job(folder.path, array)
    last = slurm.submit_script(folder.path / "compare.sbatch", f"--dependency=afterany:{array}")
    slurm_jobs.record_job(folder.path, last)
    write_json(folder.info_file, read_json(folder.info_file) | {"array": array, "compare": last})
    return array, last


def format_array_ranges(numbers: Sequence[int]) -> str:
    """Numbers in the format of `sbatch --array`: 0-3,7."""
    ranges: list[list[int]] = []
    for n in sorted(set(numbers)):
        if ranges and n == ranges[-1][1] + 1:
            ranges[-1][1] = n
        else:
            ranges.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges)
