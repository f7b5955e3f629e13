"""`transfer tasks`: what there is to be benched on."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from encoders.runtime.cli import make_console

tasks_app = typer.Typer(help="Labeled stores as tasks.", no_args_is_help=True, rich_markup_mode=None)


@tasks_app.command()
def add(
    name: Annotated[str, typer.Argument(help="what the task will be called")],
    store: Annotated[list[str], typer.Argument(help="store, or several (a pattern will do)")],
    label: Annotated[list[str] | None, typer.Option(help="label column by name; several make a multi-label task")] = None,
    recipe: Annotated[str | None, typer.Option(help="known data set (`transfer tasks recipes`), or a YAML file like theirs")] = None,
    labels: Annotated[Path | None, typer.Option(help="CSV that brings the labels, joined by name; default: the store's labels")] = None,
    file_column: Annotated[str | None, typer.Option(help="column of that CSV that names the image  [default: key or file]")] = None,
    kind: Annotated[str | None, typer.Option(help="binary, multiclass or multilabel; default: inferred from the labels")] = None,
    positive: Annotated[str | None, typer.Option(help="the class that counts as positive; default: the last of two by name")] = None,
    keep: Annotated[list[str] | None, typer.Option(help="class to keep, images of others are left out; may be repeated")] = None,
    uncertain: Annotated[
        str | None, typer.Option(help="what an uncertain label (-1) counts as: ones, zeros, ignore, multiclass or smoothed")
    ] = None,
    blank: Annotated[str | None, typer.Option(help="what an empty label counts as: ignore (unknown) or zeros (absent)")] = None,
    split_column: Annotated[
        str | None,
        typer.Option(help="column with the official split, or `none` for an own one by patient; default: `split` if the store has one"),
    ] = None,
    split_list: Annotated[
        list[str] | None, typer.Option(help="PART=FILE: an official list with an image name a line; repeat for train, val, test")
    ] = None,
    patients_by_split: Annotated[bool, typer.Option(help="equal patient ids in different official parts are different people")] = False,
    seed: Annotated[int | None, typer.Option(help="of the split  [default: 0]")] = None,
    val: Annotated[float | None, typer.Option(help="share of validation patients  [default: 0.2]")] = None,
    test: Annotated[float | None, typer.Option(help="share of test patients in an own split  [default: 0.2]")] = None,
    replace: Annotated[bool, typer.Option(help="change a task that exists")] = False,
) -> None:
    """Register a task: a store, its label columns, and how its patients are split.

    For example

    \b
        transfer tasks add pneumonia cxr.h5 --label pneumonia
        transfer tasks add effusion chexpert.h5 --label 'Pleural Effusion' --uncertain ones --blank zeros
        transfer tasks add nih nih.h5 --recipe nih_chestxray14      # `transfer tasks recipes` shows the known data sets
    """
    from encoders.runtime.errors import unknown_name_error
    from encoders.store.store import Store
    from transfer.tasks import load
    from transfer.tasks import task as tasks
    from transfer.tasks.register import build_task
    from transfer.tasks.uncertain_labels import BLANK_POLICIES, UNCERTAIN_POLICIES

    for what, text, known in (
        ("kind of task", kind, ("binary", "multiclass", "multilabel")),
        ("policy for uncertain labels", uncertain, UNCERTAIN_POLICIES),
        ("policy for empty labels", blank, BLANK_POLICIES),
    ):
        if text is not None and text not in known:
            raise unknown_name_error(what, text, known)
    opened = Store.open(store)
    rule = {"column": split_column, "seed": seed, "val": val, "test": test, "patients_by_split": patients_by_split or None}
    target = {"labels": label, "csv": labels and tasks.to_portable_path(labels), "csv_on": file_column, "kind": kind, "positive": positive}
    given: dict[str, Any] = _drop_none({**target, "keep": keep, "policy": _drop_none({"uncertain": uncertain, "blank": blank}) or None})
    given["split"] = _drop_none({**rule, "lists": _parse_split_lists(split_list or [])})
    made, read = build_task(name, store, opened, given, recipe)
    loaded = load.load_task(made)
    path = tasks.save_task(made, replace)
    out = make_console()
    out.print(f"task {name} ({path})", markup=False)
    of = f"column {made.split.column}" if made.split.column else made.split.source
    where = f"official, {of}" if of else f"own, by patient, seed {made.split.seed}"
    for line in [*read.said, *loaded.split.said, f"split: {where}"]:
        out.print(f"  {line}", markup=False)
    _print_part_counts(out, loaded)


def _drop_none(values: dict[str, Any]) -> dict[str, Any]:
    """Those that the user gave."""
    return {name: value for name, value in values.items() if value is not None}


def _parse_split_lists(given: list[str]) -> dict[str, str] | None:
    """`train=FILE` as {"train": "FILE"}."""
    from encoders.runtime.errors import InputError
    from transfer.tasks.task import to_portable_path

    pairs = [text.partition("=") for text in given]
    if any(not equals or not path for _, equals, path in pairs):
        raise InputError(f"--split-list is {given}; expected PART=FILE, e.g. --split-list test=test_list.txt")
    return {part: to_portable_path(path) for part, _, path in pairs} or None


@tasks_app.command("list")
def print_tasks() -> None:
    """The registered tasks."""
    from rich.table import Table

    from transfer.tasks import task as tasks

    table = Table("task", "modality", "kind", "labels", "store", "split")
    for name in tasks.list_tasks():
        t = tasks.read_task(name)
        rule = f"official ({t.split.source})" if t.split.source else f"own, seed {t.split.seed}"
        table.add_row(name, t.modality or "", t.kind, ", ".join(t.labels), ", ".join(t.store), rule)
    if not tasks.list_tasks():
        make_console().print("no task yet; register one: transfer tasks add NAME STORE --label COLUMN", markup=False)
        return
    make_console().print(table)


@tasks_app.command("recipes")
def print_recipes(name: Annotated[str | None, typer.Argument(help="only this one  [default: all]")] = None) -> None:
    """Known data sets: labels, licence, how to get them, and the commands to type."""
    from transfer.tasks.recipes import find_recipes, load_recipe

    out = make_console()
    for each in [name] if name else find_recipes():
        r = load_recipe(each)
        out.print(f"{each}: {r.title}", markup=False, style="bold")
        told = {"labels": ", ".join(r.labels), "licence": r.licence, "citation": r.citation, "note": r.note, "get": r.get}
        lines = [(what, text) for what, text in told.items() if text] + [("ingest", command) for command in r.ingest]
        for what, text in [*lines, ("task", r.add or f"transfer tasks add {each} STORE --recipe {each}")]:
            out.print(f"  {what}: {text}", markup=False, soft_wrap=True)  # a command that was wrapped cannot be pasted


@tasks_app.command()
def show(name: Annotated[str, typer.Argument(help="a registered task")]) -> None:
    """What a task is, and how many patients and labels each part holds."""
    from encoders.runtime.config import to_yaml
    from transfer.tasks import load
    from transfer.tasks import task as tasks

    task, out = tasks.read_task(name), make_console()
    out.print(to_yaml(task), markup=False)
    loaded = load.load_task(task)
    for line in loaded.said:
        out.print(line, markup=False)
    _print_part_counts(out, loaded)


@tasks_app.command()
def check(name: Annotated[str, typer.Argument(help="a registered task")]) -> None:
    """Hold your copy of a data set against its task and recipe.

    Looks for files that could not be read, pixels that changed, label columns and values, documented counts and classes, official lists,
    and patients or images in two parts.

    Exit status: 0 nothing is wrong (there may be warnings), 1 something is, 2 a mistake in the command.
    """
    from rich.table import Table

    from transfer.tasks import task as tasks
    from transfer.tasks.check import check_task as findings

    found = findings(tasks.read_task(name))
    table, colour = Table("", "question", "expected", "found"), {"ok": "green", "warning": "yellow", "wrong": "red"}
    for f in found:
        table.add_row(f.verdict, *map(escape, (f.what, f.expected, f.found)), style=None if f.verdict == "ok" else colour[f.verdict])
    out = make_console()
    out.print(table)
    n = Counter(f.verdict for f in found)
    out.print(f"{name}: {n['wrong']} wrong, {n['warning']} warnings, {n['ok']} in order", markup=False)
    if n["wrong"]:
        raise typer.Exit(1)


@tasks_app.command()
def remove(name: Annotated[str, typer.Argument(help="a registered task")]) -> None:
    """Unregister a task; its store and records stay."""
    from transfer.tasks import task as tasks

    tasks.remove_task(name)
    make_console().print(f"task {name} is gone; its store and records stay", markup=False)


@tasks_app.command("keys")
def print_keys(
    name: Annotated[str, typer.Argument(help="a registered task")],
    part: Annotated[str, typer.Option(help="train, val or test")] = "train",
    out: Annotated[Path | None, typer.Option(help="file to write; default: standard output")] = None,
) -> None:
    """The image keys of one part, so that pretraining can be kept to it: pretrain run RECIPE data.keys=FILE."""
    from encoders.runtime.errors import unknown_name_error
    from encoders.runtime.files import atomic_write
    from transfer.tasks import load
    from transfer.tasks import task as tasks
    from transfer.tasks.split import PARTS

    if part not in PARTS:
        raise unknown_name_error("part", part, PARTS)
    loaded = load.load_task(tasks.read_task(name))
    text = "".join(f"{key}\n" for key in loaded.key[loaded.split.rows(part)])
    if out is None:
        typer.echo(text, nl=False)
        return
    with atomic_write(out) as file:
        file.write_text(text)
    make_console(stderr=True).print(f"{text.count(chr(10))} keys of the {part} part of {name} in {out}", markup=False)


def _print_part_counts(out: Any, loaded: Any) -> None:
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
