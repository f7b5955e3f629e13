"""Provenance of a report: leaks, uses of the test splits, protocols and their selections, encoders, environment."""

import json
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from encoders.runtime.html import Html, collapsible_section, html_table, join_html, short_hash, tag
from transfer.leakage.check import NOT_DETECTED
from transfer.records.record import Record
from transfer.records.test_usage import SplitUsage, lower_median
from transfer.report.context import Block, ReportContext
from transfer.tables import render


def allowed_leaks(context: ReportContext) -> list[str]:
    """Every leak that --allow-leakage allowed, without the patients that it names."""
    return context.redactor.redact_all(f"{r.identity.task}: {leak}" for r in context.records for leak in r.meta.leakage)


def leak_section(block: Block, context: ReportContext) -> Html:
    """Leaks between the parts, and between pretraining and the test part."""
    allowed = allowed_leaks(context)
    warnings = context.redactor.redact_all(f"{r.identity.task}: {w}" for r in context.records for w in r.meta.warnings)
    body = []
    if allowed:
        body.append(tag("p", tag("b", "Leaks were found, and allowed with --allow-leakage. "), "The scores below are too high."))
        body.append(tag("ul", *(tag("li", line, class_="bad") for line in allowed)))
    else:
        body.append(
            tag(
                "p",
                "No patient, identical image or confirmed copy of one is shared by two parts, or by the test part and the encoders' "
                f"pretraining manifests. Not detected are {NOT_DETECTED}.",
            )
        )
    if warnings:
        body.append(tag("p", "Warnings of the benchmark:"))
        body.append(tag("ul", *(tag("li", line) for line in warnings)))
    return join_html(body)


def ledger_section(block: Block, context: ReportContext) -> Html:
    """How often the images of each test split were scored, and by which encoders that are not on the page."""
    records_of: dict[str, list[Record]] = defaultdict(list)
    for r in context.records:
        if r.identity.split in context.usage:
            records_of[r.identity.split].append(r)
    rows = [_ledger_row(records, context.usage[split]) for split, records in records_of.items()]
    rows.sort(key=lambda row: (row[0], row[1]))
    note = (
        "Comparing many checkpoints on one test set is itself a selection: the more often its images were scored, the more optimistic is "
        "its best result. Scorings are counted per image, from the ledger and from the records. Those of other splits, tasks and stores "
        "that share images with the test split count for these images. An image is recognised by its pixels, or by its key in the same "
        "task. All counts are lower bounds."
    )
    unreadable = max((usage.unreadable for usage in context.usage.values()), default=0)
    warning = tag("p", f"{unreadable} lines of the ledger cannot be read; each may be a further scoring.", class_="bad")
    counts = ["median image scored", "most", "encoders", "protocols", "of other sets"]
    header = ["task", "test split", *counts, "first", "last", "not on this page"]
    return join_html([tag("p", note), *([warning] if unreadable else []), html_table(header, rows)])


def _ledger_row(records: Sequence[Record], usage: SplitUsage) -> list[str]:
    first = records[0].identity
    name = first.task + (f", fold {first.fold + 1} of {first.folds}" if first.folds > 1 else "")
    on_page = {r.identity.encoder_sha256 for r in records}
    hidden = sorted({look.encoder for look in usage.looks if look.encoder_sha256 not in on_page})
    times = [look.time for look in usage.looks if look.time] or [0.0]
    encoders, protocols = lower_median(usage.encoders), lower_median(usage.protocols)
    logged = any(look.in_ledger for look in usage.looks)
    return [
        name,
        short_hash(first.split),
        f"at least {usage.typical} time{'' if usage.typical == 1 else 's'}{'' if logged else ' (from records, no ledger found)'}",
        str(usage.most),
        str(encoders),
        str(protocols),
        str(len(usage.others)),
        format_day(min(times)),
        format_day(max(times)),
        f"{len(hidden)} encoder{'' if len(hidden) == 1 else 's'}: {', '.join(hidden)}" if hidden else "none known",
    ]


