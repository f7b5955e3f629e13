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
from transfer.tables.headline import Headline, build_headlines
from transfer.tables.matrix import build_matrix
from transfer.tables.render import shorten_names, write_table
from transfer.tables.rows import Comparison, Row, Section
from transfer.tables.wandb_columns import describe_benchmarked_encoder, list_encoder_tags
from transfer.tables.wandb_overview import CURVE_COLUMNS, build_comparison_view, build_label_curves, matrix_to_html

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
    tags: tuple[str, ...]


def publish_encoders(sections: Sequence[Section], cards: Mapping[str, Card]) -> None:
    """Publishes the results of each encoder as the summary of its own W&B run, with columns about the encoder in the config."""
    headlines = build_headlines(sections)
    for name, card in cards.items():
        flat = wandb_summary(sections, name)
        if not flat:
            continue
        config = describe_benchmarked_encoder(name, card, sections)
        encoder, bench = config["encoder"], config["bench"]
        assert isinstance(encoder, dict)
        assert isinstance(bench, dict)
        tags = list_encoder_tags(encoder, bench["tasks"])
        short = short_name(name)
        settings = RunSettings(group=short, job_type="bench", name=f"{short}-bench", config=config, tags=tags)
        with resume_track(re.sub(UNSAFE_CHARACTERS, "_", name), settings) as track:
            track.summary(**flat, **(headline_scalars(headlines[name]) if name in headlines else {}))
            if card.lineage.get("run_id"):
                track.use_artifact(short, str(encoder["sha256"]).split("+"))


def headline_scalars(headline: Headline) -> dict[str, float]:
    """The few numbers that are shown first, beside the details."""
    auroc = headline.auroc
    means = {"mean_auroc": auroc.value, "mean_auroc_low": auroc.low, "mean_auroc_high": auroc.high, "mean_rank": headline.rank}
    counts = {"ranked_encoders": headline.ranked, "cells": headline.cells, "tasks": headline.tasks, "cells_left_out": headline.left_out}
    return {f"headline/{name}": value for name, value in (means | counts).items()}


def wandb_summary(sections: Sequence[Section], encoder: str) -> Mapping[str, float | str]:
    """The results of one encoder, `bench/<task>/<protocol>/<metric>`, and its comparisons: `.../difference` to the strongest baseline,
    `.../vs/<encoder>/difference` to each. Beside every difference stand `versus` and `verdict`. No name contains a patient or a path."""
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
                flat |= {f"{at}/vs/{one['versus']}/{name}": value for name, value in one.items()}
                flat |= {f"{at}/{name}": value for name, value in one.items()} if c.primary else {}
    return flat


def _flatten_comparison(c: Comparison) -> dict[str, float | str]:
    """One comparison as scalars and words."""
    d = c.difference
    flat: dict[str, float | str] = {"versus": short_name(c.reference), "verdict": d.reported_verdict, "p": d.p, "p_holm": d.holm_p}
    return flat | {"difference": d.value, "difference_low": d.low, "difference_high": d.high}


def publish_leaderboard(sections: Sequence[Section], cards: Mapping[str, Card]) -> str | None:
    """Publishes the matrix and the tables of all encoders as a W&B run of their own, with a saved workspace and report.

    cards: of the encoders that are available locally.  Returns the report's address; None offline or without wandb-workspaces."""
    view, matrix = build_comparison_view(sections, cards), build_matrix(sections)
    config: dict[str, Json] = {"bench": {"tasks": sorted({s.task for s in sections}), "encoders": len(matrix.rows)}}
    settings = RunSettings(group="comparison", job_type="compare", name="leaderboard", config=config, tags=("comparison",))
    with resume_track(".leaderboard", settings) as track:
        track.table("leaderboard", LEADERBOARD_COLUMNS, leaderboard_lines(sections))
        track.html(view.page, matrix_to_html(matrix, shorten_names(sections)))
        for _, name, lines in build_label_curves(sections):
            track.table(name, CURVE_COLUMNS, lines)
        return track.save_views(view)


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
