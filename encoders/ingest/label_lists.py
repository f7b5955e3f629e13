"""Lists of findings in one cell: `['a', 'b']`, JSON, `a|b`, `a; b`, `a, b`. A finding is positive wherever it stands in the list.

A cell without any item is unknown. `No Finding`, `normal` and `none` are items: a cell that holds nothing else is known, and negative for
every other finding. Names are compared without regard to case, underscores and spaces.
"""

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from encoders.runtime.errors import InputError
from encoders.runtime.unknown_values import describe_unknown, is_unknown

SEPARATORS = ("|", ";", "\n", "\t", ",")  # in this order: a list separated by | may hold names with commas
NEGATIVE_ITEM = "none"  # of the texts that mean unknown, the one that states in a list of findings that there are none
BRACKETS = {"[": "]", "{": "}", "(": ")"}
QUOTES = {"'": "'", '"': '"', "‘": "’", "“": "”", "`": "`"}
# A quote inside an item, as in 'Hodgkin's', is followed by neither a separator nor a bracket nor another quote.
QUOTE_INSIDE = r"""(?P=quote)(?!\s*(?:[,;|'"\]})]|$))"""
QUOTED = re.compile(rf"""\s*(?P<text>[bu]?(?P<quote>['"])(?:\\.|(?!(?P=quote))[^\\]|{QUOTE_INSIDE})*(?P=quote))\s*[,;|]?""", re.DOTALL)
WRAPPER = re.compile(r"(?:array|list|set|frozenset|tuple|Index)\((.*?)(?:,\s*dtype=[^)\]]*)?\)", re.DOTALL)
MAX_NAMES_SHOWN = 20  # findings in a message


@dataclass(frozen=True)
class FindingColumns:
    """The findings of a column of lists.

    values: finding -> (N,) "1", "0" or "" (unknown) of every cell.  unknown: text -> number of cells without any item, "" for empty ones.
    separator: of the cells without brackets; "" if no cell has one.  counts: item -> number of cells that list it."""

    values: dict[str, list[str]]
    unknown: dict[str, int]
    separator: str
    counts: dict[str, int]

    def describe(self, column: str) -> list[str]:
        """Sentences for the user: the findings with their number of cells, and the unknown cells."""
        cells = len(next(iter(self.values.values()), []))
        found = ", ".join(f"{name} {values.count('1'):,}" for name, values in list(self.values.items())[:MAX_NAMES_SHOWN])
        found += f", and {len(self.values) - MAX_NAMES_SHOWN} more" if len(self.values) > MAX_NAMES_SHOWN else ""
        split = f", separated by {self.separator!r}" if self.separator else ""
        notes = [f"lists in column {column!r}{split}: {found} (of {cells:,} cells)"]
        return notes + ([f"lists in column {column!r}: {describe_unknown(self.unknown)}"] if self.unknown else [])


def read_findings(column: str, texts: Sequence[str], names: Sequence[str], separator: str | None = None) -> FindingColumns:
    """One column of 0 and 1 per finding in `names`, from the lists in `texts`.

    texts: (N,) cells; equal texts are parsed once.  separator: between the items of cells without brackets; None: found in the column.
    Raises InputError for a finding that no cell lists, for a name twice, and for a cell that can be read in two ways."""
    twice = [name for name, n in Counter(map(plain_name, names)).items() if n > 1]
    if twice:
        raise InputError(f"the finding {twice[0]!r} is named twice; name each finding once")
    distinct = list(dict.fromkeys(texts))
    chosen = find_item_separator(distinct) if separator is None else separator
    wanted = {plain_name(name): name for name in names}
    items = {text: parse_items(text, chosen, wanted) for text in distinct}
    if separator is None:
        check_one_reading(column, items, chosen, wanted)
    known = {text: {plain_name(item) for item in parts} for text, parts in items.items()}
    counts = count_items(texts, items)
    if not counts:
        raise InputError(f"no cell of column {column!r} lists a finding; name another column with --list-column")
    have = {plain_name(item): item for item in counts}
    for plain, name in wanted.items():
        if plain not in have:
            raise unknown_finding_error(column, name, counts)
    values = {name: [("1" if plain in known[text] else "0") if known[text] else "" for text in texts] for plain, name in wanted.items()}
    unknown = Counter(text.strip() for text in texts if not known[text])
    return FindingColumns(values, dict(unknown), chosen if any(chosen and chosen in text for text in distinct) else "", counts)


