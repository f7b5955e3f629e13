"""`transfer compare`: the comparison table of saved records."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from encoders.runtime.cli import make_console, split_commas
from encoders.runtime.command_line import COMMA_LIST
from transfer.bench.option_types import CombineScores, Margin, ScoreBy
from transfer.cli.options import (
    ENSEMBLE_HELP,
    OPERATING_HELP,
    REFER_HELP,
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
    find_study_folder,
    saved_results,
    split_baselines,
)
from transfer.cli.saved_tables import print_and_save_tables
from transfer.cli.uncertainty_tables import add_ensemble_rows, check_uncertainty, parse_uncertainty, print_and_save_uncertainty

if TYPE_CHECKING:
    from transfer.tables.rows import Section


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
    ensemble: Annotated[str | None, typer.Option(metavar="seeds|pretraining", help=ENSEMBLE_HELP)] = None,
    refer: Annotated[str | None, typer.Option(metavar="SHARES", help=REFER_HELP)] = None,
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
        transfer compare --task pneumonia --refer 5,10,20%
        transfer compare --task pneumonia --protocol finetune --ensemble seeds

    A verdict is about the tested checkpoints. Where several pretraining seeds of one recipe were benchmarked, a row about the recipe comes
    first; its intervals also cover the variation between seeds.

    --operating and --prevalence add a table of decisions: sensitivity and specificity with intervals, PPV and NPV at the given prevalence,
    and calibration slopes (also in records/operating.csv; net benefit at each threshold is in records/decision_curves.csv). The balanced
    accuracy of the first table always uses Youden's threshold.

    --sets adds a table of conformal prediction sets: how many classes an image may have so that the true one is among them with the given
    probability, for an image of a new patient (also in records/prediction_sets.csv).

    --ensemble adds a row of the mean probability of trainings that differ only in a seed: that of the protocol (`transfer bench
    --seed 1`, `--seed 2`) or of pretraining. It is compared with the mean of its members, and a table shows the calibration of both,
    as they are and after temperature scaling (also in records/ensembles.csv). It adds comparisons to Holm's correction.

    --refer adds a table of what remains when the least certain images are referred to a person: error, sensitivity, specificity and AUROC
    of the rest, and the share of all errors that is caught (also in records/referrals.csv).

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
    from transfer.tables import decision_curves, operating_points, render, render_subgroups
    from transfer.tables.build import build_sections
    from transfer.tables.seed_rows import add_seed_rows, validate_seed_encoders
    from transfer.tables.subgroups import parse_age_bands

    rule = operating_points.parse_operating_rule(operating or "youden", prevalence)
    uncertainty = parse_uncertainty(ensemble, sets, refer)
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
    single = sections  # results in W&B are those of encoders
    sections, ensembles = add_ensemble_rows(sections, uncertainty)
    # Wrong options are reported before the table is printed.
    decisions = operating_points.gather_decisions(sections, rule) if operating is not None or prevalence is not None else None
    check_uncertainty(sections, uncertainty)
    groups = render_subgroups.gather_subgroups(sections, split_commas(by), parse_age_bands(age_bands)) if by is not None else None
    print_and_save_tables(selected, scored, sections, {}, csv, markdown, paths, find_study_folder(bench))
    published = find_published_results(sections)
    print_published_results(make_console(), published)
    if any(block.known for block in published):
        render.write_table(records_dir() / "published.csv", published_to_csv(published))
    if decisions is not None:
        operating_points.print_decisions(make_console(), decisions, rule)
        render.write_table(records_dir() / "operating.csv", operating_points.decisions_to_csv(decisions, rule))
        rows = [(section, row) for section, row, _ in decisions]
        render.write_table(records_dir() / "decision_curves.csv", decision_curves.decision_curves_to_csv(rows, rule.prevalence))
    print_and_save_uncertainty(sections, ensembles, uncertainty)
    if groups is not None:
        render_subgroups.print_subgroups(make_console(), groups, render.shorten_names(sections))
        render.write_table(records_dir() / "subgroups.csv", render_subgroups.subgroups_to_csv(groups))
    if wandb:
        _publish(single)


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
