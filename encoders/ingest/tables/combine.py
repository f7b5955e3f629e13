"""One row per image: rows that agree are merged, rows that disagree are combined as the user asks, or are an error.

An unknown value contradicts nothing: `1` and an empty cell give `1`.
"""

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from encoders.ingest.label_table import ColumnRoles
from encoders.ingest.options import CombineMode
from encoders.ingest.tables.binary_file import cell_text
from encoders.ingest.tables.table import TableRow
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.json_types import Json
from encoders.runtime.unknown_values import is_unknown

READER_COLUMNS = ("rad_id", "reader", "reader_id", "rater", "rater_id", "annotator", "annotator_id", "radiologist", "observer")
AGREEMENT_SUFFIX = "_agreement"


@dataclass(frozen=True)
class CombineRule:
    """How rows of one image that disagree become one.  reader: column that names who wrote a row; each reader has one vote."""

    mode: CombineMode = "error"
    reader: str | None = None


def find_reader_column(columns: Sequence[str], name: str | None) -> str | None:
    """The named column, or the first with a usual name of a reader; "" means none. Raises InputError for an unknown column."""
    if name:
        if name not in columns:
            raise unknown_name_error("column", name, columns, "(for --reader-column)")
        return name
    return None if name == "" else next((column for column in columns if column.lower() in READER_COLUMNS), None)


def describe_joining(on: Sequence[str], rule: CombineRule) -> dict[str, Json]:
    """What a recipe records of the joining of tables and the combination of rows; {} for the defaults."""
    chosen: dict[str, Json] = {"on": list(on)} if on else {}
    if rule.mode != "error":
        chosen |= {"combine": rule.mode} | ({"reader": rule.reader} if rule.reader else {})
    return chosen


def combine_rows(
    rows: Mapping[str, list[TableRow]],
    roles: ColumnRoles,
    rule: CombineRule,
    source: str,
    notes: list[str],
    fixed: Sequence[str] = (),
    what: str = "image",
) -> tuple[dict[str, TableRow], ColumnRoles]:
    """Image -> its row with the columns of `roles`, and the roles; `majority` adds a column of metadata `<label>_agreement` per label.

    The agreement is the share of votes for the stored value: of rows, or of readers. A tie is unknown.
    fixed: other columns that are used and never combined.  what: a row is of, for messages.
    Raises InputError for rows that disagree, if the rule is `error` or cannot combine them; patients and splits are never combined."""
    labels, metas = list(roles.label), list(roles.meta)
    single, names = {*roles.identity.values(), *fixed}, {*roles.identity.values()}
    used = list(dict.fromkeys([roles.file, *roles.identity.values(), *fixed, *labels, *metas]))
    agreement = {name: name + AGREEMENT_SUFFIX for name in labels} if rule.mode == "majority" else {}
    if taken := [name for name in agreement.values() if name in metas]:
        raise InputError(f"--combine majority stores the column {taken[0]!r}, which {source} has too; rename it there")
    out: dict[str, TableRow] = {}
    disagree, ties = Counter[str](), 0
    first: dict[str, tuple[str, list[str]]] = {}
    for image, group in rows.items():
        merged = out[image] = {name: group[0][name] for name in used}
        shares = dict.fromkeys(labels, 1.0)
        for name in used if len(group) > 1 else ():
            if name == roles.file and name not in single and name not in labels:
                continue
            known = list_known(group, name, name in names)
            merged[name] = next(iter(known.values()), merged[name])
            if len(known) < 2:
                continue
            disagree[name] += 1
            first.setdefault(name, (image, list(known.values())))
            if rule.mode != "error" and name not in single:
                merged[name], shares[name] = combine_cells(name, list_votes(group, name, rule, source, image), rule, source, image)
                ties += merged[name] == ""
        for name, column in agreement.items():
            merged[column] = "" if is_unknown(merged[name], True) and shares[name] == 1.0 else f"{shares[name]:.4g}"
    if disagree and (fatal := [name for name in disagree if name in single or rule.mode == "error"]):
        raise disagreement_error(fatal[0], *first[fatal[0]], disagree[fatal[0]], source, roles, fixed, what)
    notes += describe_merged(rows, disagree, ties, rule, what)
    return out, replace(roles, meta=(*roles.meta, *agreement.values()))


def list_known(group: Sequence[TableRow], name: str, is_name: bool) -> dict[object, str]:
    """The different known values of a column, by what they are equal in: `1` and `1.0` are one value of a label, not of a patient."""
    known: dict[object, str] = {}
    for row in group:
        if not is_unknown(row[name], beside_words=not is_name):
            known.setdefault(comparable(row[name], is_name), row[name])
    return known


