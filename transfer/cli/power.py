"""`transfer power`: how many test patients a planned comparison needs."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from encoders.runtime.cli import advise_on_interrupt, make_console, split_commas
from encoders.runtime.command_line import COMMA_LIST
from encoders.runtime.errors import InputError
from transfer.bench.option_types import CombineScores, Margin, ScoreBy
from transfer.cli.options import RecordPaths

GoalName = Literal["different", "equivalent", "not-inferior"]


def power(
    encoder: Annotated[str, typer.Option(help="encoder of the planned comparison; it has pilot records")],
    versus: Annotated[str, typer.Option(help="encoder to compare with, on the same pilot patients")],
    records: RecordPaths = None,
    task: Annotated[str | None, typer.Option(help="task of the pilot; needed if the records have several")] = None,
    protocol: Annotated[str | None, typer.Option(help="protocol; needed if the records have several")] = None,
    fraction: Annotated[str | None, typer.Option(help="label fraction of the pilot, as 10% or 20p  [default: 100%]")] = None,
    label: Annotated[str | None, typer.Option(help="one label of a task with several  [default: the mean over all]")] = None,
    difference: Annotated[
        str | None,
        typer.Option(metavar=COMMA_LIST, help="true AUROC differences to find  [default: that of the pilot; with a margin: 0]"),
    ] = None,
    power: Annotated[float, typer.Option(min=0.05, max=0.99, help="wanted probability of the verdict")] = 0.8,
    patients: Annotated[
        str | None, typer.Option(metavar=COMMA_LIST, help="numbers of test patients to simulate  [default: around the required number]")
    ] = None,
    prevalence: Annotated[
        float | None, typer.Option(help="share of test patients with a positive image, below 1  [default: as in the pilot]")
    ] = None,
    images: Annotated[int | None, typer.Option(min=1, help="at most this many images a patient  [default: as in the pilot]")] = None,
    comparisons: Annotated[
        int, typer.Option(min=1, help="comparisons of the planned table: each is tested at 5 % divided by their number (Bonferroni)")
    ] = 1,
    margin: Margin = None,
    goal: Annotated[GoalName | None, typer.Option(help="verdict to plan for  [default: different; with --margin: equivalent]")] = None,
    draws: Annotated[
        int | None, typer.Option(min=1, help="draws of the labeled patients in the planned study  [default: as in the pilot]")
    ] = None,
    repeats: Annotated[int, typer.Option(min=100, help="simulated test sets of each size")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="seed of the simulation")] = 0,
    score_by: ScoreBy = "image",
    combine: CombineScores = None,
    csv: Annotated[Path | None, typer.Option(help="also write the table as CSV to this file")] = None,
) -> None:
    """Plan a comparison: its power, and the test patients that it needs.

    Benchmark both encoders on pilot patients first. Test sets are then drawn from the pilot's scores, by patient, and judged as
    `transfer compare` judges them.

    For example

    \b
        # How many test patients find a difference of .03 with a power of 80 %?
        transfer power --encoder cxr_moco --versus imagenet_resnet50 --task pneumonia --difference 0.03

    \b
        # What can 200 test patients find?
        transfer power --encoder cxr_moco --versus imagenet_resnet50 --patients 200 --difference 0.01,0.02,0.05

    \b
        # A rarer finding, one image a patient, a table of six comparisons
        transfer power --encoder cxr_moco --versus imagenet_resnet50 --difference 0.03 \\
            --prevalence 0.05 --images 1 --comparisons 6

    \b
        # How many show that the difference is below .02, if there is none?
        transfer power --encoder cxr_small --versus cxr_large --margin 0.02

    The power is the share of simulated test sets with the right verdict, with its Monte Carlo error. A test set with fewer than 20 patients
    in a class counts as one that finds nothing. The required number comes with the interval that the finite size of the pilot leaves.

    The observed difference of a small pilot is a poor guess of the true one. Plan with the smallest difference that matters.

    The table is also written to records/power.csv.
    """
    from encoders.runtime.cli import progress_counter
    from encoders.runtime.escape import lines_to_csv
    from encoders.runtime.paths import records_dir
    from transfer.records import record
    from transfer.records.score_units import choose_score_rule, combine_records
    from transfer.stats.planned_verdict import VerdictRule
    from transfer.stats.required_patients import GRID
    from transfer.tables import render
    from transfer.tables.pilot_records import PilotChoice, find_pilot
    from transfer.tables.power_plan import PowerOptions, plan_power
    from transfer.tables.power_table import power_to_csv_lines, print_power

    if prevalence is not None and not 0 < prevalence < 1:
        raise InputError(f"--prevalence {prevalence:g} is not a share of patients between 0 and 1, for example 0.05")
    differences, numbers = parse_differences(difference), parse_patients(patients)
    unit = choose_score_rule(score_by, combine)
    options = PowerOptions(
        differences=differences,
        power=power,
        patients=numbers,
        prevalence=prevalence,
        images=images,
        rule=VerdictRule(comparisons, margin),
        goal=goal or ("different" if margin is None else "equivalent"),
        draws=draws,
        repeats=repeats,
        seed=seed,
    )
    choice = PilotChoice(encoder, versus, task, protocol, fraction, label)
    scored, lines = combine_records([record.read_record(path) for path in record.find_records(records or ())], unit)
    pilot = find_pilot(scored, choice)
    for line in lines:
        make_console(stderr=True).print(line, markup=False, style="dim")
    total = (len(numbers) or len(GRID) + 1) * max(len(differences), 1)  # the search of a number may take more
    with advise_on_interrupt("nothing was saved"), progress_counter("sizes", total) as progress:
        results = plan_power(pilot, options, progress)
    print_power(make_console(), pilot, options, results)
    table = lines_to_csv(power_to_csv_lines(pilot, options, results))
    for path in filter(None, (csv, records_dir() / "power.csv")):
        render.write_table(path, table)


def parse_differences(text: str | None) -> tuple[float, ...]:
    """The values of --difference. Raises InputError."""
    try:
        values = tuple(float(word) for word in split_commas(text))
    except ValueError:
        raise InputError(f"--difference {text} is not a list of numbers; expected differences of AUROC as in 0.01,0.02") from None
    for value in values:
        if not -1 < value < 1:
            raise InputError(f"--difference {value:g} is not a difference of AUROC, which is between -1 and 1, for example 0.03")
    return values


def parse_patients(text: str | None) -> tuple[int, ...]:
    """The values of --patients, increasing. Raises InputError."""
    words = split_commas(text)
    if not all(word.isdecimal() and int(word) > 0 for word in words):
        raise InputError(f"--patients {text} is not a list of whole numbers above 0, for example 100,200,400")
    return tuple(sorted({int(word) for word in words}))
