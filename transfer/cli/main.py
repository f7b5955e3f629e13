"""`transfer`: register tasks, benchmark encoders on them, and compare and report the results from records."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encoders import __version__
from encoders.gallery.refresh import refreshes_gallery
from encoders.runtime.cli import add_version_option, advise_on_interrupt, make_console, progress_counter, run_cli, split_commas
from encoders.runtime.command_line import COMMA_LIST, use_tool_commands
from transfer.bench.bench_arguments import find_bench_settings
from transfer.bench.options import BenchOptions, CombineScores, Margin, ScoreBy, bench_command
from transfer.cli.bench_cells import bench_cells
from transfer.cli.gallery import gallery
from transfer.cli.jobs import print_jobs
from transfer.cli.options import (
    OPERATING_HELP,
    SETS_HELP,
    SETS_METAVAR,
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
    saved_results,
    split_baselines,
)
from transfer.cli.power import power
from transfer.cli.predict import predict
from transfer.cli.report import report
from transfer.cli.sibling_options import ADVICE, WITHOUT_EFFECT
from transfer.cli.submit import submit
from transfer.cli.sync import sync
from transfer.cli.tasks import tasks_app
from transfer.cli.train import train

if TYPE_CHECKING:
    from transfer.records.record import Record
    from transfer.tables.rows import Section

HELP = """Benchmark encoders on labeled medical images, with confidence intervals over patients.

Typical use

\b
    transfer tasks add pneumonia cxr.h5 --label pneumonia
    transfer bench --encoder cxr_moco --task pneumonia
    transfer report
    transfer train --encoder cxr_moco --task pneumonia --name cxr_pneumonia
    transfer predict --model cxr_pneumonia images/ --out predictions.csv
