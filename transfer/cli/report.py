"""`transfer report`: records as one HTML page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from encoders.runtime.cli import make_console, split_commas
from transfer.cli.options import OPERATING_HELP, Prevalence, RecordPaths, ReferenceEncoder, SeedEncoders, TaskFilter

if TYPE_CHECKING:
    from transfer.records.record import Record
    from transfer.tables.rows import Section


def report(
    records: RecordPaths = None,
    out: Annotated[Path, typer.Option(help="HTML file to write")] = Path("report.html"),
    store: Annotated[
        list[str] | None, typer.Option(help="the task's store, to include images of test patients; repeat for several files")
    ] = None,
    baseline: ReferenceEncoder = None,
    task: TaskFilter = None,
    operating: Annotated[str, typer.Option(help=OPERATING_HELP)] = "youden",
    prevalence: Prevalence = None,
    seeds_of: SeedEncoders = None,
    latex: Annotated[Path | None, typer.Option(help="also write the tables as LaTeX (booktabs) to this file")] = None,
    csv: Annotated[Path | None, typer.Option(help="also write the tables as CSV, with full hashes, to this file")] = None,
    markdown: Annotated[Path | None, typer.Option(help="also write the tables as Markdown to this file")] = None,
) -> None:
    """Write an HTML report from saved records.

    One page with the verdict, tables, curves and provenance. It opens from disk without a network and names no patient. Exit status 1 when
    a record was refused.

    For example

    \b
        transfer report                                        # all records of the working folder -> report.html
        transfer report records/pneumonia --latex table.tex
        transfer report --operating sensitivity=0.95 --prevalence 0.02
        transfer report --task pneumonia --store cxr.h5        # with images of patients: do not share this page
    """
    import time

    from encoders.runtime.errors import InputError
    from transfer.records import record
    from transfer.report import images, page, provenance
    from transfer.tables import render
    from transfer.tables.operating_points import parse_operating_rule
    from transfer.tables.rows import build_sections
    from transfer.tables.seed_rows import add_seed_rows, validate_seed_encoders

    rule = parse_operating_rule(operating, prevalence)
    paths = record.find_records(records or ())
    intact, refused = read_records(paths)
    selected = select_records(intact, task, baseline)
    if not selected:
        reason = f"; {len(refused)} files were refused, the first because: {next(iter(refused.values()))}" if refused else ""
        raise InputError(f"there is no record to report on{reason}; create some with `transfer bench --encoder NAME`")
    sections = add_seed_rows(build_sections(selected, baseline), validate_seed_encoders(split_commas(seeds_of), selected), baseline)
    opened = images.open_report_store(store or [], selected)
    time_of_page = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    ledger = provenance.read_ledgers(paths)
    render.write_table(out, page.render_page(selected, sections, ledger, refused, opened, time_of_page, rule))
    _save_tables(sections, ledger, latex, csv, markdown)
    console = make_console(stderr=True)
    for name, reason in refused.items():
        console.print(f"refused: {name}: {reason}", markup=False, style="red")
    size = out.stat().st_size / 2**20
    with_images = "with" if opened is not None else "without"
    console.print(f"{out} ({size:.1f} MB): {len(selected)} records, {with_images} images of patients", markup=False)
    if refused:
        raise typer.Exit(1)


def _save_tables(
    sections: Sequence["Section"], ledger: list[dict[str, Any]], latex: Path | None, csv: Path | None, markdown: Path | None
) -> None:
    """Writes the tables in the formats that were asked for."""
    from transfer.records.test_seal import count_split_usage
    from transfer.report.latex import render_latex
    from transfer.tables import render

    usage = {split: count_split_usage(split, ledger=ledger) for s in sections for split in s.splits}
    if latex is not None:
        render.write_table(latex, render_latex(sections))
    if csv is not None:
        render.write_table(csv, render.results_to_csv(sections, usage, {}))
    if markdown is not None:
        render.write_table(markdown, render.results_to_markdown(sections, usage, {}))


def read_records(paths: Sequence[Path]) -> tuple[list["Record"], dict[str, str]]:
    """The intact records, and file name -> reason for every file that is refused. No folder is named, as it may hold a person's name."""
    from encoders.runtime.errors import InputError
    from transfer.records import record

    intact, refused = [], {}
    for path in paths:
        try:
            intact.append(record.read_record(path))
        except InputError as error:
            refused[path.name] = str(error).replace(f"{path.parent}/", "")
    return intact, refused


def select_records(records: Sequence["Record"], task: str | None, baseline: str | None) -> list["Record"]:
    """The records of these tasks; None: of all. Raises InputError for a task or a baseline that no record has."""
    from encoders.runtime.errors import unknown_name_error

    names = split_commas(task)
    tasks, encoders = {r.identity.task for r in records}, {r.identity.encoder for r in records}
    for name in names:
        if name not in tasks:
            raise unknown_name_error("task among the records", name, tasks)
    if baseline is not None and records and baseline not in encoders:
        raise unknown_name_error("encoder among the records", baseline, encoders)
    return [r for r in records if not names or r.identity.task in names]
