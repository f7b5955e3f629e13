"""The comparison table on a terminal, as CSV and as Markdown, all from the same rows."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from encoders.runtime.escape import escape_markdown
from encoders.runtime.files import atomic_write
from encoders.runtime.local_notes import prints_to_job_log
from encoders.zoo.names import short_name
from transfer.records.redactor import Redactor
from transfer.records.test_usage import SplitUsage, describe_usage
from transfer.strategies.names import name_in_tables
from transfer.tables import caveats
from transfer.tables.comparison_table import (
    COMPARISON_HEADER,
    format_comparisons,
    needs_comparison_table,
)
from transfer.tables.format import VERDICT_LINKS, format_difference, format_interval, format_verdict
from transfer.tables.rows import TABLE_METRICS, Row, Section, group_sections, name_settings
from transfer.tables.search_rows import describe_searches

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
RESULT_HEADER = ("encoder", "protocol", "AUROC [95 %]", "AP [95 %]", "balanced accuracy", "AUROC difference [95 %]", "verdict")
MAJORITY_NAME = "(majority class)"


def shorten_names(sections: Sequence[Section]) -> dict[str, str]:
    """Name -> name without options. Names that would become equal are numbered, and `describe_legend` explains the numbers.

    A full name can be longer than a line."""
    names = sorted({row.encoder for s in sections for row in s.rows} | {r.identity.encoder for s in sections for r in s.failed})
    by_short_name = defaultdict(list)
    for name in names:
        by_short_name[short_name(name)].append(name)
    return {name: key if len(same) == 1 else f"{key} #{i + 1}" for key, same in by_short_name.items() for i, name in enumerate(same)}


def describe_legend(block: Sequence[Section], display_names: Mapping[str, str]) -> list[str]:
    """The full names behind numbered ones, and what the verdicts of a block are about."""
    names = {row.encoder for s in block for row in s.rows} | {r.identity.encoder for s in block for r in s.failed}
    lines = [f"{display_names[name]} is {name}" for name in sorted(names) if display_names[name] != short_name(name)]
    lines += caveats.describe_family(block) + caveats.describe_rare_labels(block, display_names)
    lines += caveats.describe_withheld(block, display_names) + caveats.describe_seeds(block, display_names)
    lines += caveats.describe_source_checks(block, display_names)
    return lines + caveats.describe_detectable_differences(block, display_names)


def format_rows(block: Sequence[Section], display_names: Mapping[str, str], missing: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The rows of one block as text."""
    rows: list[tuple[str, ...]] = []
    for section in block:
        for row in section.rows:
            auroc = format_interval(row.metrics["auroc"]) + "".join(
                f" (sd {sd:.3f} {over})" for sd, over in ((row.draw_std, "draws"), (row.seed_std, "seeds")) if not math.isnan(sd)
            )
            rows.append(
                (
                    display_names[row.encoder],
                    name_in_tables(section.protocol) + _format_fraction(row),
                    auroc,
                    *("" if row.shots is not None else format_interval(row.metrics[name]) for name in ("ap", "balanced_accuracy")),
                    format_difference(row.difference),
                    format_verdict(row.difference, display_names.get(row.reference, "")),
                )
            )
        rows += [(display_names[r.identity.encoder], name_in_tables(section.protocol), "failed", "", "", "", "") for r in section.failed]
    floor = next((s.majority for s in block if s.majority), None)
    rows += [(short_name(name), "", "not available", "", "", "", "") for name in missing]
    if floor:
        rows.append((MAJORITY_NAME, "", *(f"{floor[m]:.3f}" for m in TABLE_METRICS), "", ""))
    return rows


def strip_reference(verdict: str, reference: str) -> str:
    """A verdict without its reference, for a table that names the reference once."""
    for link in dict.fromkeys(VERDICT_LINKS.values()):
        verdict = verdict.replace(f" {link} {reference}", "").replace(f"{link} {reference}", "")
    return verdict


def _format_fraction(row: Row) -> str:
    """The label fraction of a row: ` 10% (24 patients)`, ` 20 patients`, or nothing for all labels."""
    requested = next((r.identity.patients for r in row.records), None)
    if row.shots is not None:
        return f" {row.shots}-shot"
    if requested is not None:
        return f" {requested} patients"
    if row.fraction == 1:
        return ""
    share = f" {row.fraction:.1%}" if row.fraction < 0.01 else f" {row.fraction:.0%}"
    labeled = {r.meta.counts["train"]["patients"] for r in row.records if "train" in r.meta.counts}
    # A fraction keeps at least one patient of each stratum, so the number can be higher than the share suggests.
    return share + (f" ({'-'.join(map(str, sorted({min(labeled), max(labeled)})))} patients)" if labeled else "")


def build_captions(
    block: Sequence[Section], usage: Mapping[str, SplitUsage], missing: Mapping[str, str], redactor: Redactor | None = None
) -> list[str]:
    """The lines below a block: sample sizes, hashes, uses of the test split, leaks, warnings and failures.

    redactor: of a table that is passed on; None: for the terminal of the user."""
    hide_all = redactor or str
    hide = redactor.hide_names if redactor else str
    first, lines = block[0], []
    counts = next((s.counts for s in block if s.counts), {})
    if counts:
        lines.append("; ".join(f"{part} {c['patients']} patients, {c['images']} images" for part, c in counts.items()))
    settings = f"protocols {name_settings(block)}"
    lines.append(f"split {first.partition[:8]}, labels {first.labels[:8]}, images {first.store[:8]}, {settings}")
    lines += caveats.describe_precision(block)
    lines += unique(f"scored by {r.meta.scored_by}" for s in block for row in s.rows for r in row.records if r.meta.scored_by)
    lines += describe_usage(usage, [split for s in block for split in s.splits])
    lines += unique(f"LEAKAGE ALLOWED: {hide_all(leak)}" for s in block for row in s.rows for r in row.records for leak in r.meta.leakage)
    lines += unique(f"warning: {hide_all(w)}" for s in block for row in s.rows for r in row.records for w in r.meta.warnings)
    lines += unique(f"warning: {note}" for s in block for row in s.rows for note in row.notes)
    lines += unique(f"{row.encoder}: {row.episodes_note}" for s in block for row in s.rows if row.episodes_note)
    lines += [f"{name}: not available: {hide(reason)}" for name, reason in missing.items()]
    lines += describe_searches(block)
    lines += caveats.describe_convergence(block)
    lines += caveats.describe_missing_imagenet(block, missing)
    lines += [f"{r.identity.encoder}, {r.identity.protocol} failed: {hide(str(r.meta.error))}" for s in block for r in s.failed]
    return lines


