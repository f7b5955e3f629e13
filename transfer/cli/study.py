"""`transfer study`: encoders, strategies, label fractions and seeds on tasks, from one file."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from encoders.runtime.cli import DeviceOption, advise_on_interrupt, make_console

if TYPE_CHECKING:
    from transfer.bench.bench_folder import BenchFolder


def study(
    file: Annotated[Path, typer.Argument(metavar="STUDY.yaml", help="the study; its keys are below")],
    name: Annotated[str | None, typer.Option(help="name of the study; its folder is benches/NAME  [default: that of the file]")] = None,
    device: DeviceOption = "auto",
    submit: Annotated[bool, typer.Option("--submit", help="submit the cells as a SLURM job array instead of computing them here")] = False,
    per: Annotated[
        Literal["encoder", "task", "cell"], typer.Option(help="with --submit: what an array task computes, see `transfer submit`")
    ] = "encoder",
    at_once: Annotated[int | None, typer.Option(min=1, help="with --submit: array tasks that may run at the same time")] = None,
    partition: Annotated[str | None, typer.Option(help="with --submit: SLURM partition; more in slurm.yaml")] = None,
    gpus: Annotated[str | None, typer.Option(help="with --submit: GPUs per array task; 0 requests none  [template: 1]")] = None,
    cpus: Annotated[int | None, typer.Option(help="with --submit: CPU cores per array task  [template: 8]")] = None,
    memory: Annotated[str | None, typer.Option(help="with --submit: memory per array task  [template: 32G]")] = None,
    time: Annotated[str | None, typer.Option(help="with --submit: time limit per array task  [template: 04:00:00]")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print the cells and how much they are, and compute nothing")] = False,
    report_only: Annotated[bool, typer.Option("--report-only", help="only the tables and the page, from the records that exist")] = False,
) -> None:
    """Compare ways of transferring: encoders x strategies x label fractions x seeds on tasks.

    For example

    \b
        transfer study how.yaml --dry-run       # how many trainings these are
        transfer study how.yaml                 # compute them here, then print the tables and write benches/how/report.html
        transfer study how.yaml --submit        # the same as a job array; `transfer jobs how` shows its state

    with the file how.yaml

    \b
        tasks: [pneumonia]
        encoders: [cxr_moco]                    # or a list for each task: {pneumonia: [cxr_moco], tissue: [path_moco]}
        strategies: [linear, last=2, lpft, full]
        imbalance: [class_weight, focal]        # each with every strategy; default: class_weight
        fractions: [50p, 200p, 1]               # labeled patients, or shares; 1: all
        seeds: 3                                # each with its own draw of the labeled patients
        settings: {finetune: {max_steps: 500}}

    Further keys: baselines (default: ImageNet and random weights), protocols (beside fine-tuning, e.g. [knn, linear]), search and trials
    (e.g. lr,weight_decay and 20: for every training), and options (of `transfer bench`, e.g. [--folds, "5"]).

    Results are records. If interrupted, rerun the same command to resume; a study that grows computes only what is new. The report says
    which strategy is chosen at each number of labels, how many labels it saves, and what it costs; all its verdicts are corrected together.

    Exit status: 0 all cells succeeded, 1 a cell failed (the tables show the others), 2 wrong usage.
    """
    from encoders.runtime.devices import resolve_device
    from encoders.runtime.errors import InputError
    from encoders.runtime.exclusive import exclusive_work
    from encoders.runtime.slurm_site import site_with_options
    from transfer.bench.bench_folder import bench_folder
    from transfer.cli.submit import check_cells
    from transfer.study.cells import describe_cells, list_study_cells
    from transfer.study.config import name_study, read_study
    from transfer.study.folder import write_study_folder

    job_options = {"at_once": at_once, "partition": partition, "gpus": gpus, "cpus": cpus, "memory": memory, "time": time}
    if given := [name for name, value in job_options.items() if value is not None and not submit]:
        raise InputError(f"--{given[0].replace('_', '-')} is about jobs; add --submit")
    if sum((submit, dry_run, report_only)) > 1:
        raise InputError("--submit, --dry-run and --report-only exclude each other; give one of them")
    own, folder = read_study(file), bench_folder(name_study(file, name))
    if report_only:
        report_study_folder(folder)
        return
    if not submit:  # a node may have a GPU where the login node has none
        resolve_device(device)
    found = list_study_cells(own, device)
    check_cells(list({cell.protocol: cell for cell in found.cells}.values()))  # other cells of a protocol have the same settings
    console = make_console(stderr=True)
    for left, reason in found.left_out.items():
        console.print(f"skipped: {left}: {reason}", markup=False, style="yellow")
    console.print(f"study {folder.path.name}: {describe_cells(own, found.cells)}", markup=False, soft_wrap=True)
    if dry_run:
        for number, cell in enumerate(found.cells):
            print(f"cell {number}: transfer bench {shlex.join(cell.arguments)}")
        return
    with exclusive_work(folder.path, f"computing study {folder.path.name!r}"):
        numbers = write_study_folder(folder, own, found.cells, site_with_options(job_options), per)
        if submit:
            from transfer.bench.slurm_array import submit_array
            from transfer.cli.submit import print_submission

            print_submission(folder, submit_array(folder, numbers, found.jobs), numbers)
            return
        from transfer.bench.bench_cells import compute_cells

        with advise_on_interrupt("finished results are saved; rerun the same command to resume"):
            failed = compute_cells(folder.commands_file.read_text().splitlines(), folder.status_dir, range(len(found.cells)))
    report_study_folder(folder)
    if failed:
        count = f"{failed} cell{'s' if failed > 1 else ''}"
        console.print(f"{count} failed; `transfer jobs {folder.path.name}` states why", markup=False, style="red")
        raise typer.Exit(1)


def report_study_folder(folder: "BenchFolder") -> None:
    """Prints the tables of a study, and writes them and the page into its folder."""
    from transfer.cli.compare import compare
    from transfer.cli.report import report

    name = folder.path.name
    compare(bench=name, csv=folder.path / "table.csv", markdown=folder.path / "table.md")
    report(bench=name, out=folder.path / "report.html")
