"""`transfer`: tasks, the bench, and comparisons from records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from encoders.runtime.cli import advise_on_interrupt, make_console, progress_counter, run_cli, split_commas
from transfer.cli.report import report
from transfer.cli.submit import print_jobs, submit
from transfer.cli.tasks import tasks_app

app = typer.Typer(
    help="`transfer`: an encoder and a labeled store become numbers one may believe.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(tasks_app, name="tasks")
app.command()(report)
app.command()(submit)
app.command("jobs")(print_jobs)


def main() -> None:
    """The console command."""
    run_cli(app)


@app.command()
def bench(
    overrides: Annotated[list[str] | None, typer.Argument(help="settings of protocols, e.g. linear.steps=9 knn.vote=majority")] = None,
    encoder: Annotated[
        list[str] | None, typer.Option(help="zoo name, card path, runs/X, runs/X@step, imagenet_<arch>; repeat for several")
    ] = None,
    task: Annotated[str | None, typer.Option(help="tasks, a,b; default: all registered ones of the encoder's modality")] = None,
    protocol: Annotated[str, typer.Option(help="of knn, linear, fewshot, finetune, mil (slides)")] = "knn,linear",
    baseline: Annotated[
        list[str] | None,
        typer.Option(help="compare with this encoder, or `none`; default: ImageNet and random weights of the same network"),
    ] = None,
    seed: Annotated[int, typer.Option(help="of the protocols; the split has its own, in the task")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1; auto: cuda if there is one")] = "auto",
    again: Annotated[bool, typer.Option(help="compute anew what a record holds already")] = False,
    allow_leakage: Annotated[bool, typer.Option(help="run in spite of a leak, and stamp every record and table with it")] = False,
    near: Annotated[bool, typer.Option(help="look for near-duplicates too")] = True,
    fractions: Annotated[str, typer.Option(help="label fractions, by patient: shares, or numbers of train patients: 1%,20p,1")] = "1",
    draws: Annotated[int, typer.Option(help="draws of each fraction below 1")] = 1,
    external: Annotated[str | None, typer.Option(help="test on this task what is chosen on the one of --task")] = None,
    map_: Annotated[
        list[str] | None, typer.Option("--map", help="CLASS:CLASS, of --task and of --external; `-` for none; repeat until all are named")
    ] = None,
    external_part: Annotated[str, typer.Option(help="of the external task: test (its test part) or all (every image)")] = "test",
    folds: Annotated[int, typer.Option(help="patient-grouped cross-validation, with a seal for each fold; 1: the task's split")] = 1,
    shift: Annotated[
        str | None,
        typer.Option(help="score the test images under acquisition shifts too: of gamma, noise, blur, jpeg, rotate, crop, stain"),
    ] = None,
    strengths: Annotated[str, typer.Option(help="of the shifts, 1 (slight) to 5")] = "1,2,3,4,5",
    batch: Annotated[int, typer.Option(help="images at a time when embedding")] = 64,
    workers: Annotated[int, typer.Option(help="loader processes when embedding")] = 0,
    csv: Annotated[Path | None, typer.Option(help="write the table as CSV")] = None,
    markdown: Annotated[Path | None, typer.Option(help="write the table as Markdown")] = None,
) -> None:
    """Compare encoders with ImageNet and random weights on your tasks.

    For example

    \b
        transfer bench --encoder cxr_moco
        transfer bench --encoder cxr_moco --encoder cxr_mae --task pneumonia --protocol knn,linear,finetune
        transfer bench --encoder cxr_moco --protocol linear --fractions 1%,10%,100% --draws 5
        transfer bench --encoder cxr_moco --protocol linear --shift gamma,noise,blur
        transfer bench --encoder cxr_moco --task chexpert --external nih --map Edema:Edema --map 'Pleural Effusion:Effusion' --map=-:Hernia

    k, C, learning rate and epoch are chosen on validation patients; the test part is sealed until then, and each look at it is counted.
    Results are kept as records; asked again, the bench answers from them. Exit status: 0 all cells done, 1 a cell failed (the others are
    in the table), 2 a mistake in what was asked.
    """
    from transfer.bench.baselines import parse_baselines
    from transfer.bench.bench import BenchRequest, plan_bench
    from transfer.bench.bench import run_bench as compute
    from transfer.bench.shifts import expand_shifts as shifts_wanted
    from transfer.tables.rows import build_sections

    numbers, patients = _parse_fractions(fractions)
    wanted = parse_baselines(baseline)
    names, which = split_commas(task), split_commas(protocol)
    ask = BenchRequest(
        encoders=encoder or [],
        tasks=names,
        protocols=which,
        baselines=wanted,
        seed=seed,
        device=_resolve_device(device),
        again=again,
        allow_leakage=allow_leakage,
        near=near,
        fractions=numbers,
        patients=patients,
        draws=draws,
        folds=folds,
        batch=batch,
        workers=workers,
        overrides=overrides or [],
        shifts=shifts_wanted(split_commas(shift), _parse_integers("--strengths", strengths)),
        external=_parse_external(external, map_, external_part),
    )
    out = make_console(stderr=True)
    say = lambda text: out.print(text, markup=False, style="dim")  # noqa: E731
    whole = plan_bench(ask, say)
    with advise_on_interrupt("what was scored is kept: the same command goes on"), progress_counter("bench", len(whole)) as tick:
        outcome = compute(ask, whole, say, tick)
    if outcome.reused:
        say(f"{outcome.reused} of {len(outcome.records)} results from records (--again computes them anew)")
    parts = build_sections(outcome.records, wanted[0] if wanted else None)
    _print_and_save_tables(outcome.records, parts, outcome.missing, csv, markdown)
    if outcome.made:
        from transfer.tables import wandb_report

        wandb_report.publish_encoders(parts, {entry.name: entry.card for entry in whole.entries})
    if outcome.failed:
        raise typer.Exit(1)


@app.command()
def compare(
    records: Annotated[list[Path] | None, typer.Argument(help="records or folders of them; default: all of this working folder")] = None,
    task: Annotated[str | None, typer.Option(help="only these tasks, a,b")] = None,
    baseline: Annotated[
        str | None, typer.Option(help="the encoder that differences are to; default: ImageNet weights of the same network")
    ] = None,
    seeds_of: Annotated[
        str | None, typer.Option(help="encoders a,b,c that one recipe gave with different seeds; cards that say so need no option")
    ] = None,
    by: Annotated[str | None, typer.Option(help="also by group of test images: columns of /meta, e.g. sex,age,view,site")] = None,
    age_bands: Annotated[str, typer.Option(help="ages in years at which a band begins")] = "18,40,65",
    operating: Annotated[
        str | None,
        typer.Option(help="rule of the thresholds, on validation patients: youden, sensitivity=T or specificity=T, e.g. sensitivity=0.95"),
    ] = None,
    prevalence: Annotated[float | None, typer.Option(help="prevalence that PPV and NPV are for; default: that of the test part")] = None,
    csv: Annotated[Path | None, typer.Option(help="write the table as CSV")] = None,
    markdown: Annotated[Path | None, typer.Option(help="write the table as Markdown")] = None,
    wandb: Annotated[bool, typer.Option(help="publish numbers and leaderboard in W&B; online also a workspace and a report")] = False,
) -> None:
    """The same table from records alone; a record that was edited is refused.

    For example

    \b
        transfer compare
        transfer compare --task pneumonia --by sex,age --age-bands 2,5,12
        transfer compare --task pneumonia --operating sensitivity=0.95 --prevalence 0.02

    The verdict is about the checkpoints that were tested. Where several pretraining seeds of one recipe were benched, a row about the
    recipe comes first, whose intervals hold the spread over seeds too.

    With --operating or --prevalence, a table of decisions follows: sensitivity and specificity with intervals, PPV and NPV at the
    prevalence that is stated (records/operating.csv). Balanced accuracy above stays at Youden's threshold.

    With --by, every metric of every group goes to records/subgroups.csv, with the gap of its AUROC to all other test images.
    """
    from encoders.runtime.errors import InputError, unknown_name_error
    from encoders.runtime.paths import records_dir
    from transfer.records import record
    from transfer.tables import operating_points, render, render_subgroups
    from transfer.tables.rows import build_sections
    from transfer.tables.seed_rows import validate_seed_encoders
    from transfer.tables.subgroups import parse_age_bands

    asked = operating_points.parse_operating_rule(operating or "youden", prevalence)
    read = [record.read_record(path) for path in record.find_records(records or ())]
    known = {r.identity.task for r in read}
    for name in split_commas(task):
        if name not in known:
            raise unknown_name_error("task among the records", name, known)
    read = [r for r in read if not task or r.identity.task in split_commas(task)]
    if not read:
        raise InputError("there is no record yet; make some: `transfer bench --encoder NAME`")
    if baseline is not None and baseline not in (names := {r.identity.encoder for r in read}):
        raise unknown_name_error("encoder among the records", baseline, names)
    parts = build_sections(read, baseline, seeds_of=validate_seed_encoders(split_commas(seeds_of), read))
    # What is wrong with the options is told before the table, not below it.
    decisions = operating_points.gather_decisions(parts, asked) if operating is not None or prevalence is not None else None
    groups = render_subgroups.gather_subgroups(parts, split_commas(by), parse_age_bands(age_bands)) if by is not None else None
    _print_and_save_tables(read, parts, {}, csv, markdown)
    if decisions is not None:
        operating_points.print_decisions(make_console(), decisions, asked)
        render.write_table(records_dir() / "operating.csv", operating_points.decisions_to_csv(decisions, asked))
    if groups is not None:
        render_subgroups.print_subgroups(make_console(), groups, render.shorten_names(parts))
        render.write_table(records_dir() / "subgroups.csv", render_subgroups.subgroups_to_csv(groups))
    if wandb:
        _publish(parts)


def _publish(parts: Sequence[Any]) -> None:
    """Numbers of each encoder that is still here, and the leaderboard of all, in W&B."""
    from encoders.runtime.errors import InputError
    from encoders.zoo import zoo
    from transfer.tables import wandb_report

    cards = {}
    for name in dict.fromkeys(row.encoder for s in parts for row in s.rows):
        try:
            cards[name] = zoo.find_encoder(name).card
        except InputError:
            make_console(stderr=True).print(f"{name} is no longer here: it is in the leaderboard, without a run of its own", markup=False)
    wandb_report.publish_encoders(parts, cards)
    address = wandb_report.publish_leaderboard(parts)
    if address:
        print(f"W&B: {address}")


@app.command()
def sync(dry_run: Annotated[bool, typer.Option("--dry-run", help="list what would be sent, and send nothing")] = False) -> None:
    """Send the offline W&B runs of this working folder, in the order they were made. Exit status 1 when one could not be sent.

    A run that was requeued has several parts; sent in order, they become one run. What was sent is not sent again.
    """
    import subprocess
    import sys

    from encoders.runtime.paths import home_dir
    from transfer.tables.wandb_report import find_offline_runs

    found, failed = find_offline_runs(home_dir()), 0
    for i, path in enumerate(found, 1):
        print(f"{i} of {len(found)}: {path.relative_to(home_dir())}", flush=True)
        if not dry_run:
            failed += subprocess.run([sys.executable, "-m", "wandb", "sync", str(path)], cwd=path.parent.parent).returncode != 0
    if not found:
        print("nothing to send")
    if failed:
        make_console(stderr=True).print(f"{failed} of {len(found)} could not be sent; `wandb login`, or run this again later", markup=False)
        raise typer.Exit(1)


def _parse_fractions(text: str) -> tuple[list[float], list[int]]:
    """`10%,0.5,20p` as fractions and numbers of patients."""
    from encoders.runtime.errors import InputError

    try:
        counts = [int(f[:-1]) for f in split_commas(text) if f.endswith("p")]
        return [float(f.rstrip("%")) / (100 if f.endswith("%") else 1) for f in split_commas(text) if not f.endswith("p")], counts
    except ValueError as wrong:
        raise InputError(
            f"--fractions is {text!r}; expected shares above 0 and at most 1, or numbers of patients, e.g. 0.01,10%,20p,1"
        ) from wrong


def _parse_external(task: str | None, pairs: list[str] | None, part: str) -> Any:
    from encoders.runtime.errors import InputError
    from transfer.bench.external import ExternalRequest

    if task is None and (pairs or part != "test"):
        raise InputError("--map and --external-part speak of an external task; name it with --external")
    return None if task is None else ExternalRequest(task, pairs or [], part)


def _parse_integers(option: str, text: str) -> list[int]:
    from encoders.runtime.errors import InputError

    try:
        return [int(part) for part in split_commas(text)]
    except ValueError as wrong:
        raise InputError(f"{option} is {text!r}; expected whole numbers, e.g. 1,3,5") from wrong


def _resolve_device(name: str) -> str:
    """`auto` resolved. Raises InputError for a device that is not there."""
    import torch

    from encoders.runtime.errors import InputError

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as wrong:
        raise InputError(f"--device {name} cannot be used: {str(wrong).splitlines()[0]}") from wrong
    return name


def _print_and_save_tables(
    records: Sequence[Any], parts: Sequence[Any], missing: dict[str, str], csv: Path | None, markdown: Path | None
) -> None:
    """Prints the table of the records' sections, and writes it where asked and to the records' folder."""
    from encoders.runtime.paths import records_dir
    from transfer.records.test_seal import count_split_usage, read_ledger
    from transfer.tables import render, shift_curves

    ledger = read_ledger()
    seen = {h: count_split_usage(h, known=ledger) for s in parts for h in s.splits}
    render.print_results(make_console(), parts, seen, missing)
    curves = shift_curves.build_shift_curves(records)
    if curves:
        shift_curves.print_shift_tables(make_console(), curves)
        render.write_table(records_dir() / "robustness.csv", shift_curves.shift_curves_to_csv(curves))
    for path in filter(None, (markdown, records_dir() / "table.md")):
        render.write_table(path, render.results_to_markdown(parts, seen, missing))
    for path in filter(None, (csv, records_dir() / "table.csv")):
        render.write_table(path, render.results_to_csv(parts, seen, missing))
