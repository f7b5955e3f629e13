"""`transfer report`: records as one HTML page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from encoders.runtime.cli import make_console, split_commas


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
    from transfer.records import record
    from transfer.report import images, page, provenance
    from transfer.tables import render
    from transfer.tables.operating_points import parse_operating_rule
    from transfer.tables.rows import build_sections
    from transfer.tables.seed_rows import validate_seed_encoders

    asked = parse_operating_rule(operating, prevalence)
    paths = record.find_records(records or ())
    read, refused = read_records(paths)
    read = select_records(read, task, baseline)
    if not read:
        told = f"; {len(refused)} files were refused, the first: {next(iter(refused.values()))}" if refused else ""
        raise InputError(f"there is no record to report on{told}; make some: `transfer bench --encoder NAME`")
    parts = build_sections(read, baseline, seeds_of=validate_seed_encoders(split_commas(seeds_of), read))
    kept = images.open_report_store(store or [], read)
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    ledger = provenance.read_ledgers(paths)
    render.write_table(out, page.render_page(read, parts, ledger, refused, kept, when, asked))
    _save_tables(parts, ledger, latex, csv, markdown)
    err = make_console(stderr=True)
    for name, why in refused.items():
        err.print(f"refused: {name}: {why}", markup=False, style="red")
    size = out.stat().st_size / 2**20
    err.print(f"{out} ({size:.1f} MB): {len(read)} records, {'with' if kept is not None else 'without'} pictures of patients", markup=False)
    if refused:
        raise typer.Exit(1)


def _save_tables(parts: Sequence[Any], ledger: list[dict[str, Any]], latex: Path | None, csv: Path | None, markdown: Path | None) -> None:
    """The same tables in the forms that were asked for."""
    from transfer.records.test_seal import count_split_usage
    from transfer.report.latex import render_latex as as_latex
    from transfer.tables import render

    seen = {h: count_split_usage(h, known=ledger) for s in parts for h in s.splits}
    if latex is not None:
        render.write_table(latex, as_latex(parts))
    if csv is not None:
        render.write_table(csv, render.results_to_csv(parts, seen, {}))
    if markdown is not None:
        render.write_table(markdown, render.results_to_markdown(parts, seen, {}))


def read_records(paths: Sequence[Path]) -> tuple[list[Any], dict[str, str]]:
    """The intact records, and for every other file why it is refused; without folders, whose names may be those of people."""
    from encoders.runtime.errors import InputError
    from transfer.records import record

    read, refused = [], {}
    for path in paths:
        try:
            read.append(record.read_record(path))
        except InputError as wrong:
            refused[path.name] = str(wrong).replace(f"{path.parent}/", "")
    return read, refused


def select_records(read: list[Any], task: str | None, baseline: str | None) -> list[Any]:
    """The records of these tasks. Raises InputError for a task or a baseline that no record has."""
    from encoders.runtime.errors import unknown_name_error

    wanted = split_commas(task)
    tasks, encoders = {r.identity.task for r in read}, {r.identity.encoder for r in read}
    for name in wanted:
        if name not in tasks:
            raise unknown_name_error("task among the records", name, tasks)
    if baseline is not None and read and baseline not in encoders:
        raise unknown_name_error("encoder among the records", baseline, encoders)
    return [r for r in read if not wanted or r.identity.task in wanted]