def format_day(seconds: float) -> str:
    """The UTC date of a Unix time; "" for 0."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds)) if seconds else ""


def protocol_section(block: Block, context: ReportContext) -> Html:
    """The hash and settings of every protocol, and what it selected on validation patients."""
    by_hash: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for r in context.records:
        by_hash[r.identity.protocol, r.identity.protocol_hash].append(r)
    rows = [
        [
            name,
            short_hash(protocol_hash),
            str(len(records)),
            tag("td", _compact_json(records[0].meta.protocol_config), class_="long", data_label="settings"),
        ]
        for (name, protocol_hash), records in sorted(by_hash.items())
    ]
    warnings = [tag("p", warning, class_="bad") for warning in render.mixed_hash_warnings(context.sections)]
    selections = [
        [
            r.identity.task,
            context.display_names[r.identity.encoder],
            r.identity.protocol,
            describe_partition(r),
            tag("td", context.redactor(_compact_json(shorten_selection(r.meta.selection))), class_="long", data_label="selected"),
        ]
        for r in context.records
        if r.meta.status == "ok" and r.identity.shift is None  # nothing is selected on shifted images
    ]
    selected = html_table(["task", "encoder", "protocol", "part", "selected"], selections, "small")
    note = (
        "A protocol hash covers the settings and the version of a protocol; a table never mixes two hashes of one protocol. "
        "Hyper-parameters are selected on validation patients."
    )
    return join_html(
        [
            tag("p", note),
            *warnings,
            html_table(["protocol", "hash", "records", "settings"], rows, "small"),
            collapsible_section("Selected hyper-parameters", selected),
        ]
    )


def describe_partition(r: Record) -> str:
    """Fold, label fraction, draw and shift of a record, if it has any."""
    i = r.identity
    words = [f"fold {i.fold + 1} of {i.folds}"] if i.folds > 1 else []
    words += [f"{i.fraction:.3g} of the labels, draw {i.draw}"] if i.fraction < 1 else []
    words += [f"features in {i.precision}"] if i.precision != "fp32" else []
    words += [f"{i.shift}, strength {i.strength}"] if i.shift else []
    return ", ".join(words) or "all labels"


def shorten_selection(selection: Mapping[str, Any]) -> dict[str, Any]:
    """A selection without its tables and long lists."""
    return {k: v for k, v in selection.items() if not isinstance(v, dict) and not (isinstance(v, list) and len(v) > 8)}


def _compact_json(value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(", ", ": "), default=str)
    return text.strip("{}").replace('"', "")


def environment_section(block: Block, context: ReportContext) -> Html:
    """Encoders, versions, devices and time; and every record, so that it can be found and checked."""
    records, names = context.records, context.display_names
    encoders = {(r.identity.encoder, r.identity.encoder_sha256): r for r in records}
    networks = [
        [names[name], name, r.meta.role, r.meta.arch, f"{r.meta.size} px", short_hash(sha), short_hash(r.identity.card)]
        for (name, sha), r in encoders.items()
    ]
    seen: dict[str, set[str]] = defaultdict(set)
    for r in records:
        for name, value in r.meta.versions.items():
            seen[name].add(value)
        seen["device"].add(r.meta.device)
    software = [[name, _join_values(values)] for name, values in sorted(seen.items())]
    spent = sum(r.meta.seconds.get("total", 0.0) for r in records)
    software += [["computing time of all records", f"{spent:.0f} s"], ["this page", f"isograft {version('isograft')}"]]
    listed = [
        [
            short_hash(r.identity.id),
            r.identity.task,
            names[r.identity.encoder],
            r.identity.protocol,
            describe_partition(r),
            str(r.identity.seed),
            r.meta.status,
        ]
        for r in records
    ]
    table = html_table(["record", "task", "encoder", "protocol", "part", "seed", "status"], listed, "small")
    return join_html(
        [
            html_table(["encoder", "full name", "role", "network", "input", "sha256", "card"], networks, "small"),
            html_table(["component", "version"], software, "small"),
            collapsible_section(f"All {len(listed)} records", table),
        ]
    )


def _join_values(values: Iterable[str]) -> str:
    ordered = sorted(values)
    return ", ".join(ordered) + (" (mixed)" if len(ordered) > 1 else "")
