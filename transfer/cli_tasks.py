"""`transfer tasks`: what there is to be benched on."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer

from encoders.runtime.cli import console

tasks_app = typer.Typer(help="Labeled stores as tasks.", no_args_is_help=True, rich_markup_mode=None)


@tasks_app.command()
def add(
    name: Annotated[str, typer.Argument(help="what the task will be called")],
    store: Annotated[list[str], typer.Argument(help="store, or several (a pattern will do)")],
    label: Annotated[list[str] | None, typer.Option(help="label column by name; several make a multi-label task")] = None,
    recipe: Annotated[str | None, typer.Option(help="known data set (`transfer tasks recipes`), or a YAML file like theirs")] = None,
    labels: Annotated[
        Path | None, typer.Option(help="CSV that brings the labels, joined on `key` or `file`; default: the store's labels")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="binary, multiclass or multilabel; default: inferred from the labels")] = None,
    positive: Annotated[str | None, typer.Option(help="the class that counts as positive; default: the last of two by name")] = None,
    split_column: Annotated[
        str | None,
        typer.Option(help="column with the official split, or `none` for an own one by patient; default: `split` if the store has one"),
    ] = None,
    patients_by_split: Annotated[bool, typer.Option(help="equal patient ids in different official parts are different people")] = False,
    seed: Annotated[int, typer.Option(help="of the split")] = 0,
    val: Annotated[float, typer.Option(help="share of validation patients")] = 0.2,
    test: Annotated[float, typer.Option(help="share of test patients in an own split")] = 0.2,
    replace: Annotated[bool, typer.Option(help="change a task that exists")] = False,
) -> None:
    """Register a task: a store, its label columns, and how its patients are split."""
    from encoders.runtime.config import validated
    from encoders.runtime.errors import InputError, unknown
    from transfer import data
    from transfer import task as tasks

    if kind not in (None, "binary", "multiclass", "multilabel"):
        raise unknown("kind of task", str(kind), ["binary", "multiclass", "multilabel"])
    from encoders.store import Store
    from transfer.recipes import load

    if recipe is not None:
        known = load(recipe)
        label, kind, positive = label or known.labels, kind or known.kind, positive or known.positive
        patients_by_split = patients_by_split or (split_column is None and known.patients_by_split)
        split_column = split_column or known.split_column
    if not label:
        raise InputError("no label column was given; name one with --label COLUMN, or a known data set with --recipe")
    opened = Store.open(store)
    csv = tasks.portable(labels) if labels else None
    target = data.read_targets(opened, label, csv, kind, positive)
    column = None if split_column == "none" else split_column or data.default_column(opened)
    if column is None and patients_by_split:
        raise InputError("--patients-by-split is about an official split; name its column with --split-column")
    rule = validated(
        tasks.Rule, {"column": column, "seed": seed, "val": val, "test": test, "patients_by_split": patients_by_split}, "the split"
    )
    made = tasks.Task(
        name=name,
        store=[tasks.portable(s) for s in store],
        labels=label,
        kind=target.kind,  # type: ignore[arg-type]
        classes=target.classes,
        positive=positive,
        csv=csv,
        split=rule,
        modality=opened.modality,
    )
    loaded = data.load(made)
    path = tasks.save(made, replace)
    out = console()
    out.print(f"task {name} ({path})", markup=False)
    for line in [*target.said, *loaded.split.said, f"split: {f'official, column {column}' if column else f'own, by patient, seed {seed}'}"]:
        out.print(f"  {line}", markup=False)
    _table(out, loaded)


@tasks_app.command("list")
def listing() -> None:
    """The registered tasks."""
    from rich.table import Table

    from transfer import task as tasks

    table = Table("task", "modality", "kind", "labels", "store", "split")
    for name in tasks.names():
        t = tasks.load(name)
        rule = f"official ({t.split.column})" if t.split.column else f"own, seed {t.split.seed}"
        table.add_row(name, t.modality or "", t.kind, ", ".join(t.labels), ", ".join(t.store), rule)
    if not tasks.names():
        console().print("no task yet; register one: transfer tasks add NAME STORE --label COLUMN", markup=False)
        return
    console().print(table)


@tasks_app.command()
def recipes() -> None:
    """Known data sets: labels, licence, and how to get them."""
    from transfer.recipes import found, load

    out = console()
    for name in found():
        r = load(name)
        out.print(f"{name}: {r.title}", markup=False, style="bold")
        told = {"labels": ", ".join(r.labels), "licence": r.licence, "citation": r.citation, "get": r.get, "ingest": r.ingest}
        for what, text in told.items():
            out.print(f"  {what}: {text}", markup=False)
        out.print(f"  task: transfer tasks add {name} STORE --recipe {name}", markup=False)


@tasks_app.command()
def show(name: Annotated[str, typer.Argument(help="a registered task")]) -> None:
    """What a task is, and how many patients and labels each part holds."""
    from encoders.runtime.config import to_yaml
    from transfer import data
    from transfer import task as tasks

    task, out = tasks.load(name), console()
    out.print(to_yaml(task), markup=False)
    loaded = data.load(task)
    for line in loaded.said:
        out.print(line, markup=False)
    _table(out, loaded)


@tasks_app.command()
def remove(name: Annotated[str, typer.Argument(help="a registered task")]) -> None:
    """Unregister a task; its store and records stay."""
    from transfer import task as tasks

    tasks.remove(name)
    console().print(f"task {name} is gone; its store and records stay", markup=False)


@tasks_app.command()
def keys(
    name: Annotated[str, typer.Argument(help="a registered task")],
    part: Annotated[str, typer.Option(help="train, val or test")] = "train",
    out: Annotated[Path | None, typer.Option(help="file to write; default: standard output")] = None,
) -> None:
    """The image keys of one part, so that pretraining can be kept to it: pretrain run RECIPE data.keys=FILE."""
    from encoders.runtime.errors import unknown
    from encoders.runtime.files import atomic
    from transfer import data
    from transfer import task as tasks
    from transfer.split import PARTS

    if part not in PARTS:
        raise unknown("part", part, PARTS)
    loaded = data.load(tasks.load(name))
    text = "".join(f"{key}\n" for key in loaded.key[loaded.split.rows(part)])
    if out is None:
        typer.echo(text, nl=False)
        return
    with atomic(out) as file:
        file.write_text(text)
    console(stderr=True).print(f"{text.count(chr(10))} keys of the {part} part of {name} in {out}", markup=False)


def _table(out: Any, loaded: Any) -> None:
    """Patients, images and positives of each part."""
    import numpy as np
    from rich.table import Table

    table = Table("part", "patients", "images", *loaded.task.classes)
    counts = loaded.counts()
    for part, n in counts.items():
        y = loaded.y[loaded.split.rows(part)]
        found = [f"{int(np.nansum(y[:, c]))} of {int(np.isfinite(y[:, c]).sum())}" for c in range(y.shape[1])]
        table.add_row(part, str(n["patients"]), str(n["images"]), *found)
    out.print(table)
    left_out = Counter(loaded.split.part.tolist())[""]
    if left_out:
        out.print(f"  {left_out} images of the store are in no part", markup=False)
