"""The comparison table as people read it: on a terminal, as CSV and as Markdown, all from the same rows."""

import csv
import io
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from encoders.runtime.files import atomic_write
from encoders.zoo.names import short_name
from transfer.records.test_seal import SplitUsage
from transfer.stats import Difference, Interval
from transfer.tables import caveats
from transfer.tables.rows import TABLE_METRICS, Row, Section

RESULT_HEADER = ("encoder", "protocol", "AUROC [95 %]", "AP [95 %]", "balanced accuracy", "AUROC difference [95 %]", "verdict")
MAJORITY_NAME = "(majority class)"
VERDICT_LINKS = {"not distinguishable": "from", "insufficient patients": "to compare with"}


def format_interval(value: Interval) -> str:
    """`0.931 [0.902, 0.953]`."""
    if math.isnan(value.value):
        return "not defined"
    ends = "insufficient patients" if math.isnan(value.low) else f"{value.low:.3f}, {value.high:.3f}"
    return f"{value.value:.3f} [{ends}]"


def format_difference(value: Difference | None) -> str:
    """`+0.021 [-0.003, +0.045]`."""
    if value is None or math.isnan(value.value):
        return ""
    ends = "insufficient patients" if math.isnan(value.low) else f"{value.low:+.3f}, {value.high:+.3f}"
    return f"{value.value:+.3f} [{ends}]"


def format_verdict(value: Difference | None, versus: str) -> str:
    """`better than imagenet_resnet18`."""
    return "" if value is None else f"{value.told} {VERDICT_LINKS.get(value.told, 'than')} {versus}"


def shorten_names(sections: Sequence[Section]) -> dict[str, str]:
    """Encoder names without their options; those that this would make equal are numbered, and `legend` says what they are.

    A name with all its options is longer than a line, and takes the table's other columns away."""
    every = sorted({row.encoder for s in sections for row in s.rows} | {r.identity.encoder for s in sections for r in s.failed})
    twins = defaultdict(list)
    for name in every:
        twins[short_name(name)].append(name)
    return {name: key if len(same) == 1 else f"{key} #{i + 1}" for key, same in twins.items() for i, name in enumerate(same)}


def describe_legend(block: Sequence[Section], shown: Mapping[str, str]) -> list[str]:
    """What the numbered names of a block's encoders stand for, and what its verdicts are about."""
    here = {row.encoder for s in block for row in s.rows} | {r.identity.encoder for s in block for r in s.failed}
    said = [f"{shown[name]} is {name}" for name in sorted(here) if shown[name] != short_name(name)]
    return said + caveats.describe_seeds(block, shown) + caveats.describe_detectable_differences(block, shown)


def group_sections(sections: Sequence[Section]) -> list[list[Section]]:
    """Sections grouped by task, target and division of patients; a protocol with two hashes never shares a block with itself."""
    found: list[list[Section]] = []
    for s in sections:
        fit = [b for b in found if (b[0].task, b[0].labels, b[0].store, b[0].partition) == (s.task, s.labels, s.store, s.partition)]
        fit = [b for b in fit if s.protocol not in {other.protocol for other in b}]
        fit[0].append(s) if fit else found.append([s])
    return found


def format_rows(block: Sequence[Section], shown: Mapping[str, str], missing: Mapping[str, str]) -> list[tuple[str, ...]]:
    """The rows of one block as text."""
    rows: list[tuple[str, ...]] = []
    for section in block:
        for row in section.rows:
            asked, few = next((r.identity.patients for r in row.records), None), row.fraction < 0.01
            share = "" if row.fraction == 1 else f" {row.fraction:.1%}" if few else f" {row.fraction:.0%}"
            share = share if asked is None else f" {asked} patients"
            labeled = {r.meta.counts["train"]["patients"] for r in row.records if "train" in r.meta.counts}
            if row.fraction < 1 and asked is None and labeled:  # a share of patients is at least one of each class, whatever was asked for
                share += f" ({'-'.join(map(str, sorted({min(labeled), max(labeled)})))} patients)"
            auroc = format_interval(row.metrics["auroc"]) + "".join(
                f" (sd {sd:.3f} {over})" for sd, over in ((row.spread, "draws"), (row.seed_spread, "seeds")) if not math.isnan(sd)
            )
            last = (format_difference(row.difference), format_verdict(row.difference, shown.get(row.versus, "")))
            rows.append(
                (
                    shown[row.encoder],
                    section.protocol + share,
                    auroc,
                    format_interval(row.metrics["ap"]),
                    format_interval(row.metrics["balanced_accuracy"]),
                    *last,
                )
            )
        rows += [(shown[r.identity.encoder], section.protocol, "failed", "", "", "", "") for r in section.failed]
    floor = next((s.majority for s in block if s.majority), None)
    rows += [(short_name(name), "", "not available", "", "", "", "") for name in missing]
    if floor:
        rows.append((MAJORITY_NAME, "", *(f"{floor[m]:.3f}" for m in TABLE_METRICS), "", ""))
    return rows