def parse_items(text: str, separator: str, wanted: Iterable[str] = ()) -> list[str]:
    """The items of a cell, without brackets, quotes and unknown items; [] if the cell states nothing.

    separator: between the items of a cell without brackets; "": such a cell is one item.  wanted: plain names that are not divided.
    Raises InputError for a JSON object."""
    text = unwrap(text)
    if plain_name(text) in wanted:
        return [text]
    decoded = decode_json(text)
    if decoded is None and is_literal(text):
        decoded = split_quoted(strip_brackets(text))
    if decoded is None:
        decoded = [*text.split(separator)] if separator else [text]
    items = [clean_item(item) for item in decoded if item is not None]
    return list(dict.fromkeys(item for item in items if plain_name(item) == NEGATIVE_ITEM or not is_unknown(item)))


def unwrap(text: str) -> str:
    """A cell without spaces, a name of a type and a pair of quotes around the whole list."""
    text = text.strip()
    if wrapped := WRAPPER.fullmatch(text):
        return wrapped[1].strip()
    if (quoted := QUOTED.fullmatch(text)) and not text.endswith((",", ";", "|")):
        return unquote(quoted["text"]).strip()
    return text


def is_literal(text: str) -> bool:
    """Whether a cell is written as a list in a program: in brackets, or items in quotes, `'a', 'b'`."""
    first = text[:1]
    if first == "(":
        return text.endswith(")") and re.search(r"['\",|;]", text) is not None
    return first in ("[", "{") or (first in ("'", '"') and QUOTED.sub("", text).strip() == "")


def strip_brackets(text: str) -> str:
    """The text without the brackets around it. A list that was cut off has no closing one."""
    first = text[:1]
    if first not in BRACKETS:
        return text
    return text[1:-1] if text.endswith(BRACKETS[first]) else text[1:]


def decode_json(text: str) -> list[str | None] | None:
    """The items of a JSON list, also of lists in lists; None if the text is not one. Raises InputError for an object."""
    if text[:1] not in ("[", "{"):
        return None
    try:
        value = json.loads(text)
    except ValueError:
        return None
    if isinstance(value, dict) and value:
        raise InputError(f"a cell holds the JSON object {text[:80]}; expected a list of findings, such as pneumonia|effusion")
    return list(flatten(value))


def flatten(values: Iterable[object]) -> Iterable[str | None]:
    """The members of lists in lists, as text; null is None."""
    for value in values:
        if isinstance(value, list):
            yield from flatten(value)
        else:
            yield None if value is None or value != value else str(value)  # NaN is unequal to itself


def split_quoted(body: str) -> list[str | None]:
    """The items of the inside of a list: in quotes, with or without commas between them (NumPy prints none), or separated by commas."""
    items: list[str | None] = []
    rest = body.strip()
    while rest:
        if match := QUOTED.match(rest):
            items.append(unquote(match["text"]))
            rest = rest[match.end() :].strip()
        elif rest[0] in BRACKETS or rest[0] in "]})":
            rest = rest[1:].lstrip(" ,;")
        else:
            word = re.match(r"[^,;|\n\]})]*", rest)
            assert word is not None
            items.append(None if word[0].strip() in ("None", "null", "nan", "NaN") else word[0])
            rest = rest[len(word[0]) :].lstrip(" ,;|\n")
    return items


def unquote(text: str) -> str:
    """A quoted text without its quotes, escapes decoded."""
    bare = text.lstrip("bu")
    try:
        return str(ast.literal_eval(bare))
    except (ValueError, SyntaxError):
        return bare[1:-1]


