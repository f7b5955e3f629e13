"""Comparisons in W&B: a run an encoder with its numbers, and one with the leaderboard that lays encoders side by side.

Service failures end at the tracker's boundary. Offline, an encoder is known by sha256 and run id in the config; online, the run also
names the encoder's artifact as its input, which W&B draws as lineage.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from encoders.runtime.metrics_log import MetricsLog
from encoders.runtime.paths import records_dir
from encoders.zoo.card import Card
from encoders.zoo.names import short_name
from transfer.records.record import UNSAFE_CHARACTERS
from transfer.tables.render import write_table
from transfer.tables.rows import Row, Section, wandb_summary

LEADERBOARD_COLUMNS = (
    "encoder", "role", "task", "protocol", "protocol_hash", "label_fraction", "auroc", "auroc_low", "auroc_high", "ap", "balanced_accuracy",
    "versus", "difference", "difference_low", "difference_high", "verdict", "test_patients", "leakage_allowed", "encoder_sha256",
)  # fmt: skip


def publish_encoders(parts: Sequence[Section], cards: Mapping[str, Card]) -> None:
    """The numbers of each encoder as the summary of a W&B run of its own, its config saying which weights they are of."""
    for name, card in cards.items():
        flat = wandb_summary(parts, name)
        if not flat:
            continue
        weights = sorted({r.identity.encoder_sha256 for s in parts for row in s.rows for r in row.records if r.identity.encoder == name})
        facts = {"arch": card.arch, "method": card.method, "steps": card.steps, "run_id": card.lineage.get("run_id")}
        about = {
            "encoder": {"name": short_name(name), "sha256": "+".join(weights)} | facts,
            "bench": {"tasks": sorted({s.task for s in parts})},
        }
        with resume_track(
            re.sub(UNSAFE_CHARACTERS, "_", name), group=short_name(name), job_type="bench", name=f"{short_name(name)}-bench", config=about
        ) as track:
            track.summary(**flat)
            if card.lineage.get("run_id"):
                track.uses(short_name(name), weights)


def publish_leaderboard(parts: Sequence[Section]) -> str | None:
    """The table of all encoders as a W&B run of its own, with a saved workspace and report where wandb-workspaces is installed.

    Returns where it can be seen, or None offline."""
    about = {"bench": {"tasks": sorted({s.task for s in parts})}}
    with resume_track(".leaderboard", group="comparison", job_type="compare", name="leaderboard", config=about) as track:
        track.table("leaderboard", LEADERBOARD_COLUMNS, leaderboard_lines(parts))
        return track.side_by_side(sorted({f"bench/{s.task}/{s.protocol}/auroc" for s in parts}))


def resume_track(folder: str, **about: Any) -> MetricsLog:
    """The Track of a folder below `records/.track`; the same W&B run, however often something is compared."""
    place = records_dir() / ".track" / folder
    known = place / "wandb.id"
    track = MetricsLog(place, resume=known.read_text().strip() if known.is_file() else None, **about)
    write_table(known, track.id)
    return track


def leaderboard_lines(parts: Sequence[Section]) -> list[list[Any]]:
    """A line a row of the tables, in the order of COLUMNS; never a patient or a path."""
    return [_leaderboard_line(s, row) for s in parts for row in s.rows]


def _leaderboard_line(s: Section, row: Row) -> list[Any]:
    auroc, d, records = row.metrics["auroc"], row.difference, row.records
    patients, leaky = records[0].meta.counts.get("test", {}).get("patients"), any(r.meta.leakage for r in records)
    return [
        short_name(row.encoder), row.role, s.task, s.protocol, s.protocol_hash, row.fraction, auroc.value, auroc.low, auroc.high,
        row.metrics["ap"].value, row.metrics["balanced_accuracy"].value, short_name(row.versus) if d else "",
        *((d.value, d.low, d.high, d.told) if d else (None, None, None, "")),
        patients, leaky, records[0].identity.encoder_sha256[:16],
    ]  # fmt: skip


def find_offline_runs(root: Path) -> list[Path]:
    """The offline W&B runs below a working folder that were not sent yet, each run's parts in the order they were made."""
    found = [p for p in root.glob("**/wandb/offline-run-*") if p.is_dir() and any(p.glob("*.wandb")) and not any(p.glob("*.synced"))]
    return sorted(found, key=lambda p: p.name.removeprefix("offline-run-"))
