"""What a file's path says: patient, slide, study, split, label and a tile's place by the named groups of one regular expression."""

import re
from collections.abc import Sequence

from encoders.runtime.errors import InputError, unknown_name_error

PATTERN_GROUPS = ("patient", "split", "study", "slide", "label", "x", "y")  # x, y: pixels of the slide, numbers


def compile_pattern(text: str) -> re.Pattern[str]:
    """Raises InputError when it is no regular expression, names no group, or one that is no part of a row."""
    try:
        pattern = re.compile(text)
    except re.error as wrong:
        raise InputError(f"--pattern {text!r} is not a regular expression: {wrong}") from wrong
    if not pattern.groupindex:
        raise InputError(f"--pattern {text!r} names no group; write e.g. '(?P<label>[^/]+)/[^/]+$' (groups: {', '.join(PATTERN_GROUPS)})")
    for name in pattern.groupindex:
        if name not in PATTERN_GROUPS:
            raise unknown_name_error("group of --pattern", name, PATTERN_GROUPS)
    return pattern


def split_by_match(pattern: re.Pattern[str], names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names that the pattern is found in, and the others. Raises InputError when it is found in none."""
    fit = [name for name in names if pattern.search(name)]
    if not fit:
        raise InputError(f"--pattern {pattern.pattern!r} is found in none of the {len(names)} files, e.g. not in {names[0]!r}")
    return fit, sorted(set(names) - set(fit))


def extract_groups(pattern: re.Pattern[str], name: str) -> dict[str, str]:
    """Part to text, of the groups that took part in the match."""
    found = pattern.search(name)
    return {part: text for part, text in found.groupdict().items() if text is not None} if found else {}
