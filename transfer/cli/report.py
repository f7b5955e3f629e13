"""`transfer report`: records as one HTML page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encoders.runtime.cli import make_console, split_commas
from transfer.bench.option_types import CombineScores, Margin, SaltFile, ScoreBy
from transfer.cli.options import (
    ENSEMBLE_HELP,
    OPERATING_HELP,
    BenchFilter,
    EncoderFilter,
    Prevalence,
    ProtocolFilter,
    RecordPaths,
    ReferenceEncoder,
    SeedEncoders,
    TaskFilter,
    filter_records,
    find_chosen_records,
    find_study_folder,
    saved_results,
    split_baselines,
)

if TYPE_CHECKING:
    from transfer.records.record import Record
    from transfer.records.test_usage import SplitUsage
    from transfer.tables.rows import Section


@saved_results()
def report(
    records: RecordPaths = None,
    out: Annotated[Path, typer.Option(help="HTML file to write")] = Path("report.html"),
    store: Annotated[
        list[str] | None, typer.Option(help="the task's store, to include images of test patients; repeat for several files")
    ] = None,
    explanations: Annotated[
        list[Path] | None,
        typer.Option(help="a folder of `transfer explain`, to include its heat maps of patients' images; repeat for several"),
    ] = None,
    baseline: ReferenceEncoder = None,
    encoder: EncoderFilter = None,
    task: TaskFilter = None,
    bench: BenchFilter = None,
    protocol: ProtocolFilter = None,
    operating: Annotated[str, typer.Option(help=OPERATING_HELP)] = "youden",
    prevalence: Prevalence = None,
    score_by: ScoreBy = "image",
    combine: CombineScores = None,
    seeds_of: SeedEncoders = None,
    margin: Margin = None,
    ensemble: Annotated[str | None, typer.Option(metavar="seeds|pretraining", help=ENSEMBLE_HELP)] = None,
    latex: Annotated[Path | None, typer.Option(help="also write the tables as LaTeX (booktabs) to this file")] = None,
    csv: Annotated[Path | None, typer.Option(help="also write the tables as CSV, with full hashes, to this file")] = None,
    markdown: Annotated[Path | None, typer.Option(help="also write the tables as Markdown to this file")] = None,
    salt_file: SaltFile = None,
    checklist: Annotated[
        Path | None, typer.Option(help="also write CLAIM 2024 and TRIPOD+AI checklists, filled where possible, to this .html or .md file")
    ] = None,
) -> None:
    """Write an HTML report from saved records.

    One page with the verdict in one sentence and a matrix of encoders, tasks and protocols, then tables, curves and provenance. It opens
    from disk without a network and names no patient. The sentence and the matrix are also written as a picture of 1200 x 630 pixels beside
    the page (report.png), to be forwarded. Exit status 1 when a record was refused.

    For example

    \b
        transfer report                                        # all records of the working folder -> report.html
        transfer report records/pneumonia --latex table.tex
        transfer report --operating sensitivity=0.95 --prevalence 0.02
        transfer report --task pneumonia --store cxr.h5        # with images of patients: do not share this page
        transfer report --task pneumonia --explanations out/   # with heat maps of patients' images: do not share this page
        transfer report --checklist checklist.html             # run it where the tasks, stores and encoders are
    """
    import time

    from encoders.runtime.errors import InputError
    from transfer.records.looks import gather_looks
    from transfer.records.record_ids import use_salt_file
    from transfer.records.score_units import choose_score_rule, combine_records
    from transfer.records.test_usage import count_split_usage
    from transfer.report import images, page
    from transfer.report.card import write_cards
    from transfer.report.elsewhere import link_other_records
    from transfer.report.explanations import open_explanations
    from transfer.tables import render
    from transfer.tables.build import build_sections
    from transfer.tables.ensemble_rows import add_ensembles, parse_ensembles
    from transfer.tables.operating_points import parse_operating_rule
    from transfer.tables.seed_rows import add_seed_rows, validate_seed_encoders
    from transfer.tables.study_rows import judge_study

    use_salt_file(salt_file)
    rule, unit = parse_operating_rule(operating, prevalence), choose_score_rule(score_by, combine)
    if checklist is not None and checklist.suffix not in (".html", ".md"):
        raise InputError(f"--checklist {checklist}: expected a file name that ends in .html or .md")
    paths = find_chosen_records(records, bench)
    intact, refused = read_records(paths)
    selected = filter_records(intact, task, encoder, protocol, baseline)
    baselines = split_baselines(baseline, selected)
    if not selected:
        reason = f"; {len(refused)} files were refused, the first because: {next(iter(refused.values()))}" if refused else ""
        raise InputError(f"there is no record to report on{reason}; create some with `transfer bench --encoder NAME`")
    seeds = validate_seed_encoders(split_commas(seeds_of), selected)
    scored, lines = combine_records(selected, unit)
    sections = add_seed_rows(build_sections(scored, baselines, margin=margin), seeds, baselines, margin)
    sections, ensembles = (sections, []) if ensemble is None else add_ensembles(sections, parse_ensembles(ensemble))
    study = None if find_study_folder(bench) is None else judge_study(sections)
    opened = images.open_report_store(store or [], selected)
    explained = open_explanations(explanations or [], selected)
    time_of_page = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    usage = count_split_usage(selected, gather_looks(intact, paths))
    others = link_other_records(selected, out)
    text = page.render_page(scored, sections, usage, refused, opened, time_of_page, rule, others, study, explained, ensembles)
    render.write_table(out, text)
    cards = write_cards(out, sections, render.shorten_names(sections))
    _save_tables(sections, usage, latex, csv, markdown)
    if checklist is not None:
        from transfer.report.checklist.facts import gather_facts
        from transfer.report.checklist.pages import render_checklist_html, render_checklist_markdown

        facts = gather_facts(selected, sections)
        text = render_checklist_markdown(facts) if checklist.suffix == ".md" else render_checklist_html(facts, time_of_page)
        render.write_table(checklist, text)
    console = make_console(stderr=True)
    for line in lines:
        console.print(line, markup=False, style="dim")
    for name, reason in refused.items():
        console.print(f"refused: {name}: {reason}", markup=False, style="red")
    size = out.stat().st_size / 2**20
    with_images = "with" if opened is not None or explained else "without"
    console.print(f"{out} ({size:.1f} MB): {len(selected)} records, {with_images} images of patients", markup=False)
    for path in cards:
        console.print(f"{path}: the verdict and its matrix as a picture to forward; no patient is named", markup=False)
    if refused:
        raise typer.Exit(1)


def _save_tables(
    sections: Sequence["Section"], usage: Mapping[str, "SplitUsage"], latex: Path | None, csv: Path | None, markdown: Path | None
) -> None:
    """Writes the tables in the formats that were asked for."""
    from transfer.report.latex import render_latex
    from transfer.tables import render, result_csv

    if latex is not None:
        render.write_table(latex, render_latex(sections))
    if csv is not None:
        render.write_table(csv, result_csv.results_to_csv(sections, usage, {}))
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
