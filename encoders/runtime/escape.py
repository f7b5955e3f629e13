"""Names as data in files of other languages: what a CSV cell, a line of Markdown, LaTeX or a script in a page must not take for syntax.

HTML and SVG are built with `encoders.runtime.html.tag`, which escapes by itself, and words of a shell with `shlex.quote`.
"""

import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

# A spreadsheet computes a cell that begins with one of these, also in their full width and after spaces (OWASP, CSV injection).
FORMULA_START = re.compile(r"\s*[=+\-@\u2212\uff1d\uff0b\uff0d\uff20]|[\t\r\n]")
PLAIN_NUMBER = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\s*|\s*[+-]?(nan|inf)\s*", re.IGNORECASE)
LATEX_ESCAPES = {
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
    "`": r"\textasciigrave{}",
    '"': r"\textquotedbl{}",
}


def csv_cell(value: object) -> object:
    """A value of a CSV table; text that a spreadsheet would compute gets a `'` before it. Numbers stay as they are."""
    if not isinstance(value, str):
        return value
    text = strip_control(value, keep="\n\t")
    return f"'{text}" if FORMULA_START.match(text) and not PLAIN_NUMBER.fullmatch(text) and text != "-" else text


def read_csv_cell(text: str) -> str:
    """The text that `csv_cell` was given."""
    return text[1:] if text[:1] == "'" and csv_cell(text[1:]) == text else text


def format_csv(rows: Iterable[Sequence[object]]) -> str:
    """The rows as CSV, each cell as `csv_cell` makes it."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows([csv_cell(value) for value in row] for row in rows)
    return out.getvalue()


def lines_to_csv(lines: Sequence[Mapping[str, object]]) -> str:
    """CSV with the columns of all lines, in order of first occurrence; a line without a column has an empty cell."""
    fields = list(dict.fromkeys(key for line in lines for key in line))
    return format_csv([fields, *([line.get(field, "") for field in fields] for line in lines)])


def escape_latex(text: str) -> str:
    """The text with LaTeX's special characters escaped, in one line."""
    return "".join(LATEX_ESCAPES.get(letter, letter) for letter in one_line(text))


def escape_markdown(text: str) -> str:
    """The text in one line of Markdown or a cell of its tables: no markup, no HTML, no link, no new cell."""
    text = one_line(text).replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|").replace("`", "\\`")
    text = text.replace("](", "]\\(").replace("![", "!\\[")
    return re.sub(r"^(\s*)(#{1,6}(?=\s)|[-*+](?=\s)|>|\d+[.)](?=\s)|[-*_=]{3,}\s*$)", r"\1\\\2", text)


def escape_script_json(value: object) -> str:
    """A value as JSON that may stand in a script element: no `</script>`, no comment, and no line separator of JavaScript."""
    text = json.dumps(value, allow_nan=False)
    return "".join(f"\\u{ord(c):04x}" if c in "<>&\u2028\u2029" else c for c in text)


def one_line(text: str) -> str:
    """The text with each line break as a space, and without control and direction characters."""
    return strip_control(" ".join(text.splitlines()))


def strip_control(text: str, keep: str = "") -> str:
    """The text without control characters, and without the invisible ones that turn the direction of others (Trojan Source)."""
    return "".join(c for c in text if c in keep or unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))
