"""Columns from the path of a file: the named groups of a regular expression give patient, slide, study, split, label, x and y.

A group `meta_NAME` gives a column NAME of other facts, e.g. `(?P<meta_magnification>[0-9]+X)`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from encoders.ingest.label_table import ColumnRoles
from encoders.ingest.source import Value
from encoders.runtime.errors import InputError, unknown_name_error

META_GROUP = re.compile("meta_(.+)")
PATTERN_GROUPS = ("patient", "split", "study", "slide", "label", "x", "y")  # x, y: position of a tile in pixels of the slide


def compile_pattern(text: str) -> re.Pattern[str]:
    """The compiled pattern. Raises InputError if it is not a regular expression, has no named group, or has an unknown group."""
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InputError(f"--pattern {text!r} is not a regular expression: {error}") from error
    if not pattern.groupindex:
        raise InputError(f"--pattern {text!r} names no group; write e.g. '(?P<label>[^/]+)/[^/]+$' (groups: {', '.join(PATTERN_GROUPS)})")
    for name in pattern.groupindex:
        if name not in PATTERN_GROUPS and not META_GROUP.fullmatch(name):
            raise unknown_name_error("group of --pattern", name, PATTERN_GROUPS, "; meta_NAME gives any other column")
    return pattern


def refuse_two_origins(groups: Iterable[str], roles: ColumnRoles, table: str = "the table") -> None:
    """Raises InputError if a column of a table has the role of a group.  table: its name in the message."""
    for part in groups:
        if part in roles.identity or (part == "label" and "label" in roles.label):
            raise InputError(f"the {part} is in --pattern and in a column of {table}; turn one off, e.g. --{part}-column ''")


def split_by_match(pattern: re.Pattern[str], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names that match the pattern, and the others. Raises InputError if no name matches."""
    matched = [name for name in names if pattern.search(name)]
    if not matched:
        raise InputError(f"--pattern {pattern.pattern!r} matches none of the {len(names)} files (first: {names[0]!r})")
    return matched, sorted(set(names) - set(matched))


def extract_groups(pattern: re.Pattern[str], name: str) -> dict[str, str]:
    """Group name to text, for the groups that took part in the match."""
    match = pattern.search(name)
    return {part: text for part, text in match.groupdict().items() if text is not None} if match else {}


def split_groups(groups: Mapping[str, str]) -> tuple[dict[str, Value], dict[str, Value], dict[str, Value]]:
    """The groups of a path as columns of index, of labels (`label`), and of meta (`meta_NAME`, without the prefix)."""
    meta: dict[str, Value] = {found[1]: text for name, text in groups.items() if (found := META_GROUP.fullmatch(name))}
    labels: dict[str, Value] = {"label": groups["label"]} if "label" in groups else {}
    return {n: text for n, text in groups.items() if n != "label" and not META_GROUP.fullmatch(n)}, labels, meta
