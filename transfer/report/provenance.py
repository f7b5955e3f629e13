"""What stands behind the numbers: leaks, how often each test split was looked at, protocols and what they chose, encoders, environment."""

import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from encoders.runtime.html import Html, collapsible_section, html_table, join_html, short_hash, tag
from encoders.runtime.paths import records_dir
from transfer.records import test_seal
from transfer.records.record import Record
from transfer.report.redact import Redactor
from transfer.tables import render
from transfer.tables.rows import Section


def allowed_leaks(records: Sequence[Record], discreet: Redactor) -> list[str]:
    """Every leak that was let pass, without the patients that it names."""
    return discreet.each(f"{r.identity.task}: {leak}" for r in records for leak in r.meta.leakage)


def leak_section(records: Sequence[Record], discreet: Redactor) -> Html:
    """What was found between the parts, and between pretraining and the test part."""
    let, suspected = allowed_leaks(records, discreet), discreet.each(f"{r.identity.task}: {w}" for r in records for w in r.meta.warnings)
    body = []
    if let:
        body.append(tag("p", tag("b", "Leaks were found, and the bench was told to go on. "), "The numbers below them flatter."))
        body.append(tag("ul", *(tag("li", line, class_="bad") for line in let)))
    else:
        body.append(
            tag("p", "No leak of patients or identical images was found between the parts, nor with what the encoders' manifests list.")
        )
    if suspected:
        body.append(tag("p", "What the bench noted:"))
        body.append(tag("ul", *(tag("li", line) for line in suspected)))
    return join_html([tag("h2", "Leakage"), *body])


