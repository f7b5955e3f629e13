"""Errors of the user, with the information needed to correct them."""

from collections.abc import Collection
from difflib import get_close_matches

MOST_NAMES = 12  # that an error lists
LONGEST_NAME = 200  # characters of the given name in an error; paths may be long


class InputError(ValueError):
    """A user error: the message says what was given, what was expected, where it came from, and what to do.

    The command line prints only the message and exits with status 2."""


def unknown_name_error(kind: str, name: str, known: Collection[str], hint: str = "") -> InputError:
    """The error for a name that is not in `known`; the message names the nearest ones.  hint: what to do next."""
    near = get_close_matches(name, list(known), n=3)
    if near:
        advice = f"did you mean {' or '.join(near)}?"
    else:
        advice = f"known: {_list_names(known)}" if known else "none is known yet"
    end = "." if not near and (hint[:1].isupper() or hint.startswith("`")) else ""
    shown = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..."
    return InputError(f"no {kind} called {shown!r}; {advice}{end}" + (f" {hint}" if hint else ""))


def _list_names(known: Collection[str]) -> str:
    """The names in alphabetical order, or the first of many in the order given."""
    if len(known) <= MOST_NAMES:
        return ", ".join(sorted(known))
    return f"{', '.join(list(known)[:MOST_NAMES])} and {len(known) - MOST_NAMES} more"
