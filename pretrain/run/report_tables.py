"""The tables of a run's page. Hosts, process ids and folders are left out."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

from encoders.runtime.html import Html, html_table
from encoders.runtime.redact import redact_private
from encoders.zoo.card import Card
from encoders.zoo.public_card import publish_card
from pretrain.loop.step_parts import STEP_PARTS
from pretrain.run.run_info import ChangeInfo, RunInfo, SessionInfo

Row: TypeAlias = Sequence[object]


def render_rows(header: Sequence[str], rows: Iterable[Row]) -> Html:
    """A table, or nothing without rows."""
    body = list(rows)
    return html_table(header, body) if body else Html()


def median_time_shares(lines: Sequence[Mapping[str, Any]]) -> list[Row]:
    """(part, median share over all lines) of each part of a step."""
    shares = {part: [line[f"time/{part}"] for line in lines if f"time/{part}" in line] for part in STEP_PARTS}
    return [[part, f"{100 * median(values):.1f} %"] for part, values in shares.items() if values]


def session_row(entry: SessionInfo) -> Row:
    return [entry.get(key, "") for key in ("from_step", "to_step", "seconds", "device", "started", "ended_by")]


def rollback_row(entry: Mapping[str, object]) -> Row:
    return [entry["at_step"], entry["to_step"], entry["lr_factor"], entry["why"]]


def change_row(entry: ChangeInfo) -> Row:
    """Of a path, the kind of file is left."""
    return [entry["step"], entry["key"], *(redact_private(v) for v in (entry["from"], entry["to"]))]


def provenance_rows(info: RunInfo) -> list[Row]:
    """Identity of the run and its store, versions, and the lineage on the encoder's card."""
    rows: list[Row] = [("run id", info["id"]), ("store fingerprint", info["fingerprint"]), ("commit", info.get("commit") or "unknown")]
    rows += sorted(info["versions"].items())
    card = Path(info.get("encoder", "")) / "card.yaml"
    if info.get("encoder") and card.is_file():
        rows += [(f"lineage: {key}", value) for key, value in publish_card(Card.read(card)).lineage.items()]
    return rows
