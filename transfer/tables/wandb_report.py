"""Comparisons in W&B: one run per encoder with its results, and one run with the leaderboard of all encoders.

Failures of the service do not reach the caller (encoders/runtime/metrics_log.py). Offline, a run's config identifies the encoder by sha256
and run id. Online, the run also names the encoder's artifact as its input, which W&B draws as lineage.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from encoders.runtime.json_types import Json
from encoders.runtime.metrics_log import MetricsLog
from encoders.runtime.paths import records_dir
from encoders.zoo.card import Card
from encoders.zoo.names import short_name
from transfer.records.record import UNSAFE_CHARACTERS
from transfer.tables.caveats import detectable_difference
from transfer.tables.render import write_table
from transfer.tables.rows import Comparison, Row, Section

LEADERBOARD_COLUMNS = (
    "encoder", "role", "task", "protocol", "protocol_hash", "label_fraction", "auroc", "auroc_low", "auroc_high", "ap", "balanced_accuracy",
    "versus", "difference", "difference_low", "difference_high", "p", "p_holm", "verdict",
    "minimal_detectable_difference", "test_patients", "leakage_allowed", "encoder_sha256",
)  # fmt: skip


class RunSettings(TypedDict):
    """How W&B shows a run."""

    group: str
    job_type: str
    name: str
    config: dict[str, Json]


def publish_encoders(sections: Sequence[Section], cards: Mapping[str, Card]) -> None:
    """Publishes the results of each encoder as the summary of its own W&B run, with the sha256 of its weights in the config."""
    for name, card in cards.items():
        flat = wandb_summary(sections, name)
        if not flat:
            continue
        weights = sorted({r.identity.encoder_sha256 for s in sections for row in s.rows for r in row.records if r.identity.encoder == name})
        facts = {"arch": card.arch, "method": card.method, "steps": card.steps, "run_id": card.lineage.get("run_id")}
        config: dict[str, Json] = {
            "encoder": {"name": short_name(name), "sha256": "+".join(weights)} | facts,
            "bench": {"tasks": sorted({s.task for s in sections})},
        }
        settings = RunSettings(group=short_name(name), job_type="bench", name=f"{short_name(name)}-bench", config=config)
        with resume_track(re.sub(UNSAFE_CHARACTERS, "_", name), settings) as track:
            track.summary(**flat)
            if card.lineage.get("run_id"):
                track.use_artifact(short_name(name), weights)


def wandb_summary(sections: Sequence[Section], encoder: str) -> Mapping[str, float | str]:
    """The results of one encoder, `bench/<task>/<protocol>/<metric>`, and its comparisons: `.../versus`, `.../verdict` for the strongest
    baseline, `.../vs/<encoder>/...` for each. No name contains a patient or a path."""
    flat: dict[str, float | str] = {}
    for section in sections:
        for row in (r for r in section.rows if r.encoder == encoder):
            share = f"@{row.shots}shot" if row.shots is not None else "" if row.fraction == 1 else f"@{row.fraction:g}"
            at = f"bench/{section.task}/{section.protocol}{share}"
            if any(r.meta.leakage for r in row.records):
                flat[f"{at}/leakage_allowed"] = 1.0
            for name, value in row.metrics.items():
                flat |= {f"{at}/{name}": value.value, f"{at}/{name}_low": value.low, f"{at}/{name}_high": value.high}
            for c in row.comparisons:
                one = _flatten_comparison(c)
                flat |= {f"{at}/vs/{one['versus']}/{name}": value for name, value in one.items() if name != "versus"}
                flat |= {f"{at}/{name}": value for name, value in one.items()} if c.primary else {}
    return flat


def _flatten_comparison(c: Comparison) -> dict[str, float | str]:
    """One comparison as scalars and words."""
    d = c.difference
    flat: dict[str, float | str] = {"versus": short_name(c.reference), "verdict": d.reported_verdict, "p": d.p, "p_holm": d.holm_p}
    return flat | {"difference": d.value, "difference_low": d.low, "difference_high": d.high}


def publish_leaderboard(sections: Sequence[Section]) -> str | None:
    """Publishes the table of all encoders as its own W&B run, with a saved workspace and report if wandb-workspaces is installed.

    Returns its address, or None offline."""
    config: dict[str, Json] = {"bench": {"tasks": sorted({s.task for s in sections})}}
    settings = RunSettings(group="comparison", job_type="compare", name="leaderboard", config=config)
    with resume_track(".leaderboard", settings) as track:
        track.table("leaderboard", LEADERBOARD_COLUMNS, leaderboard_lines(sections))
        return track.save_comparison_view(sorted({f"bench/{s.task}/{s.protocol}/auroc" for s in sections}))


def resume_track(folder: str, settings: RunSettings) -> MetricsLog:
    """The log of a folder below `records/.track`. Repeated comparisons continue the same W&B run."""
    path = records_dir() / ".track" / folder
    id_file = path / "wandb.id"
    track = MetricsLog(path, resume=id_file.read_text().strip() if id_file.is_file() else None, **settings)
    write_table(id_file, track.id)
    return track


def leaderboard_lines(sections: Sequence[Section]) -> list[list[float | str | None]]:
    """One line per row of the tables, with the values of `LEADERBOARD_COLUMNS`; no value is a patient or a path."""
    return [_leaderboard_line(s, row) for s in sections for row in s.rows]


def _leaderboard_line(s: Section, row: Row) -> list[float | str | None]:
    auroc, d, records = row.metrics["auroc"], row.difference, row.records
    patients, leaky = records[0].meta.counts.get("test", {}).get("patients"), any(r.meta.leakage for r in records)
    return [
        short_name(row.encoder), row.role, s.task, s.protocol, s.protocol_hash, row.fraction, auroc.value, auroc.low, auroc.high,
        row.metrics["ap"].value, row.metrics["balanced_accuracy"].value, short_name(row.reference) if d else "",
        *((d.value, d.low, d.high, d.p, d.holm_p, d.reported_verdict, detectable_difference(d)) if d else (None,) * 5 + ("", None)),
        patients, leaky, records[0].identity.encoder_sha256[:16],
    ]  # fmt: skip


def find_offline_runs(root: Path) -> list[Path]:
    """The offline W&B runs below a folder that were not uploaded yet, oldest first."""
    runs = [p for p in root.glob("**/wandb/offline-run-*") if p.is_dir() and any(p.glob("*.wandb")) and not any(p.glob("*.synced"))]
    return sorted(runs, key=lambda p: p.name.removeprefix("offline-run-"))
