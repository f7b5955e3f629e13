"""`transfer`: register tasks, benchmark encoders on them, and compare and report the results from records."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from encoders import __version__
from encoders.gallery.refresh import refreshes_gallery
from encoders.runtime.cli import add_version_option, advise_on_interrupt, make_console, progress_counter, run_cli
from encoders.runtime.command_line import use_tool_commands
from transfer.bench.bench_arguments import find_bench_settings
from transfer.bench.bench_command import bench_command
from transfer.bench.options import BenchOptions
from transfer.cli.bench_cells import bench_cells
from transfer.cli.compare import compare
from transfer.cli.explain import explain
from transfer.cli.gallery import gallery
from transfer.cli.jobs import print_jobs
from transfer.cli.ood import ood
from transfer.cli.options import saved_results
from transfer.cli.power import power
from transfer.cli.predict import predict
from transfer.cli.preview import preview
from transfer.cli.report import report
from transfer.cli.saved_tables import print_and_save_tables
from transfer.cli.sibling_options import ADVICE, WITHOUT_EFFECT
from transfer.cli.study import study
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
    transfer explain --model cxr_pneumonia images/ --out explained
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
    print_and_save_tables(result.records, scored, sections, result.missing, options.csv, options.markdown)
    if result.computed:
        from transfer.tables import wandb_report

        by_image = sections if rule.by == "image" else build(result.records)  # W&B compares runs, so all of them are by image
        wandb_report.publish_encoders(by_image, {entry.name: entry.card for entry in plan.entries})
    if result.failed:
        raise typer.Exit(1)


app.command("bench")(bench_command(run_and_print_bench))


app.command()(refreshes_gallery(compare))
app.command()(refreshes_gallery(train))
app.command()(predict)
app.command()(preview)
app.command()(explain)
app.command()(ood)
app.command()(power)
app.command()(refreshes_gallery(report))
app.command(context_settings={"ignore_unknown_options": True})(refreshes_gallery(submit))  # those of bench
app.command()(refreshes_gallery(study))
app.command("jobs")(print_jobs)
app.command()(gallery)
app.command()(sync)
app.command(hidden=True)(bench_cells)


use_tool_commands(app, find_bench_settings, WITHOUT_EFFECT, ADVICE)


def main() -> None:
    """The console command."""
    run_cli(app)
