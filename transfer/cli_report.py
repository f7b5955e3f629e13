"""`transfer report`: records as one HTML page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from encoders.runtime.cli import console, listed


def report(
    records: Annotated[list[Path] | None, typer.Argument(help="records or folders of them; default: all of this working folder")] = None,
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("report.html"),
    store: Annotated[
        list[str] | None, typer.Option(help="the task's store: puts pictures of test images on the page; repeat for several files")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option(help="the encoder that differences are to; default: ImageNet weights of the same network")
    ] = None,
    task: Annotated[str | None, typer.Option(help="only these tasks, a,b")] = None,
    operating: Annotated[
        str,
        typer.Option(help="rule of the thresholds, on validation patients: youden, sensitivity=T or specificity=T, e.g. sensitivity=0.95"),
    ] = "youden",
    prevalence: Annotated[float | None, typer.Option(help="prevalence that PPV and NPV are for; default: that of the test part")] = None,
    seeds_of: Annotated[
        str | None, typer.Option(help="encoders a,b,c that one recipe gave with different seeds; cards that say so need no option")
    ] = None,
    latex: Annotated[Path | None, typer.Option(help="write the tables as LaTeX (booktabs)")] = None,
    csv: Annotated[Path | None, typer.Option(help="write the tables as CSV, whole hashes")] = None,
    markdown: Annotated[Path | None, typer.Option(help="write the tables as Markdown")] = None,
) -> None:
    """One HTML page from records, verdict first: opens from disk, names no patient. Exit 1 if a record was refused.

    For example

    \b
        transfer report                                        # all records of this working folder -> report.html
        transfer report records/pneumonia --latex table.tex
        transfer report --operating sensitivity=0.95 --prevalence 0.02
        transfer report --task pneumonia --store cxr.h5        # with pictures: not to be passed on
    """
    import time

    from encoders.runtime.errors import InputError
    from transfer import record, show
    from transfer.decide import parsed
    from transfer.report import images, page, trust
    from transfer.seeds import checked
    from transfer.table import sections

    asked = parsed(operating, prevalence)
    paths = record.found(records or ())
    read, refused = readable(paths)
    read = narrowed(read, task, baseline)
    if not read:
        told = f"; {len(refused)} files were refused, the first: {next(iter(refused.values()))}" if refused else ""
        raise InputError(f"there is no record to report on{told}; make some: `transfer bench --encoder NAME`")
    parts = sections(read, baseline, seeds_of=checked(listed(seeds_of), read))
    kept = images.opened(store or [], read)
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    ledger = trust.ledgers(paths)
    show.written(out, page.page(read, parts, ledger, refused, kept, when, asked))
    _tables(parts, ledger, latex, csv, markdown)
    err = console(stderr=True)
    for name, why in refused.items():
        err.print(f"refused: {name}: {why}", markup=False, style="red")
    size = out.stat().st_size / 2**20
    err.print(f"{out} ({size:.1f} MB): {len(read)} records, {'with' if kept is not None else 'without'} pictures of patients", markup=False)
    if refused:
        raise typer.Exit(1)


def _tables(parts: Sequence[Any], ledger: list[dict[str, Any]], latex: Path | None, csv: Path | None, markdown: Path | None) -> None:
    """The same tables in the forms that were asked for."""
    from transfer import show
    from transfer.firewall import looks
    from transfer.report.latex import latex as as_latex

    seen = {h: looks(h, known=ledger) for s in parts for h in s.splits}
    if latex is not None:
        show.written(latex, as_latex(parts))
    if csv is not None:
        show.written(csv, show.as_csv(parts, seen, {}))
    if markdown is not None:
        show.written(markdown, show.markdown(parts, seen, {}))


def readable(paths: Sequence[Path]) -> tuple[list[Any], dict[str, str]]:
    """The intact records, and for every other file why it is refused; without folders, whose names may be those of people."""
    from encoders.runtime.errors import InputError
    from transfer import record

    read, refused = [], {}
    for path in paths:
        try:
            read.append(record.read(path))
        except InputError as wrong:
            refused[path.name] = str(wrong).replace(f"{path.parent}/", "")
    return read, refused


def narrowed(read: list[Any], task: str | None, baseline: str | None) -> list[Any]:
    """The records of these tasks. Raises InputError for a task or a baseline that no record has."""
    from encoders.runtime.errors import unknown

    wanted = listed(task)
    tasks, encoders = {r.identity.task for r in read}, {r.identity.encoder for r in read}
    for name in wanted:
        if name not in tasks:
            raise unknown("task among the records", name, tasks)
    if baseline is not None and read and baseline not in encoders:
        raise unknown("encoder among the records", baseline, encoders)
    return [r for r in read if not wanted or r.identity.task in wanted]