def comparable(text: str, is_name: bool = False) -> object:
    """The number of a text, otherwise the text in Unicode NFC."""
    number = None if is_name else parse_number(text)
    return unicodedata.normalize("NFC", text) if number is None else number


def parse_number(text: str) -> float | None:
    """The finite number that a text is; None if it is none."""
    try:
        number = float("" if "_" in text else text)  # Python reads 1_2 as 12
    except ValueError:
        return None
    return number if isfinite(number) else None


def list_votes(group: Sequence[TableRow], name: str, rule: CombineRule, source: str, image: str) -> list[str]:
    """The known values of a column, one per row; with readers, for `mean` and `majority`, one per reader, the largest of their numbers.

    Raises InputError if one reader gives two texts."""
    cells = [row for row in group if not is_unknown(row[name], beside_words=True)]
    if rule.reader is None or rule.mode not in ("mean", "majority"):
        return [row[name] for row in cells]
    by_reader: dict[object, list[str]] = {}
    for i, row in enumerate(cells):
        by_reader.setdefault(row[rule.reader] or i, []).append(row[name])
    votes = []
    for reader, given in by_reader.items():
        numbers = [parse_number(text) for text in given]
        if len({*given}) > 1 and None in numbers:
            raise InputError(
                f"{source}: reader {reader!r} gives image {image} two values of {name!r}, {' and '.join(map(repr, dict.fromkeys(given)))}: "
                "name the findings to count as columns of 0 and 1, or pass --reader-column '' to count rows"
            )
        votes.append(given[0] if len({*given}) == 1 else cell_text(max(n for n in numbers if n is not None)))
    return votes


def combine_cells(name: str, votes: Sequence[str], rule: CombineRule, source: str, image: str) -> tuple[str, float]:
    """The combined cell of one image, and the share of votes that agree with it. votes: known values, at least one.

    Raises InputError if the mode needs numbers and there are others."""
    if rule.mode == "majority":
        counts = Counter(map(comparable, votes))
        (top, n), *rest = counts.most_common()
        text = next(vote for vote in votes if comparable(vote) == top)
        return ("" if rest and rest[0][1] == n else text), n / len(votes)
    numbers = [parse_number(vote) for vote in votes]
    if None in numbers or (rule.mode == "any" and not {*numbers} <= {-1.0, 0.0, 1.0}):
        wanted = "values of 0, 1 and -1 (uncertain)" if rule.mode == "any" else "numbers"
        odd = next(v for v, n in zip(votes, numbers, strict=True) if n is None or (rule.mode == "any" and n not in (-1, 0, 1)))
        raise InputError(
            f"{source}: --combine {rule.mode} needs {wanted}, and column {name!r} has {odd!r} (image {image}); "
            "choose --combine majority, or leave the column out with --label-column and --meta-column"
        )
    values = [n for n in numbers if n is not None]
    if rule.mode == "any":  # uncertain ranks between absent and present
        return cell_text(max(values, key=[0.0, -1.0, 1.0].index)), 1.0
    return cell_text(max(values) if rule.mode == "max" else sum(values) / len(values)), 1.0


def disagreement_error(
    name: str, image: str, values: Sequence[str], images: int, source: str, roles: ColumnRoles, fixed: Sequence[str], what: str
) -> InputError:
    """The error for rows of one image that disagree, with both values and what to do."""
    role = next((role for role, column in roles.identity.items() if column == name), name if name in fixed else None)
    advice = (
        f"{'an' if what == 'image' else 'a'} {what} has one {role}: correct the table, select rows with --only, or turn the column off"
        if role
        else "choose how to combine them with --combine max, any, mean or majority, or select rows with --only"
    )
    others = f" ({images:,} {what}s have such rows)" if images > 1 else ""
    return InputError(f"{source}: rows of {what} {image} disagree on column {name!r}: {values[0]!r} and {values[1]!r}{others}; {advice}")


def describe_merged(
    rows: Mapping[str, list[TableRow]], disagree: Mapping[str, int], ties: int, rule: CombineRule, what: str = "image"
) -> list[str]:
    """Sentences about repeated rows; [] if every image has one row."""
    several = sum(len(group) > 1 for group in rows.values())
    if not several:
        return []
    n = len({id(row) for group in rows.values() for row in group})
    notes = [f"{n:,} rows for {len(rows):,} {what}s: repeated rows merged ({several:,} {what}s have several)"]
    if disagree:
        columns = ", ".join(f"{name} {count:,}" for name, count in disagree.items())
        by = f", one vote per {rule.reader}" if rule.reader and rule.mode in ("mean", "majority") else ""
        notes.append(
            f"rows that disagree are combined by {rule.mode}{by}; {what}s: {columns}" + (f"; {ties:,} ties are unknown" if ties else "")
        )
    return notes
