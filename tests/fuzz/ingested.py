"""What an ingest stored, for comparison with the truth."""

import re
from pathlib import Path
from typing import Any

from encoders.ingest.quarantine import read_quarantine
from encoders.ingest.shards import ingest
from encoders.ingest.source import Source
from encoders.store.store import Store
from tests.fuzz.harness import Refused, SilentlyWrong

EXCEPTION_NAME = re.compile(r"^\w*(Error|Exception|Warning|NotFound|BadZipFile|Interrupt)\b.*?:")  # how an unforeseen exception is recorded
Stored = dict[str, Any]


def ingest_all(source: Source[Any], out: Path) -> dict[str, Stored]:
    """Key -> image and columns of each stored row. Raises RuntimeError for an item whose exception nobody foresaw, Refused if none is left.

    What is quarantined must be named, and the numbers must add up."""
    try:
        summary = ingest(source, out)
    finally:
        quarantined = read_quarantine(out)
    for item, reason in quarantined:
        if EXCEPTION_NAME.match(reason):
            raise RuntimeError(f"quarantined with an unforeseen exception: {item}: {reason}")
    n = len(source.items())
    if n != summary.rows + len(quarantined):
        raise SilentlyWrong(f"{n} items, {summary.rows} stored, {len(quarantined)} quarantined")
    store = Store.open(out)
    rows = [{"image": store.image(i).copy(), "patient": str(store.column("patient")[i])} for i in range(len(store))]
    for name in ("x", "y"):
        if store.has_column(name):
            rows = [row | {f"at_{name}": int(value)} for row, value in zip(rows, store.column(name), strict=True)]
    for name in store.label_names():
        values, classes = store.labels(name), store.classes(name)
        for i, row in enumerate(rows):
            code = float(values[i])
            row[name] = code if classes is None else "" if code != code else classes[int(code)]
    return dict(zip(store.column("key").tolist(), rows, strict=True))


def require_stored(stored: dict[str, Stored], truth: dict[str, Stored], accepted: int) -> None:
    """Raises SilentlyWrong when a stored row is not the true one; Refused when fewer than `accepted` rows are stored."""
    from tests.fuzz.harness import require_equal

    for key, row in stored.items():
        if key not in truth:
            raise SilentlyWrong(f"a row {key!r} that is not in the input")
        others = [name for name in row if name not in truth[key]]  # a label that only other images have
        if known := [name for name in others if row[name] == row[name] and row[name] != ""]:
            raise SilentlyWrong(f"{key} has {known[0]} {row[known[0]]}, which is not in the input")
        require_equal({name: value for name, value in row.items() if name not in others}, truth[key], key)
    if len(stored) < accepted:
        raise Refused(f"{accepted - len(stored)} of {accepted} quarantined")
