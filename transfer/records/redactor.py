"""Removes patients, files and folders from free text about records: warnings and errors may name images, tables and reports must not.

Records of this version name nobody. Those of earlier versions do, in their arrays and in the examples of their leaks.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cached_property

from encoders.runtime.redact import could_be_count, redact_names, redact_text
from transfer.records.cached_results import cached_result
from transfer.records.record import ID_COLUMNS, Record

ID_SUFFIXES = tuple(f"_{column}" for column in (*ID_COLUMNS, "study"))
EXAMPLES = re.compile(r",?\s*e\.g\..*", re.DOTALL)  # the end of a warning that names images or patients


class Redactor:
    """Returns texts without their examples, without the image keys and patients of these records, and as `redact_text` does."""

    def __init__(self, records: Sequence[Record]):
        self.records = [r for r in records if r.meta.status == "ok" and r.meta.ids == "names"]

    @cached_property
    def names(self) -> set[str]:
        """All image keys, patients and studies; not those that could be a count."""
        columns = {id(r.arrays[name]): r.arrays[name] for r in self.records for name in r.arrays if name.endswith(ID_SUFFIXES)}
        names = {str(name) for values in columns.values() for name in set(values.tolist())}
        return {name for name in names if not could_be_count(name)} - {""}

    def __call__(self, text: str) -> str:
        return cached_result("redacted", self.records, (text,), str, lambda: self.hide_names(EXAMPLES.sub("", text)))

    def hide_names(self, text: str) -> str:
        """The text without names and paths; its examples stay, such as those of an error about a setting."""
        return redact_text(redact_names(text, self.names) if self.records else text)

    def redact_all(self, texts: Iterable[str]) -> list[str]:
        """All texts redacted, without duplicates."""
        return list(dict.fromkeys(map(self, texts)))
