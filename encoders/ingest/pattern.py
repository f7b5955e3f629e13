"""Columns from the path of a file: the named groups of a regular expression give patient, slide, study, split, label, x and y."""

import re
from collections.abc import Sequence

from encoders.runtime.errors import InputError, unknown_name_error

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
        if name not in PATTERN_GROUPS:
            raise unknown_name_error("group of --pattern", name, PATTERN_GROUPS)
    return pattern


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
