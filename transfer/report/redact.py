"""Removes patients from free text: leaks name examples, and warnings may name images, but a report must be safe to share."""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property

from transfer.records.cached_results import cached_result
from transfer.records.record import ID_COLUMNS, Record

WITHHELD = "(withheld)"
MAX_COUNT_DIGITS = 4  # a number with at most so many digits could be a count, and is kept
ID_SUFFIXES = tuple(f"_{column}" for column in (*ID_COLUMNS, "study"))


class Redactor:
    """Returns texts without their examples, and without the image keys and patients of these records."""

    def __init__(self, records: Sequence[Record]):
        self.records = [r for r in records if r.meta.status == "ok"]

    @cached_property
    def names(self) -> set[str]:
        """All image keys, patients and studies; not those that could be a count."""
        columns = {id(r.arrays[name]): r.arrays[name] for r in self.records for name in r.arrays if name.endswith(ID_SUFFIXES)}
        names = {str(name) for values in columns.values() for name in set(values.tolist())}
        return {name for name in names if not (name.isdigit() and len(name) <= MAX_COUNT_DIGITS)}

    @cached_property
    def multiword_names(self) -> list[str]:
        return sorted((name for name in self.names if re.search(r"[\s,;:()'\"]", name)), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        return cached_result("redacted", self.records, (text,), str, lambda: self._redact(text))

    def _redact(self, text: str) -> str:
        text = re.sub(r",?\s*e\.g\..*", "", text, flags=re.DOTALL)
        for name in self.multiword_names:
            text = text.replace(name, WITHHELD)
        return re.sub(r"[^\s,;:()'\"]+", lambda word: WITHHELD if word.group() in self.names else word.group(), text)

    def redact_all(self, texts: Iterable[str]) -> list[str]:
        """All texts redacted, without duplicates."""
        return list(dict.fromkeys(map(self, texts)))
