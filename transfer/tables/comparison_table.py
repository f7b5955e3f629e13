"""All comparisons of a table with their p-values: as lines of text, and as CSV."""

from collections.abc import Mapping, Sequence

from transfer.tables import caveats
from transfer.tables.format import format_difference, format_p
from transfer.tables.rows import Comparison, Row, Section

COMPARISON_HEADER = ("encoder", "protocol", "compared with", "AUROC difference [95 %]", "p", "p (Holm)", "verdict")


def format_comparisons(block: Sequence[Section], display_names: Mapping[str, str]) -> list[tuple[str, ...]]:
    """One line for every comparison of a block; the reference is marked where its architecture is another."""
    lines: list[tuple[str, ...]] = []
    for section in block:
        for row in section.rows:
            for c in row.comparisons:
                other = " (other architecture)" if c.relation == "other architecture" else ""
                d = c.difference
                start = (display_names[row.encoder], f"{section.protocol}{row.labels_title}", display_names[c.reference] + other)
                lines.append((*start, format_difference(d), format_p(d.p), format_p(d.holm_p), d.reported_verdict))
    return lines


def needs_comparison_table(block: Sequence[Section]) -> bool:
    """Whether the block has comparisons besides those in the column of its results table."""
    return any(not c.primary for section in block for row in section.rows for c in row.comparisons)


def comparison_csv_lines(sections: Sequence[Section]) -> list[dict[str, object]]:
    """One line for every comparison, with full numbers."""
    return [_comparison_csv_line(section, row, c) for section in sections for row in section.rows for c in row.comparisons]


def _comparison_csv_line(section: Section, row: Row, c: Comparison) -> dict[str, object]:
    d = c.difference
    line: dict[str, object] = {
        "task": section.task,
        "protocol": section.protocol,
        "encoder": row.encoder,
        "fraction": row.fraction,
        "shots": "" if row.shots is None else row.shots,
        "versus": c.reference,
        "relation": c.relation,
        "primary": c.primary,
        **difference_columns(row, c),
    }
    for name, other in c.others.items():
        line |= {f"{name}_difference": _number(other.value), f"{name}_low": _number(other.low), f"{name}_high": _number(other.high)}
        line[f"{name}_p"] = _p_value(other.p)
    return line | {"method": d.method, "note": d.note, "split": section.partition, "protocol_hash": section.protocol_hash}


def difference_columns(row: Row, c: Comparison) -> dict[str, object]:
    """The columns of one AUROC difference: interval, p-values, verdict and what the test set could detect."""
    d = c.difference
    least = caveats.detectable_difference(d)
    line: dict[str, object] = {
        "difference": _number(d.value),
        "difference_low": _number(d.low),
        "difference_high": _number(d.high),
        "p": _p_value(d.p),
        "p_holm": _p_value(d.holm_p),
        "comparisons": d.family,
        "verdict": d.reported_verdict,
        "about": "recipe" if row.seeds else "checkpoint",
        "minimal_detectable_difference": "" if least is None else _number(least),
    }
    if d.margin is not None:
        line |= {
            "margin": d.margin,
            "p_equivalence_holm": _p_value(d.holm_equivalence_p),
            "p_inferiority_holm": _p_value(d.holm_inferiority_p),
        }
    return line


def _number(value: float) -> str:
    return f"{value:.6f}"


def _p_value(value: float) -> str:
    return f"{value:.6g}"