def read_ledgers(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The lines of this working folder's ledger and of those that lie with the records, each once."""
    beside = [folder / "ledger.jsonl" for path in paths for folder in list(path.resolve().parents)[:2]]
    places = dict.fromkeys(p.resolve() for p in [records_dir() / "ledger.jsonl", *beside])
    return list({json.dumps(line, sort_keys=True): line for place in places for line in test_seal.read_ledger(place)}.values())


def ledger_section(records: Sequence[Record], lines: Sequence[dict[str, Any]]) -> Html:
    """How often each test split was scored, by what, and by what that is not on this page."""
    splits: dict[str, list[Record]] = defaultdict(list)
    for r in records:
        splits[r.identity.split].append(r)
    rows = [_ledger_row(split, of, [line for line in lines if line.get("split") == split]) for split, of in splits.items()]
    rows.sort(key=lambda row: (row[0], row[1]))
    said = "Comparing many checkpoints on one test split is a selection too: the more often it was scored, the less its best number means."
    header = ["task", "test split", "scored", "encoders", "protocols", "first", "last", "not on this page"]
    return join_html([tag("h2", "How often each test split was scored"), tag("p", said), html_table(header, rows)])


def _ledger_row(split: str, records: Sequence[Record], mine: Sequence[dict[str, Any]]) -> list[Any]:
    first = records[0].identity
    name = first.task + (f", fold {first.fold + 1} of {first.folds}" if first.folds > 1 else "")
    if not mine:
        return [name, short_hash(split), "no ledger at hand", "", "", "", "", "unknown: ask for the ledger of who made the records"]
    shown = {r.identity.encoder_sha256 for r in records}
    others = {str(line.get("encoder")) for line in mine if line.get("encoder_sha256") not in shown}
    kinds = {(line.get("protocol"), line.get("protocol_hash")) for line in mine}
    when = [format_day(float(pick(line["time"] for line in mine if "time" in line))) for pick in (_min_or_zero, _max_or_zero)]
    hidden = f"{len(others)} encoder{'s' if len(others) != 1 else ''}: {', '.join(sorted(others))}" if others else "none"
    return [
        name,
        short_hash(split),
        f"{len(mine)} times",
        str(len({line.get("encoder_sha256") for line in mine})),
        str(len(kinds)),
        *when,
        hidden,
    ]


def _min_or_zero(values: Any) -> float:
    return min(values, default=0.0)


def _max_or_zero(values: Any) -> float:
    return max(values, default=0.0)


def format_day(seconds: float) -> str:
    return time.strftime("%Y-%m-%d", time.gmtime(seconds)) if seconds else ""


def protocol_section(records: Sequence[Record], parts: Sequence[Section], shown: Mapping[str, str], discreet: Redactor) -> Html:
    """The hash and the settings of every protocol, and what was chosen on validation patients."""
    hashes: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for r in records:
        hashes[r.identity.protocol, r.identity.protocol_hash].append(r)
    rows = [
        [name, short_hash(h), str(len(of)), tag("td", _compact_json(of[0].meta.protocol_config), class_="long", data_label="settings")]
        for (name, h), of in sorted(hashes.items())
    ]
    warn = [tag("p", warning, class_="bad") for warning in render.mixed_hash_warnings(parts)]
    chosen = [
        [
            r.identity.task,
            shown[r.identity.encoder],
            r.identity.protocol,
            describe_partition(r),
            tag("td", discreet(_compact_json(shorten_selection(r.meta.selection))), class_="long", data_label="chosen"),
        ]
        for r in records
        if r.meta.status == "ok" and r.identity.shift is None  # on shifted images nothing is chosen
    ]
    inside = html_table(["task", "encoder", "protocol", "part", "chosen"], chosen, "small")
    return join_html(
        [
            tag("h2", "Protocols"),
            tag(
                "p", "One hash, one way of measuring; a table never mixes two hashes of a protocol. All was chosen on validation patients."
            ),
            *warn,
            html_table(["protocol", "hash", "records", "settings"], rows, "small"),
            collapsible_section("What was chosen", inside),
        ]
    )


def describe_partition(r: Record) -> str:
    """Fold, fraction, draw and shift of a record, where they say anything."""
    i = r.identity
    told = [f"fold {i.fold + 1} of {i.folds}"] if i.folds > 1 else []
    told += [f"{i.fraction:.3g} of the labels, draw {i.draw}"] if i.fraction < 1 else []
    told += [f"{i.shift}, strength {i.strength}"] if i.shift else []
    return ", ".join(told) or "all labels"


def shorten_selection(selection: Mapping[str, Any]) -> dict[str, Any]:
    """A selection without its tables and long lists."""
    return {k: v for k, v in selection.items() if not isinstance(v, dict) and not (isinstance(v, list) and len(v) > 8)}


def _compact_json(value: Any) -> str:
    plain = json.dumps(value, sort_keys=True, separators=(", ", ": "), default=str)
    return plain.strip("{}").replace('"', "")


def environment_section(records: Sequence[Record], shown: Mapping[str, str]) -> Html:
    """Encoders, versions, devices and time; and every record, so that it can be found and checked."""
    encoders = {(r.identity.encoder, r.identity.encoder_sha256): r for r in records}
    nets = [
        [shown[name], name, r.meta.role, r.meta.arch, f"{r.meta.size} px", short_hash(sha), short_hash(r.identity.card)]
        for (name, sha), r in encoders.items()
    ]
    seen: dict[str, set[str]] = defaultdict(set)
    for r in records:
        for name, value in r.meta.versions.items():
            seen[name].add(value)
        seen["device"].add(r.meta.device)
    software = [[name, ", ".join(sorted(values)) + (" (mixed)" if len(values) > 1 else "")] for name, values in sorted(seen.items())]
    spent = sum(r.meta.seconds.get("total", 0.0) for r in records)
    software += [["time of all records", f"{spent:.0f} s"], ["this page", f"isograft {version('isograft')}"]]
    each = [
        [
            short_hash(r.identity.id),
            r.identity.task,
            shown[r.identity.encoder],
            r.identity.protocol,
            describe_partition(r),
            str(r.identity.seed),
            r.meta.status,
        ]
        for r in records
    ]
    return join_html(
        [
            tag("h2", "Environment"),
            html_table(["encoder", "whole name", "role", "network", "input", "sha256", "card"], nets, "small"),
            html_table(["what", "version"], software, "small"),
            collapsible_section(
                f"All {len(each)} records", html_table(["record", "task", "encoder", "protocol", "part", "seed", "status"], each, "small")
            ),
        ]
    )
