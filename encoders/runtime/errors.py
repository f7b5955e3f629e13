"""Errors that the user can mend, told so that they can."""

from collections.abc import Collection
from difflib import get_close_matches


class InputError(ValueError):
    """What the user gave is wrong: the message says what was given, what was expected, where it came from, and what to do.

    The command line prints the message alone and exits with status 2."""


def unknown_name_error(kind: str, name: str, known: Collection[str], hint: str = "") -> InputError:
    """The error for a name that is not in `known`, naming the nearest ones; `hint` is the next step, if there is one."""
    near = get_close_matches(name, list(known), n=3)
    if near:
        advice = f"did you mean {' or '.join(near)}?"
    else:
        advice = f"known: {', '.join(sorted(known))}" if known else "none is known yet"
    end = "" if near or not hint[:1].isupper() else "."
    return InputError(f"no {kind} called {name!r}; {advice}{end}" + (f" {hint}" if hint else ""))