def build_captions(block: Sequence[Section], looks: Mapping[str, SplitUsage], missing: Mapping[str, str]) -> list[str]:
    """What must stand below a block: who was tested, how often that was looked at, and everything that bids caution."""
    first, said = block[0], []
    counts = next((s.counts for s in block if s.counts), {})
    if counts:
        said.append("; ".join(f"{part} {c['patients']} patients, {c['images']} images" for part, c in counts.items()))
    hashes = ", ".join(f"{s.protocol} {s.protocol_hash[:8]}" for s in block)
    said.append(f"split {first.partition[:8]}, labels {first.labels[:8]}, images {first.store[:8]}, protocols {hashes}")
    said += [
        f"this test split was {looks[h]}"
        for h in dict.fromkeys(h for s in block for h in s.splits)
        if h in looks and len(first.splits) == 1
    ]
    if len(first.splits) > 1:
        times = sum(looks[h].times for h in first.splits if h in looks)
        said.append(f"{len(first.splits)} folds; their test splits were scored {times} times in all")
    said += unique(f"LEAKAGE ALLOWED: {leak}" for s in block for row in s.rows for r in row.records for leak in r.meta.leakage)
    said += unique(f"warning: {w}" for s in block for row in s.rows for r in row.records for w in r.meta.warnings)
    said += unique(f"warning: {note}" for s in block for row in s.rows for note in row.notes)
    said += unique(f"{row.encoder}: {row.remark}" for s in block for row in s.rows if row.remark)
    said += [f"{name}: not available: {why}" for name, why in missing.items()]
    said += caveats.describe_missing_imagenet(block, missing)
    said += [f"{r.identity.encoder}, {r.identity.protocol} failed: {r.meta.error}" for s in block for r in s.failed]
    return said


def mixed_hash_warnings(sections: Sequence[Section]) -> list[str]:
    """A warning for every protocol that a task has with several hashes: their rows are never in one table."""
    found = defaultdict(list)
    for s in sections:
        found[s.task, s.labels, s.partition, s.protocol].append(s.protocol_hash)
    end = "these were measured in different ways; their tables stand apart and nothing compares them"
    said = []
    for (task, _, _, kind), hashes in found.items():
        if len(set(hashes)) > 1:
            said.append(f"warning: {task}: {kind} has {len(set(hashes))} hashes ({', '.join(h[:8] for h in dict.fromkeys(hashes))}): {end}")
    return said


def unique(texts: Any) -> list[str]:
    return list(dict.fromkeys(texts))


def list_allowed_leaks(row: Row) -> list[str]:
    """The leaks that were allowed when these records were made: they are stamped on whatever shows a number of them."""
    return unique(leak for r in row.records for leak in r.meta.leakage)


