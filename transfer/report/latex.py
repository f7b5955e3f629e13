"""The results tables as LaTeX with booktabs, for a paper."""

from collections.abc import Mapping, Sequence

from encoders.runtime.escape import escape_latex
from transfer.tables import render
from transfer.tables.label_table import LABEL_HEADER, format_labels, list_labels
from transfer.tables.rows import Section, group_sections, name_settings


def render_latex(sections: Sequence[Section]) -> str:
    """One table per block of sections; they need \\usepackage{booktabs}."""
    display_names, out = render.shorten_names(sections), ["% needs \\usepackage{booktabs}"]
    for block in group_sections(sections):
        leaks = any(r.meta.leakage for s in block for row in s.rows for r in row.records)
        caption = (
            f"{block[0].task}. Split {block[0].partition[:8]}, protocols {name_settings(block)}.{' LEAKAGE ALLOWED.' if leaks else ''}"
        )
        caption += "".join(f" {line}." for line in render.describe_legend(block, display_names))
        out += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escape_latex(caption)}}}",
            rf"\begin{{tabular}}{{{'l' * len(render.RESULT_HEADER)}}}",
            r"\toprule",
        ]
        out += [
            _latex_row(render.RESULT_HEADER),
            r"\midrule",
            *map(_latex_row, render.format_rows(block, display_names, {})),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
        out += [line for s in block for line in _label_table(s, display_names)]
    return "\n".join(out)


def _label_table(section: Section, display_names: Mapping[str, str]) -> list[str]:
    """Every label with its paired difference; [] for a task with one label."""
    lines = format_labels(list_labels(section), display_names)
    if not lines:
        return []
    caption = f"{section.task}, {section.protocol}: each label, p-values of clustered DeLong tests, corrected for the number of labels."
    return [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape_latex(caption)}}}",
        rf"\begin{{tabular}}{{{'l' * len(LABEL_HEADER)}}}",
        r"\toprule",
        _latex_row(LABEL_HEADER),
        r"\midrule",
        *map(_latex_row, lines),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
        "",
    ]


def _latex_row(cells: Sequence[str]) -> str:
    # LaTeX would read a row that starts with a bracket as the argument of the line break before it.
    return " & ".join(f"{{{escape_latex(c)}}}" if c.startswith("[") else escape_latex(c) for c in cells) + r" \\"