def gather_redactor(sections: Sequence[Section]) -> Redactor:
    """What hides the names of all records of tables that are passed on."""
    return Redactor(list(dict.fromkeys(r for s in sections for r in (*(r for row in s.rows for r in row.records), *s.failed))))


def mixed_hash_warnings(sections: Sequence[Section]) -> list[str]:
    """A warning for every protocol that a task has with several hashes; their rows are never in one table."""
    hashes_of = defaultdict(list)
    for s in sections:
        hashes_of[s.task, s.labels, s.partition, s.protocol, s.precision].append(s.protocol_hash)
    lines = []
    for (task, _, _, protocol, _), hashes in hashes_of.items():
        if len(set(hashes)) > 1:
            listed = ", ".join(h[:8] for h in dict.fromkeys(hashes))
            lines.append(
                f"warning: {task}: {protocol} was run with {len(set(hashes))} different settings or versions (hashes {listed}); "
                "their results are in separate tables and are not compared"
            )
    return lines


def unique(texts: Iterable[str]) -> list[str]:
    """The texts without duplicates, in order."""
    return list(dict.fromkeys(texts))


def list_allowed_leaks(row: Row) -> list[str]:
    """The confirmed leaks that --allow-leakage allowed; every table with results of the row states them."""
    return unique(leak for r in row.records for leak in r.meta.leakage)


def print_results(console: "Console", sections: Sequence[Section], usage: Mapping[str, SplitUsage], missing: Mapping[str, str]) -> None:
    """Prints the tables, with a group of rows per protocol and label fraction; they fit into the 120 columns of a log."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    display_names = shorten_names(sections)
    redactor = gather_redactor(sections) if prints_to_job_log() else None
    for block in group_sections(sections):
        table = Table(
            title=Text(f"task {block[0].task}"),
            title_justify="left",
            title_style="bold",
            pad_edge=False,
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        references = {row.reference for s in block for row in s.rows if row.difference is not None}
        table.add_column("encoder", overflow="fold")
        for name in (*RESULT_HEADER[2:5], "AUROC difference"):
            table.add_column(name, overflow="fold")
        group = ""
        for encoder, protocol, *values, difference, verdict in format_rows(block, display_names, missing):
            if protocol != group:
                table.add_section()
                group = protocol
                if protocol:
                    table.add_row(Text(protocol, style="bold"))
            if len(references) == 1:  # named once below the table, not in every row
                reference = display_names[min(references)]
                verdict = strip_reference(verdict, reference)
            table.add_row(Text(encoder), *map(Text, values), Text(f"{difference}\n{verdict}" if verdict else difference))
        console.print(table)
        if len(references) == 1:
            console.print(Text(f"  differences and verdicts are relative to {display_names[min(references)]}, on the same test patients"))
        if needs_comparison_table(block):
            console.print(_comparison_table(block, display_names))
        for caption in build_captions(block, usage, missing, redactor) + describe_legend(block, display_names):
            console.print(Text(f"  {caption}"), style="yellow" if caption.startswith(("LEAK", "warn")) else "dim")
    for warning in mixed_hash_warnings(sections):
        console.print(Text(warning), style="yellow")


def _comparison_table(block: Sequence[Section], display_names: Mapping[str, str]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text("all comparisons"), title_justify="left", pad_edge=False, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in COMPARISON_HEADER:
        table.add_column(name, overflow="fold")
    for line in format_comparisons(block, display_names):
        table.add_row(*map(Text, line))
    return table


def results_to_markdown(sections: Sequence[Section], usage: Mapping[str, SplitUsage], missing: Mapping[str, str]) -> str:
    """The tables as Markdown."""
    display_names, out, redactor = shorten_names(sections), list[str](), gather_redactor(sections)
    for block in group_sections(sections):
        captions = build_captions(block, usage, missing, redactor) + describe_legend(block, display_names)
        out += [f"### {escape_markdown(block[0].task)}", "", f"| {' | '.join(RESULT_HEADER)} |", "|" + " --- |" * len(RESULT_HEADER)]
        out += [f"| {' | '.join(map(escape_markdown, row))} |" for row in format_rows(block, display_names, missing)]
        if needs_comparison_table(block):
            out += ["", f"| {' | '.join(COMPARISON_HEADER)} |", "|" + " --- |" * len(COMPARISON_HEADER)]
            out += [f"| {' | '.join(map(escape_markdown, line))} |" for line in format_comparisons(block, display_names)]
        out += ["", *(f"- {escape_markdown(caption)}" for caption in captions), ""]
    out += [f"- {escape_markdown(warning)}" for warning in mixed_hash_warnings(sections)]
    return "\n".join(out)


def write_table(path: str | Path, text: str) -> None:
    """Writes a table to a file atomically."""
    with atomic_write(path) as part:
        part.write_text(text)
