"""`transfer`: tasks, the bench, and comparisons from records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from encoders.runtime.cli import console, interruptible, listed, run, ticker
from transfer.cli_report import report
from transfer.cli_submit import jobs, submit
from transfer.cli_tasks import tasks_app

app = typer.Typer(
    help="`transfer`: an encoder and a labeled store become numbers one may believe.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
app.add_typer(tasks_app, name="tasks")
app.command()(report)
app.command()(submit)
app.command()(jobs)


def main() -> None:
    """The console command."""
    run(app)


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
    from transfer.bench import Ask, plan
    from transfer.bench import bench as compute
    from transfer.lineup import named_baselines
    from transfer.shifts import wanted as shifts_wanted
    from transfer.table import sections

    numbers, patients = _fractions(fractions)
    wanted = named_baselines(baseline)
    names, which = listed(task), listed(protocol)
    ask = Ask(
        encoders=encoder or [],
        tasks=names,
        protocols=which,
        baselines=wanted,
        seed=seed,
        device=_device(device),
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
        shifts=shifts_wanted(listed(shift), _whole("--strengths", strengths)),
        external=_external(external, map_, external_part),
    )
    out = console(stderr=True)
    say = lambda text: out.print(text, markup=False, style="dim")  # noqa: E731
    whole = plan(ask, say)
    with interruptible("what was scored is kept: the same command goes on"), ticker("bench", len(whole)) as tick:
        outcome = compute(ask, whole, say, tick)
    if outcome.reused:
        say(f"{outcome.reused} of {len(outcome.records)} results from records (--again computes them anew)")
    parts = sections(outcome.records, wanted[0] if wanted else None)
    _shown(outcome.records, parts, outcome.missing, csv, markdown)
    if outcome.made:
        from transfer import publish

        publish.encoders(parts, {entry.name: entry.card for entry in whole.entries})
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
    from encoders.runtime.errors import InputError, unknown
    from encoders.runtime.home import records_dir
    from transfer import decide, record, show, show_groups
    from transfer.seeds import checked
    from transfer.subgroups import parsed_bands
    from transfer.table import sections

    asked = decide.parsed(operating or "youden", prevalence)
    read = [record.read(path) for path in record.found(records or ())]
    known = {r.identity.task for r in read}
    for name in listed(task):
        if name not in known:
            raise unknown("task among the records", name, known)
    read = [r for r in read if not task or r.identity.task in listed(task)]
    if not read:
        raise InputError("there is no record yet; make some: `transfer bench --encoder NAME`")
    if baseline is not None and baseline not in (names := {r.identity.encoder for r in read}):
        raise unknown("encoder among the records", baseline, names)
    parts = sections(read, baseline, seeds_of=checked(listed(seeds_of), read))
    # What is wrong with the options is told before the table, not below it.
    decisions = decide.decided(parts, asked) if operating is not None or prevalence is not None else None
    groups = show_groups.found(parts, listed(by), parsed_bands(age_bands)) if by is not None else None
    _shown(read, parts, {}, csv, markdown)
    if decisions is not None:
        decide.printed(console(), decisions, asked)
        show.written(records_dir() / "operating.csv", decide.as_csv(decisions, asked))
    if groups is not None:
        show_groups.printed(console(), groups, show.names(parts))
        show.written(records_dir() / "subgroups.csv", show_groups.as_csv(groups))
    if wandb:
        _published(parts)


def _published(parts: Sequence[Any]) -> None:
    """Numbers of each encoder that is still here, and the leaderboard of all, in W&B."""
    from encoders import zoo
    from encoders.runtime.errors import InputError
    from transfer import publish

    cards = {}
    for name in dict.fromkeys(row.encoder for s in parts for row in s.rows):
        try:
            cards[name] = zoo.find(name).card
        except InputError:
            console(stderr=True).print(f"{name} is no longer here: it is in the leaderboard, without a run of its own", markup=False)
    publish.encoders(parts, cards)
    address = publish.leaderboard(parts)
    if address:
        print(f"W&B: {address}")


@app.command()
def sync(dry_run: Annotated[bool, typer.Option("--dry-run", help="list what would be sent, and send nothing")] = False) -> None:
    """Send the offline W&B runs of this working folder, in the order they were made. Exit status 1 when one could not be sent.

    A run that was requeued has several parts; sent in order, they become one run. What was sent is not sent again.
    """
    import subprocess
    import sys

    from encoders.runtime.home import home
    from transfer.publish import offline_runs

    found, failed = offline_runs(home()), 0
    for i, path in enumerate(found, 1):
        print(f"{i} of {len(found)}: {path.relative_to(home())}", flush=True)
        if not dry_run:
            failed += subprocess.run([sys.executable, "-m", "wandb", "sync", str(path)], cwd=path.parent.parent).returncode != 0
    if not found:
        print("nothing to send")
    if failed:
        console(stderr=True).print(f"{failed} of {len(found)} could not be sent; `wandb login`, or run this again later", markup=False)
        raise typer.Exit(1)


def _fractions(text: str) -> tuple[list[float], list[int]]:
    """`10%,0.5,20p` as fractions and numbers of patients."""
    from encoders.runtime.errors import InputError

    try:
        counts = [int(f[:-1]) for f in listed(text) if f.endswith("p")]
        return [float(f.rstrip("%")) / (100 if f.endswith("%") else 1) for f in listed(text) if not f.endswith("p")], counts
    except ValueError as wrong:
        raise InputError(
            f"--fractions is {text!r}; expected shares above 0 and at most 1, or numbers of patients, e.g. 0.01,10%,20p,1"
        ) from wrong


def _external(task: str | None, pairs: list[str] | None, part: str) -> Any:
    from encoders.runtime.errors import InputError
    from transfer.external import Ask

    if task is None and (pairs or part != "test"):
        raise InputError("--map and --external-part speak of an external task; name it with --external")
    return None if task is None else Ask(task, pairs or [], part)


def _whole(option: str, text: str) -> list[int]:
    from encoders.runtime.errors import InputError

    try:
        return [int(part) for part in listed(text)]
    except ValueError as wrong:
        raise InputError(f"{option} is {text!r}; expected whole numbers, e.g. 1,3,5") from wrong


def _device(name: str) -> str:
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


def _shown(records: Sequence[Any], parts: Sequence[Any], missing: dict[str, str], csv: Path | None, markdown: Path | None) -> None:
    """Prints the table of the records' sections, and writes it where asked and to the records' folder."""
    from encoders.runtime.home import records_dir
    from transfer import robust, show
    from transfer.firewall import lines, looks

    ledger = lines()
    seen = {h: looks(h, known=ledger) for s in parts for h in s.splits}
    show.printed(console(), parts, seen, missing)
    curves = robust.curves(records)
    if curves:
        robust.printed(console(), curves)
        show.written(records_dir() / "robustness.csv", robust.as_csv(curves))
    for path in filter(None, (markdown, records_dir() / "table.md")):
        show.written(path, show.markdown(parts, seen, missing))
    for path in filter(None, (csv, records_dir() / "table.csv")):
        show.written(path, show.as_csv(parts, seen, missing))
