"""The comparison table as CSV: full numbers and hashes, from the rows that `render` prints."""

import math
from collections.abc import Mapping, Sequence

from encoders.runtime.escape import lines_to_csv
from transfer.records.redactor import Redactor
from transfer.records.test_usage import SplitUsage, merge_usage
from transfer.tables.comparison_table import comparison_csv_lines, difference_columns
from transfer.tables.label_table import label_csv_lines
from transfer.tables.render import MAJORITY_NAME, gather_redactor, list_allowed_leaks, unique
from transfer.tables.rows import Row, Section
from transfer.tables.search_rows import search_columns


def results_to_csv(sections: Sequence[Section], usage: Mapping[str, SplitUsage], missing: Mapping[str, str]) -> str:
    """The tables as CSV, one line per row, numbers with six decimals, full hashes."""
    redactor = gather_redactor(sections)
    table = [line for s in sections for line in _csv_rows(s, usage, redactor)]
    table += [{"encoder": name, "status": f"not available: {redactor.hide_names(reason)}"} for name, reason in missing.items()]
    return lines_to_csv(table)


def comparisons_to_csv(sections: Sequence[Section]) -> str:
    """All comparisons as CSV, one line each, with p-values before and after Holm's correction."""
    return lines_to_csv(comparison_csv_lines(sections))


def labels_to_csv(sections: Sequence[Section]) -> str:
    """Every label of every row as CSV, with its paired difference; only a header for tasks with one label."""
    return lines_to_csv(label_csv_lines(sections))


def _csv_rows(section: Section, usage: Mapping[str, SplitUsage], redactor: Redactor) -> list[dict[str, object]]:
    base = {"task": section.task, "protocol": section.protocol}
    lines: list[dict[str, object]] = [{**base, **_csv_numbers(row, redactor)} for row in section.rows]
    if section.majority:
        lines.append({**base, "encoder": MAJORITY_NAME, "status": "ok", **{m: f"{v:.6f}" for m, v in section.majority.items()}})
    failed = ((r.identity.encoder, redactor.hide_names(str(r.meta.error))) for r in section.failed)
    lines += [{**base, "encoder": encoder, "status": f"failed: {error}"} for encoder, error in failed]
    counts = {f"{part}_{unit}": n for part, c in section.counts.items() for unit, n in c.items()}
    uses = merge_usage(usage, section.splits)
    scored = (
        {}
        if uses is None
        else {
            "test_image_scored_at_least": uses.typical,
            "test_image_scored_most": uses.most,
            "validation_looks": uses.validation.looks,
        }
    )
    tail = {
        "split": section.partition,
        "labels": section.labels,
        "protocol_hash": section.protocol_hash,
        "precision": section.precision,
        **scored,
    }
    return [{**line, **counts, **tail} for line in lines]


def _csv_numbers(row: Row, redactor: Redactor) -> dict[str, object]:
    line: dict[str, object] = {
        "encoder": row.encoder,
        "role": row.role,
        "fraction": row.fraction,
        "shots": "" if row.shots is None else row.shots,
        "records": len(row.records),
        "scored_by": row.records[0].meta.scored_by or "image",
        "status": "ok",
    }
    for name, value in row.metrics.items():
        line |= {name: f"{value.value:.6f}", f"{name}_low": f"{value.low:.6f}", f"{name}_high": f"{value.high:.6f}"}
    line |= {f"{name}_all_labels": f"{value:.6f}" for name, value in row.all_labels.items()}
    for over, sd in (("draws", row.draw_std), ("seeds", row.seed_std)):
        line[f"auroc_sd_over_{over}"] = "" if math.isnan(sd) else f"{sd:.6f}"
    if row.primary is not None:
        line |= {"versus": row.reference, "relation": row.primary.relation, **difference_columns(row, row.primary)}
    line |= search_columns(row)
    line["leakage"] = "; ".join(redactor.redact_all(list_allowed_leaks(row)))
    warnings = redactor.redact_all(w for r in row.records for w in r.meta.warnings)
    line["notes"] = "; ".join(unique([*row.notes, *filter(None, [row.episodes_note]), *warnings]))
    return line