"""
app = typer.Typer(no_args_is_help=True, add_completion=False, help=HELP, rich_markup_mode=None)
app.add_typer(tasks_app, name="tasks")
add_version_option(app, __version__)


@refreshes_gallery
@saved_results()
def run_and_print_bench(options: BenchOptions) -> None:
    """Runs the bench, prints and saves its tables, and publishes new results in W&B. Exits with status 1 when a cell failed."""
    from encoders.runtime.devices import announce_device
    from transfer.bench.bench import plan_bench, run_bench
    from transfer.bench.work import count_work
    from transfer.records.score_units import choose_score_rule, combine_records
    from transfer.strategies.names import check_settings_used
    from transfer.tables.build import build_sections
    from transfer.tables.seed_rows import add_seed_rows

    rule = choose_score_rule(options.score_by, options.combine)
    request = options.to_request()
    check_settings_used(request.protocols, request.overrides)
    announce_device(request.device)
    console = make_console(stderr=True)

    def log(text: str) -> None:
        console.print(text, markup=False, style="dim")

    plan = plan_bench(request, log)
    with (
        advise_on_interrupt("finished results are saved; rerun the same command to resume"),
        progress_counter("bench", len(plan), count_work(plan)) as progress,
    ):
        result = run_bench(request, plan, log, progress)
    if result.reused:
        log(f"{result.reused} of {len(result.records)} results from records (--again recomputes them)")
    scored, lines = combine_records(result.records, rule)
    for line in lines:
        log(line)

    def build(records: Sequence["Record"]) -> "list[Section]":
        sections = build_sections(records, request.baselines, margin=options.margin)
        return add_seed_rows(sections, (), request.baselines, options.margin)

    sections = build(scored)
    _print_and_save_tables(result.records, scored, sections, result.missing, options.csv, options.markdown)
    if result.computed:
        from transfer.tables import wandb_report

        by_image = sections if rule.by == "image" else build(result.records)  # W&B compares runs, so all of them are by image
        wandb_report.publish_encoders(by_image, {entry.name: entry.card for entry in plan.entries})
    if result.failed:
        raise typer.Exit(1)


app.command("bench")(bench_command(run_and_print_bench))


@app.command()
@refreshes_gallery
@saved_results()
def compare(
    records: RecordPaths = None,
    encoder: EncoderFilter = None,
    task: TaskFilter = None,
    bench: BenchFilter = None,
    protocol: ProtocolFilter = None,
    baseline: ReferenceEncoder = None,
    seeds_of: SeedEncoders = None,
    margin: Margin = None,
    score_by: ScoreBy = "image",
    combine: CombineScores = None,
    by: Annotated[
        str | None, typer.Option(metavar=COMMA_LIST, help="also per subgroup of test images: /meta columns, e.g. sex,age,view,site")
    ] = None,
    age_bands: Annotated[str, typer.Option(metavar=COMMA_LIST, help="lower limits of the age bands of --by, in years")] = "18,40,65",
    operating: Annotated[str | None, typer.Option(help=OPERATING_HELP)] = None,
    prevalence: Prevalence = None,
    sets: Annotated[str | None, typer.Option(metavar=SETS_METAVAR, help=SETS_HELP)] = None,
    csv: Annotated[Path | None, typer.Option(help="also write the table as CSV to this file")] = None,
    markdown: Annotated[Path | None, typer.Option(help="also write the table as Markdown to this file")] = None,
    wandb: Annotated[
        bool, typer.Option(help="publish results, overview and leaderboard in W&B; online, also a saved workspace and report")
    ] = False,
) -> None:
    """Print the comparison table from saved records. A record that was edited is refused.

    For example

    \b
        transfer compare
        transfer compare --encoder cxr_moco --protocol linear
        transfer compare --task pneumonia --by sex,age --age-bands 2,5,12
        transfer compare --task pneumonia --operating sensitivity=0.95 --prevalence 0.02
        transfer compare --task chexpert --score-by study --combine max
        transfer compare --task tissue --sets 0.9

    A verdict is about the tested checkpoints. Where several pretraining seeds of one recipe were benchmarked, a row about the recipe comes
    first; its intervals also cover the variation between seeds.

    --operating and --prevalence add a table of decisions: sensitivity and specificity with intervals, PPV and NPV at the given prevalence,
    and calibration slopes (also in records/operating.csv; net benefit at each threshold is in records/decision_curves.csv). The balanced
    accuracy of the first table always uses Youden's threshold.

    --sets adds a table of conformal prediction sets: how many classes an image may have so that the true one is among them with the given
    probability, for an image of a new patient (also in records/prediction_sets.csv).

    Where the records were scored on the official split of a known data set, published results follow the table, each with its source (also
    in records/published.csv). They enter no difference and no verdict.

    --score-by study or patient combines the scores of the images of a study or patient before any metric. It is positive for a label if one
    of its images is. Records keep the scores of images.

    --by adds every metric per subgroup, and the AUROC difference to all other test images (also in records/subgroups.csv).
    """
    from encoders.runtime.errors import InputError
    from encoders.runtime.paths import records_dir
    from transfer.records import record
    from transfer.records.score_units import choose_score_rule, combine_records
    from transfer.report.published.tables import find_published_results, print_published_results, published_to_csv
    from transfer.tables import decision_curves, operating_points, prediction_sets, render, render_subgroups
    from transfer.tables.build import build_sections
    from transfer.tables.seed_rows import add_seed_rows, validate_seed_encoders
    from transfer.tables.subgroups import parse_age_bands

    rule = operating_points.parse_operating_rule(operating or "youden", prevalence)
    set_rule = None if sets is None else prediction_sets.parse_set_rule(sets)
    unit = choose_score_rule(score_by, combine)
    if wandb and unit.by != "image":
        raise InputError(f"results in W&B are by image, so that runs can be compared; remove --wandb or --score-by {unit.by}")
    paths = find_chosen_records(records, bench)
    selected = [record.read_record(path) for path in paths]
    selected = filter_records(selected, task, encoder, protocol, baseline)
    if not selected:
        raise InputError("there is no record yet; create some with `transfer bench --encoder NAME`")
    baselines = split_baselines(baseline, selected)
    seeds = validate_seed_encoders(split_commas(seeds_of), selected)
    scored, lines = combine_records(selected, unit)
    for line in lines:
        make_console(stderr=True).print(line, markup=False, style="dim")
    sections = add_seed_rows(build_sections(scored, baselines, margin=margin), seeds, baselines, margin)
    # Wrong options are reported before the table is printed.
    decisions = operating_points.gather_decisions(sections, rule) if operating is not None or prevalence is not None else None
    found_sets = None if set_rule is None else prediction_sets.gather_sets(sections, set_rule)
    groups = render_subgroups.gather_subgroups(sections, split_commas(by), parse_age_bands(age_bands)) if by is not None else None
    _print_and_save_tables(selected, scored, sections, {}, csv, markdown, paths)
    published = find_published_results(sections)
    print_published_results(make_console(), published)
    if any(block.known for block in published):
        render.write_table(records_dir() / "published.csv", published_to_csv(published))
    if decisions is not None:
        operating_points.print_decisions(make_console(), decisions, rule)
        render.write_table(records_dir() / "operating.csv", operating_points.decisions_to_csv(decisions, rule))
        rows = [(section, row) for section, row, _ in decisions]
        render.write_table(records_dir() / "decision_curves.csv", decision_curves.decision_curves_to_csv(rows, rule.prevalence))
    if found_sets is not None and set_rule is not None:
        prediction_sets.print_sets(make_console(), found_sets, set_rule)
        render.write_table(records_dir() / "prediction_sets.csv", prediction_sets.sets_to_csv(found_sets, set_rule))
    if groups is not None:
        render_subgroups.print_subgroups(make_console(), groups, render.shorten_names(sections))
        render.write_table(records_dir() / "subgroups.csv", render_subgroups.subgroups_to_csv(groups))
    if wandb:
        _publish(sections)


def _publish(sections: Sequence["Section"]) -> None:
    """Publishes the results of every encoder that is available locally, and the leaderboard of all, in W&B."""
    from encoders.runtime.errors import InputError
    from encoders.zoo import zoo
    from transfer.tables import wandb_report

    cards = {}
    for name in dict.fromkeys(row.encoder for s in sections for row in s.rows):
        try:
            cards[name] = zoo.find_encoder(name).card
        except InputError:
            message = f"{name} is not available locally: it is in the leaderboard, but gets no W&B run of its own"
            make_console(stderr=True).print(message, markup=False)
    wandb_report.publish_encoders(sections, cards)
    address = wandb_report.publish_leaderboard(sections, cards)
    if address:
        print(f"W&B: {address}")


app.command()(refreshes_gallery(train))
app.command()(predict)
app.command()(power)
app.command()(refreshes_gallery(report))
app.command(context_settings={"ignore_unknown_options": True})(refreshes_gallery(submit))  # those of bench
app.command("jobs")(print_jobs)
app.command()(gallery)
app.command()(sync)
app.command(hidden=True)(bench_cells)


def _print_and_save_tables(
    records: Sequence["Record"],
    scored: Sequence["Record"],
    sections: Sequence["Section"],
    missing: Mapping[str, str],
    csv: Path | None,
    markdown: Path | None,
    paths: Sequence[Path] = (),
) -> None:
    """Prints the tables and writes them to the records' folder, and to `csv` and `markdown` where given.

    scored: the records by the unit of the tables.  paths: of the records; ledgers beside them count as well."""
    from encoders.runtime.paths import records_dir
    from transfer.records.looks import gather_looks
    from transfer.records.test_usage import count_split_usage
    from transfer.tables import render, shift_curves
    from transfer.tables.headlines import save_headlines
    from transfer.tables.matrix_text import print_matrix
    from transfer.tables.strategy_table import report_strategies

    usage = count_split_usage(records, gather_looks(records, paths))
    save_headlines(sections)
    render.print_results(make_console(), sections, usage, missing)
    report_strategies(make_console(), sections)
    curves = shift_curves.build_shift_curves(scored)
    if curves:
        shift_curves.print_shift_tables(make_console(), curves)
        render.write_table(records_dir() / "robustness.csv", shift_curves.shift_curves_to_csv(curves))
    for path in filter(None, (markdown, records_dir() / "table.md")):
        render.write_table(path, render.results_to_markdown(sections, usage, missing))
    render.write_table(records_dir() / "comparisons.csv", render.comparisons_to_csv(sections))
    render.write_table(records_dir() / "labels.csv", render.labels_to_csv(sections))
    for path in filter(None, (csv, records_dir() / "table.csv")):
        render.write_table(path, render.results_to_csv(sections, usage, missing))
    print_matrix(make_console(), sections, render.shorten_names(sections))


use_tool_commands(app, find_bench_settings, WITHOUT_EFFECT, ADVICE)


def main() -> None:
    """The console command."""
    run_cli(app)
