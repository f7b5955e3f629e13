"""`transfer tasks`: register, list, check and remove tasks."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from encoders.runtime.cli import make_console
from transfer.cli.tasks_add import add, print_part_counts
from transfer.tasks.options import Part

if TYPE_CHECKING:
    pass

tasks_app = typer.Typer(
    help="Register and check tasks: labeled stores with a split by patient.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
TaskName = Annotated[str, typer.Argument(help="name of a registered task")]


tasks_app.command()(add)


@tasks_app.command("list")
def print_tasks() -> None:
    """List the registered tasks."""
    from rich.table import Table

    from transfer.tasks.task import list_tasks, read_task

    names = list_tasks()
    if not names:
        make_console().print("no task is registered yet; register one: transfer tasks add NAME STORE --label COLUMN", markup=False)
        return
    table = Table("task", "modality", "kind", "labels", "store", "split")
    for name in names:
        task = read_task(name)
        split = f"official ({task.split.source})" if task.split.source else f"random, seed {task.split.seed}"
        table.add_row(name, task.modality or "", task.kind, ", ".join(task.labels), ", ".join(task.store), split)
    make_console().print(table)


@tasks_app.command("recipes")
def print_recipes(name: Annotated[str | None, typer.Argument(help="show only this recipe  [default: all]")] = None) -> None:
    """List known data sets and the commands to use them.

    Prints labels, licence, citation, how to get the data, and the commands that ingest it and add the task.
    """
    from transfer.tasks.recipes import RECIPES, load_recipe

    console = make_console()
    for recipe_name in [name] if name else RECIPES:
        recipe = load_recipe(recipe_name)
        console.print(f"{recipe_name}: {recipe.title}", markup=False, style="bold")
        facts = {"labels": ", ".join(recipe.labels), "licence": recipe.licence, "citation": recipe.citation, "note": recipe.note}
        lines = [(title, text) for title, text in {**facts, "get": recipe.get}.items() if text]
        lines += [("ingest", command) for command in recipe.ingest]
        for title, text in [*lines, ("task", recipe.add_command(recipe_name))]:
            console.print(f"  {title}: {text}", markup=False, soft_wrap=True)  # a wrapped command cannot be pasted


@tasks_app.command()
def show(name: TaskName) -> None:
    """Print a task's settings and the size of its parts."""
    from encoders.runtime.config import to_yaml
    from transfer.tasks.load import load_task
    from transfer.tasks.task import read_task

    task, console = read_task(name), make_console()
    console.print(to_yaml(task), markup=False)
    loaded = load_task(task)
    for line in loaded.messages:
        console.print(line, markup=False)
    print_part_counts(console, loaded)


@tasks_app.command()
def check(name: TaskName) -> None:
    """Check your copy of a data set against its task and recipe.

    The checks cover unreadable files, changed pixels, label columns and values, documented counts and classes, official lists, and patients
    or images in two parts.

    Exit status: 0 nothing is wrong (there may be warnings), 1 something is wrong, 2 wrong usage.
    """
    from rich.table import Table

    from transfer.tasks.check import check_task
    from transfer.tasks.task import read_task

    results = check_task(read_task(name))
    table, styles = Table("", "question", "expected", "found"), {"ok": None, "warning": "yellow", "wrong": "red"}
    for r in results:
        table.add_row(r.verdict, *map(escape, (r.question, r.expected, r.found)), style=styles[r.verdict])
    console = make_console()
    console.print(table)
    n = Counter(r.verdict for r in results)
    console.print(f"{name}: {n['wrong']} wrong, {n['warning']} warnings, {n['ok']} ok", markup=False)
    if n["wrong"]:
        raise typer.Exit(1)


@tasks_app.command()
def remove(name: TaskName) -> None:
    """Unregister a task; its store and records are kept."""
    from transfer.tasks.task import remove_task

    remove_task(name)
    make_console().print(f"task {name} was removed; its store and records are kept", markup=False)


@tasks_app.command("keys")
def print_keys(
    name: TaskName,
    part: Annotated[Part, typer.Option(help="part of the split")] = "train",
    out: Annotated[Path | None, typer.Option(help="file to write; default: standard output")] = None,
) -> None:
    """Print the image keys of one part.

    Use them to pretrain on the train part only: `pretrain run RECIPE data.keys=FILE`.
    """
    from encoders.runtime.files import atomic_write
    from transfer.tasks.load import load_task
    from transfer.tasks.sealed_list import write_test_list
    from transfer.tasks.task import read_task

    loaded = load_task(read_task(name))
    write_test_list(loaded)
    text = "".join(f"{key}\n" for key in loaded.key[loaded.split.rows(part)])
    if out is None:
        typer.echo(text, nl=False)
        return
    with atomic_write(out) as file:
        file.write_text(text)
    make_console(stderr=True).print(f"{text.count(chr(10))} keys of the {part} part of {name} written to {out}", markup=False)
