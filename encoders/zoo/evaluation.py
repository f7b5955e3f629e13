"""Results of an encoder for its model card, from `records/table.csv`, which `transfer table` writes.

A row is used only if the records of that task, protocol and encoder were made with the weights that are exported.
"""

import csv
import json
from pathlib import Path
from typing import NamedTuple

from encoders.runtime.errors import InputError
from encoders.runtime.paths import records_dir

REQUIRED_COLUMNS = {"task", "protocol", "encoder", "status", "auroc", "auroc_low", "auroc_high"}
METRIC_TITLES = {"auroc": ("roc_auc", "AUROC"), "ap": ("average_precision", "average precision"),
                 "balanced_accuracy": ("balanced_accuracy", "balanced accuracy")}  # fmt: skip


class MetricResult(NamedTuple):
    """A metric with its 95 % interval."""

    kind: str  # as the hub names the metric
    title: str
    value: float
    low: float
    high: float


class EvaluationResult(NamedTuple):
    """One row of the benchmark's table."""

    task: str
    protocol: str
    settings: str  # label fraction or shots; "" for all labels
    metrics: tuple[MetricResult, ...]
    test_images: str
    test_patients: str
    versus: str  # what it was compared with; "" for nothing
    verdict: str


class EvaluationReport(NamedTuple):
    """The results of an encoder, and how many rows were left out, by reason."""

    results: list[EvaluationResult]
    left_out: dict[str, int]


def read_evaluation(name: str, encoder_sha256: str, table: Path | None = None) -> EvaluationReport:
    """The results of the encoder `name`. No table means no results.

    table: a file of `transfer table`; None: records/table.csv.  Raises InputError for a file that is no such table."""
    path = table or records_dir() / "table.csv"
    if not path.is_file():
        if table is not None:
            raise InputError(f"there is no table {table}; `transfer table` writes records/table.csv")
        return EvaluationReport([], {})
    with path.open(newline="", encoding="utf-8") as file:
        lines = csv.DictReader(file)
        rows = list(lines)
        if not set(lines.fieldnames or ()) >= REQUIRED_COLUMNS:
            raise InputError(
                f"{path} is not a table of `transfer table`: it lacks {', '.join(sorted(REQUIRED_COLUMNS - set(lines.fieldnames or ())))}"
            )
    weights = _recorded_weights(name)
    results, left_out = [], dict[str, int]()
    for row in (row for row in rows if row["encoder"] == name):
        reason = _why_left_out(row, weights, encoder_sha256)
        if reason:
            left_out[reason] = left_out.get(reason, 0) + 1
        else:
            results.append(_read_row(row))
    return EvaluationReport(results, left_out)


def _why_left_out(row: dict[str, str], weights: dict[tuple[str, str], set[str]], sha256: str) -> str:
    if row["status"] != "ok":
        return "failed"
    made_with = weights.get((row["task"], row["protocol"]))
    if not made_with:
        return "no record of the row is left"
    if made_with != {sha256}:
        return "made with other weights"
    try:
        values = [float(row[f"auroc{end}"]) for end in ("", "_low", "_high")]
    except ValueError:
        return "no AUROC"
    return "" if all(value == value for value in values) else "no interval"


def _recorded_weights(name: str) -> dict[tuple[str, str], set[str]]:
    """(task, protocol) -> the hashes of the encoders of that name in the records."""
    found: dict[tuple[str, str], set[str]] = {}
    for path in records_dir().glob("*/*.json"):
        try:
            identity = json.loads(path.read_text())["identity"]
            if identity["encoder"] == name:
                found.setdefault((identity["task"], identity["protocol"]), set()).add(str(identity["encoder_sha256"]))
        except (OSError, ValueError, KeyError, TypeError):
            continue  # its rows are left out, with their reason
    return found


def _read_row(row: dict[str, str]) -> EvaluationResult:
    metrics = []
    for key, (kind, title) in METRIC_TITLES.items():
        try:
            value, low, high = (float(row[f"{key}{end}"]) for end in ("", "_low", "_high"))
        except (KeyError, ValueError):
            continue
        if value == value and low == low and high == high:
            metrics.append(MetricResult(kind, title, value, low, high))
    fraction, shots = row.get("fraction") or "1.0", row.get("shots") or ""
    settings = f"{shots} shots" if shots else "" if float(fraction) == 1 else f"{float(fraction):.0%} of the labels"
    if (precision := row.get("precision") or "fp32") != "fp32":
        settings = f"{settings}, features in {precision}".removeprefix(", ")
    own = (row.get(key) or "" for key in ("test_images", "test_patients", "versus", "verdict"))
    return EvaluationResult(row["task"], row["protocol"], settings, tuple(metrics), *own)