def print_results(console: Any, sections: Sequence[Section], looks: Mapping[str, SplitUsage], missing: Mapping[str, str]) -> None:
    """The table on a rich console: a group of rows for each protocol and label fraction, narrow enough for the 120 columns of a log."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = shorten_names(sections)
    for block in group_sections(sections):
        table = Table(
            title=Text(f"task {block[0].task}"),
            title_justify="left",
            title_style="bold",
            pad_edge=False,
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
        )
        against = {row.versus for s in block for row in s.rows if row.difference is not None}
        table.add_column("encoder", no_wrap=True)
        for name in (*RESULT_HEADER[2:5], "AUROC difference"):
            table.add_column(name, overflow="fold")
        group = ""
        for encoder, protocol, *values, away, said in format_rows(block, shown, missing):
            if protocol != group:
                table.add_section()
                group = protocol
                if protocol:
                    table.add_row(Text(protocol, style="bold"))
            if len(against) == 1:  # said once below the table, not in every row
                said = said.removesuffix(f" than {shown[min(against)]}").removesuffix(f" from {shown[min(against)]}")
            table.add_row(Text(encoder), *map(Text, values), Text(f"{away}\n{said}" if said else away))
        console.print(table)
        if len(against) == 1:
            console.print(Text(f"  differences and verdicts are to {shown[min(against)]}, on the same test patients"))
        for caption in build_captions(block, looks, missing) + describe_legend(block, shown):
            console.print(Text(f"  {caption}"), style="yellow" if caption.startswith(("LEAK", "warn")) else "dim")
    for warning in mixed_hash_warnings(sections):
        console.print(Text(warning), style="yellow")


def results_to_markdown(sections: Sequence[Section], looks: Mapping[str, SplitUsage], missing: Mapping[str, str]) -> str:
    """The table as Markdown."""
    shown, out = shorten_names(sections), []
    clean = lambda text: text.replace("|", "\\|").replace("\n", " ")  # noqa: E731
    for block in group_sections(sections):
        out += [f"### {block[0].task}", "", f"| {' | '.join(RESULT_HEADER)} |", "|" + " --- |" * len(RESULT_HEADER)]
        out += [f"| {' | '.join(map(clean, row))} |" for row in format_rows(block, shown, missing)]
        out += ["", *(f"- {clean(caption)}" for caption in build_captions(block, looks, missing) + describe_legend(block, shown)), ""]
    out += [f"- {clean(warning)}" for warning in mixed_hash_warnings(sections)]
    return "\n".join(out)


def results_to_csv(sections: Sequence[Section], looks: Mapping[str, SplitUsage], missing: Mapping[str, str]) -> str:
    """The table as CSV, one row a row, numbers with six digits, whole hashes."""
    table = [line for s in sections for line in _csv_rows(s, looks)]
    table += [{"encoder": name, "status": f"not available: {why}"} for name, why in missing.items()]
    return lines_to_csv(table)


def lines_to_csv(lines: Sequence[Mapping[str, Any]]) -> str:
    """Lines under the names of all their columns, in the order in which these first come; empty where a line has none."""
    fields = list(dict.fromkeys(key for line in lines for key in line))
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def _csv_rows(section: Section, looks: Mapping[str, SplitUsage]) -> list[dict[str, Any]]:
    base = {"task": section.task, "protocol": section.protocol}
    found = [{**base, **_csv_numbers(row)} for row in section.rows]
    found += (
        [{**base, "encoder": MAJORITY_NAME, "status": "ok", **{m: f"{v:.6f}" for m, v in section.majority.items()}}]
        if section.majority
        else []
    )
    found += [{**base, "encoder": r.identity.encoder, "status": f"failed: {r.meta.error}"} for r in section.failed]
    counts = {f"{part}_{what}": n for part, c in section.counts.items() for what, n in c.items()}
    times = sum(looks[h].times for h in section.splits if h in looks)
    tail = {"split": section.partition, "labels": section.labels, "protocol_hash": section.protocol_hash, "test_split_scored": times}
    return [{**line, **counts, **tail} for line in found]


def _csv_numbers(row: Row) -> dict[str, Any]:
    line: dict[str, Any] = {"encoder": row.encoder, "role": row.role, "fraction": row.fraction, "records": len(row.records), "status": "ok"}
    for name, value in row.metrics.items():
        line |= {name: f"{value.value:.6f}", f"{name}_low": f"{value.low:.6f}", f"{name}_high": f"{value.high:.6f}"}
    for over, spread in (("draws", row.spread), ("seeds", row.seed_spread)):
        line[f"auroc_sd_over_{over}"] = "" if math.isnan(spread) else f"{spread:.6f}"
    if row.difference is not None:
        d = row.difference
        line |= {"versus": row.versus, "difference": f"{d.value:.6f}", "difference_low": f"{d.low:.6f}", "difference_high": f"{d.high:.6f}"}
        line |= {"p": f"{d.p:.6g}", "verdict": d.told, "about": "recipe" if row.seeds else "checkpoint"}
        least = caveats.row_detectable_difference(row)
        line["minimal_detectable_difference"] = "" if least is None else f"{least:.6f}"
    line["leakage"] = "; ".join(list_allowed_leaks(row))
    line["notes"] = "; ".join(unique([*row.notes, *filter(None, [row.remark]), *(w for r in row.records for w in r.meta.warnings)]))
    return line


def write_table(path: str | Path, text: str) -> None:
    """Writes a table to a file, whole or not at all."""
    with atomic_write(path) as part:
        part.write_text(text)