def clean_item(item: str) -> str:
    """An item without spaces, quotes and square brackets around it."""
    item = " ".join(item.split())
    while item and (item[0] in "[]{}" or item[-1] in "[]{}"):
        item = item.strip("[]{} ")
    while len(item) > 1 and QUOTES.get(item[0]) == item[-1]:
        item = item[1:-1].strip()
    return item.strip("\"'") if item.count("'") + item.count('"') == 1 else item


def plain_name(name: str) -> str:
    """A name as it is compared: lower case, spaces for underscores, single spaces."""
    return " ".join(name.casefold().replace("_", " ").split())


def find_item_separator(texts: Iterable[str]) -> str:
    """The separator of the cells without brackets: the first of `SEPARATORS` that one of them contains, else ""."""
    bare = [text for text in map(unwrap, texts) if not is_literal(text)]
    return next((separator for separator in SEPARATORS if any(separator in text for text in bare)), "")


def check_one_reading(column: str, items: dict[str, list[str]], separator: str, wanted: dict[str, str]) -> None:
    """Raises InputError where an item of a cell without brackets contains a wanted finding beside another separator."""
    for item in {item for text, parts in items.items() if not is_literal(unwrap(text)) for item in parts}:
        pieces = re.split("|".join(map(re.escape, SEPARATORS)), item)
        inside = [wanted[name] for piece in pieces if (name := plain_name(piece)) in wanted]
        if inside and len(pieces) > 1 and plain_name(item) not in wanted:
            raise InputError(
                f"column {column!r} is separated by {separator!r}, and a cell has the item {item!r}, which contains {inside[0]}; say with "
                f"--list-separator what divides the findings, e.g. --list-separator '{separator}' to keep this as one item"
            )


def count_items(texts: Iterable[str], items: dict[str, list[str]]) -> dict[str, int]:
    """Item -> number of cells that list it, the most frequent first; spellings of one name are counted under the most frequent."""
    cells, spelled = Counter[str](), dict[str, Counter[str]]()
    for text, n in Counter(texts).items():
        for item in items[text]:
            spelled.setdefault(plain_name(item), Counter())[item] += n
        cells.update(dict.fromkeys({plain_name(item) for item in items[text]}, n))
    return {spelled[plain].most_common(1)[0][0]: n for plain, n in sorted(cells.items(), key=lambda pair: (-pair[1], pair[0]))}


def unknown_finding_error(column: str, name: str, counts: dict[str, int]) -> InputError:
    """The error for a finding that no cell lists, naming the nearest ones, or the most frequent ones."""
    lower = {plain_name(item): item for item in counts}
    near = [lower[plain] for plain in get_close_matches(plain_name(name), list(lower), n=3)]
    advice = f"did you mean {' or '.join(near)}?" if near else f"the lists hold {describe_counts(counts)}"
    return InputError(f"no finding called {name!r} in the lists of column {column!r}; {advice}")


def describe_counts(counts: dict[str, int]) -> str:
    """`pneumonia 12, effusion 3 and 17 more`."""
    shown = ", ".join(f"{item} {n:,}" for item, n in list(counts.items())[:MAX_NAMES_SHOWN])
    return shown + (f" and {len(counts) - MAX_NAMES_SHOWN} more" if len(counts) > MAX_NAMES_SHOWN else "")


def holds_lists(texts: Iterable[str]) -> bool:
    """Whether texts are lists of findings rather than classes: in brackets, or separated by | with an item in two different cells."""
    every = [text for text in dict.fromkeys(texts) if not is_unknown(text)]
    if any(text.strip()[:1] in ("[", "{") for text in every):
        return True
    items = [{plain_name(part) for part in text.split("|")} for text in every]
    return any("|" in text for text in every) and sum(map(len, items)) > len(set().union(*items))


def list_items(texts: Sequence[str]) -> dict[str, int]:
    """Item -> number of cells of a column of lists, for a message."""
    separator = find_item_separator(dict.fromkeys(texts))
    return count_items(texts, {text: parse_items(text, separator) for text in dict.fromkeys(texts)})
