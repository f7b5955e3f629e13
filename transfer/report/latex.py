"""The results table as LaTeX, for a paper (booktabs)."""

from collections.abc import Sequence

from transfer import show
from transfer.table import Section

ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
}


def latex(parts: Sequence[Section]) -> str:
    """A table a task; needs \\usepackage{booktabs}."""
    shown, out = show.names(parts), ["% needs \\usepackage{booktabs}"]
    for block in show.blocks(parts):
        hashes = ", ".join(f"{s.protocol} {s.protocol_hash[:8]}" for s in block)
        leaks = any(r.meta.leakage for s in block for row in s.rows for r in row.records)
        caption = f"{block[0].task}. Split {block[0].partition[:8]}, protocols {hashes}.{' LEAKAGE ALLOWED.' if leaks else ''}"
        caption += "".join(f" {line}." for line in show.legend(block, shown))
        out += [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{escaped(caption)}}}",
            rf"\begin{{tabular}}{{{'l' * len(show.HEADER)}}}",
            r"\toprule",
        ]
        out += [
            _row(show.HEADER),
            r"\midrule",
            *map(_row, show.lines(block, shown, {})),
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    return "\n".join(out)


def escaped(text: str) -> str:
    return "".join(ESCAPES.get(letter, letter) for letter in text)


def _row(cells: Sequence[str]) -> str:
    # A row that starts with a bracket would be read as the argument of the line break before it.
    return " & ".join(f"{{{escaped(c)}}}" if c.startswith("[") else escaped(c) for c in cells) + r" \\"
