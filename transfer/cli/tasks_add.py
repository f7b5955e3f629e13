"""`transfer tasks add`."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encoders.ingest.options import CombineMode
from encoders.runtime.cli import make_console, split_commas
from transfer.cli.task_options import drop_none, parse_classes, parse_findings, parse_split_lists, parse_split_values, require_table
from transfer.tasks.options import BlankPolicy, TaskKind, UncertainPolicy

if TYPE_CHECKING:
    from rich.console import Console

    from transfer.tasks.load import LoadedTask


def add(
    name: Annotated[str, typer.Argument(help="name of the new task")],
    store: Annotated[list[str], typer.Argument(help="store file or files, or a glob pattern")],
    label: Annotated[
        list[str] | None, typer.Option("--label", "--label-column", help="label column; repeat for a multi-label task")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="known data set (`transfer tasks recipes` lists them), or a recipe file ending in .yaml")
    ] = None,
    labels: Annotated[
        list[Path] | None,
        typer.Option(
            help="table with the labels (CSV, TSV, Excel, Parquet), joined by image name, study or patient; repeat to join several; "
            "default: the store's labels"
        ),
    ] = None,
    file_column: Annotated[
        str | None,
        typer.Option(
            "--file-column", "--join-column", help="column of that table with image names  [default: key, file or another usual name]"
        ),
    ] = None,
    column_names: Annotated[
        str | None,
        typer.Option(help="NAME,NAME,...: names of the first columns of a table of labels that has no line of names"),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="only rows of that table with this value, e.g. 'view=PA|AP'; images of others have no label; repeatable"),
    ] = None,
    derive: Annotated[
        list[str] | None, typer.Option(help="new column of 0 and 1 of that table, e.g. pneumothorax=EncodedPixels!=-1; repeatable")
    ] = None,
    on: Annotated[
        list[str] | None, typer.Option(help="column on which several --labels are joined; repeatable  [default: all that they share]")
    ] = None,
    combine: Annotated[
        CombineMode | None,
        typer.Option(help="rows of one image that disagree: error, max, any, mean or majority (of rows or readers)  [default: error]"),
    ] = None,
    reader_column: Annotated[
        str | None, typer.Option(help='column of readers, one vote each in mean and majority  [default: guessed; "": rows vote]')
    ] = None,
    kind: Annotated[TaskKind | None, typer.Option(help="kind of task; default: inferred from the labels")] = None,
    positive: Annotated[
        str | None, typer.Option(help="class that counts as positive; default: the last of two, in alphabetical order")
    ] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(
            help="classes to keep, comma-separated; images of other classes are excluded. Repeat the option, one class each, if a class "
            "contains a comma"
        ),
    ] = None,
    list_column: Annotated[
        str | None, typer.Option(help="text column with lists of findings: a|b, or a, b, ['a', 'b'], JSON; an empty list is unknown")
    ] = None,
    finding: Annotated[
        list[str] | None,
        typer.Option(help="findings of --list-column, e.g. pneumonia,effusion: a label of 0 and 1 each; repeat it for names with commas"),
    ] = None,
    list_separator: Annotated[str | None, typer.Option(help="what divides the lists  [default: found: | ; new line , or brackets]")] = None,
    order: Annotated[
        list[str] | None,
        typer.Option(
            help="classes from lowest to highest, comma-separated, e.g. normal,mild,moderate,severe, or `numeric` for classes that are "
            "numbers; adds quadratic kappa. Repeat the option, one class each, if a class contains a comma"
        ),
    ] = None,
    uncertain: Annotated[
        UncertainPolicy | None,
        typer.Option(
            help="how to count uncertain labels (-1): as present (ones), absent (zeros), unknown (ignore), a class of their own "
            "(multiclass), or with random targets in training (smoothed)"
        ),
    ] = None,
    blank: Annotated[BlankPolicy | None, typer.Option(help="how to count empty labels: as unknown (ignore) or absent (zeros)")] = None,
    split_column: Annotated[
        str | None,
        typer.Option(
            help="column with the official split, or `none` for a random split by patient; default: `split` if the store has that column"
        ),
    ] = None,
    split_list: Annotated[
        list[str] | None, typer.Option(help="PART=FILE, an official list with one image name per line; repeat for train, val, test")
    ] = None,
    split_value: Annotated[
        list[str] | None,
        typer.Option(
            help="PART=VALUE, what a value of the split column is, e.g. test=valid, or exclude=unused; repeatable. Train, dev, Test_set "
            "and the numbers 0, 1, 2 need none"
        ),
    ] = None,
    patients_by_split: Annotated[
        bool, typer.Option(help="treat equal patient ids in different official parts as different patients")
    ] = False,
    same_people: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME,NAME: data sets whose equal patient ids are the same people; default: ids of two data sets are different people"
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="seed of the split  [default: 0]")] = None,
    val: Annotated[float | None, typer.Option(help="share of validation patients  [default: 0.2]")] = None,
    test: Annotated[float | None, typer.Option(help="share of test patients in a random split  [default: 0.2]")] = None,
    replace: Annotated[bool, typer.Option(help="replace an existing task of that name")] = False,
) -> None:
    """Register a task: a labeled store and a split by patient.

    For example

    \b
        transfer tasks add pneumonia cxr.h5 --label pneumonia
        transfer tasks add grade fundus.h5 --label grade --order normal,mild,moderate,severe
        transfer tasks add effusion chexpert.h5 --label 'Pleural Effusion' --uncertain ones --blank zeros
        transfer tasks add padchest padchest.h5 --list-column Labels --finding pneumonia,cardiomegaly
        transfer tasks add nih nih.h5 --recipe nih_chestxray14      # `transfer tasks recipes` lists the known data sets
    """
    from encoders.store.store import Store
    from transfer.tasks.load import describe_agreement, load_task
    from transfer.tasks.people import describe_people, parse_same_people
    from transfer.tasks.register import build_task
    from transfer.tasks.sealed_list import write_test_list
    from transfer.tasks.task import describe_order, save_task, to_portable_path

    table_options = {"csv_columns": split_commas(column_names), "csv_only": only or [], "csv_derive": derive or []}
    require_table(labels, recipe, table_options)
    opened = Store.open(store)
    rule = {"column": split_column, "seed": seed, "val": val, "test": test, "patients_by_split": patients_by_split or None}
    tables = [to_portable_path(path) for path in labels or ()]
    target = {"labels": label, "csv": (tables[0] if len(tables) == 1 else tables) or None, "csv_on": file_column, "csv_join": on or None}
    target |= {key: value or None for key, value in table_options.items()}
    target |= {"combine": combine, "reader": reader_column, "kind": kind, "positive": positive}
    target |= {"keep": parse_classes(keep), "order": parse_classes(order)}
    target |= parse_findings(list_column, finding or [], list_separator, label)
    options = drop_none({**target, "policy": drop_none({"uncertain": uncertain, "blank": blank}) or None})
    options["split"] = drop_none({**rule, "lists": parse_split_lists(split_list or []), "names": parse_split_values(split_value or [])})
    options["same_people"] = parse_same_people(same_people or [])
    task, targets = build_task(name, store, opened, options, recipe)
    loaded = load_task(task)
    path = save_task(task, replace)
    write_test_list(loaded)
    console = make_console()
    console.print(f"task {name} ({path})", markup=False)
    origin = f"column {task.split.column}" if task.split.column else task.split.source
    split = f"official, {origin}" if origin else f"random, by patient, seed {task.split.seed}"
    people = describe_people(opened, task.same_people)
    agreement = describe_agreement(targets.agreement, loaded.split)
    for line in [*targets.messages, *describe_order(task), *people, *loaded.split.messages, *agreement, f"split: {split}"]:
        console.print(f"  {line}", markup=False)
    print_part_counts(console, loaded)


def print_part_counts(console: "Console", loaded: "LoadedTask") -> None:
    """Prints patients, images and positive labels of each part."""
    import numpy as np
    from rich.table import Table

    from transfer.tasks.options import PARTS

    table, counts = Table("part", "patients", "images", *loaded.task.classes), loaded.counts()
    for part in PARTS:
        y = loaded.y[loaded.split.rows(part)]
        positives = [f"{int(np.nansum(y[:, c]))} of {int(np.isfinite(y[:, c]).sum())}" for c in range(y.shape[1])]
        table.add_row(part, str(counts[part]["patients"]), str(counts[part]["images"]), *positives)
    console.print(table)
    excluded = Counter(loaded.split.part.tolist())[""]
    if excluded:
        console.print(f"  {excluded} images of the store are in no part", markup=False)
