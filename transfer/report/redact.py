"""Free text without patients: leaks name their examples, and warnings may; a page that is passed on must not."""

import re
from collections.abc import Iterable, Sequence

from transfer.records.record import Record

WITHHELD = "(withheld)"
MAX_COUNT_DIGITS = 4  # digits: a number up to here cannot be told from a count, and is left


class Redactor:
    """A text as it may stand on the page: without examples, and without the keys and patients of these records."""

    def __init__(self, records: Sequence[Record]):
        every = {str(name) for r in records for column, values in r.arrays.items() if _holds_names(column) for name in set(values.tolist())}
        self.names = {name for name in every if not (name.isdigit() and len(name) <= MAX_COUNT_DIGITS)}
        self.spaced = sorted((name for name in self.names if re.search(r"[\s,;:()'\"]", name)), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        text = re.sub(r",?\s*e\.g\..*", "", text, flags=re.DOTALL)
        for name in self.spaced:
            text = text.replace(name, WITHHELD)
        return re.sub(r"[^\s,;:()'\"]+", lambda word: WITHHELD if word.group() in self.names else word.group(), text)

    def each(self, texts: Iterable[str]) -> list[str]:
        """All of them, equal ones once."""
        return list(dict.fromkeys(map(self, texts)))


def _holds_names(column: str) -> bool:
    return column.endswith(("_key", "_patient"))
