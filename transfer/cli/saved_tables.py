"""The tables that `transfer bench` and `transfer compare` print, and their files beside the records."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.runtime.cli import make_console

if TYPE_CHECKING:
    from transfer.records.record import Record
    from transfer.tables.rows import Section


def print_and_save_tables(
    records: Sequence["Record"],
    scored: Sequence["Record"],
    sections: Sequence["Section"],
    missing: Mapping[str, str],
    csv: Path | None,
    markdown: Path | None,
    paths: Sequence[Path] = (),
    study: Path | None = None,
) -> None:
    """Prints the tables and writes them to the records' folder, and to `csv` and `markdown` where given.

    scored: the records by the unit of the tables.  paths: of the records; ledgers beside them count as well.
    study: the folder of the study whose records these are: its verdicts are corrected together, and its tables come last."""
    from encoders.runtime.paths import records_dir
    from transfer.records.looks import gather_looks
    from transfer.records.test_usage import count_split_usage
    from transfer.tables import render, result_csv, shift_curves
    from transfer.tables.headlines import save_headlines
    from transfer.tables.matrix_text import print_matrix
    from transfer.tables.strategy_rows import build_strategy_tables
    from transfer.tables.strategy_table import report_strategies
    from transfer.tables.study_rows import judge_study
    from transfer.tables.study_table import report_study

    strategies = build_strategy_tables(sections) if study is None else judge_study(sections)
    usage = count_split_usage(records, gather_looks(records, paths))
    save_headlines(sections)
    render.print_results(make_console(), sections, usage, missing)
    report_strategies(make_console(), sections, strategies)
    curves = shift_curves.build_shift_curves(scored)
    if curves:
        shift_curves.print_shift_tables(make_console(), curves)
        render.write_table(records_dir() / "robustness.csv", shift_curves.shift_curves_to_csv(curves))
    for path in filter(None, (markdown, records_dir() / "table.md")):
        render.write_table(path, render.results_to_markdown(sections, usage, missing))
    render.write_table(records_dir() / "comparisons.csv", result_csv.comparisons_to_csv(sections))
    render.write_table(records_dir() / "labels.csv", result_csv.labels_to_csv(sections))
    for path in filter(None, (csv, records_dir() / "table.csv")):
        render.write_table(path, result_csv.results_to_csv(sections, usage, missing))
    print_matrix(make_console(), sections, render.shorten_names(sections))
    if study is not None:
        report_study(make_console(), sections, strategies, study)
