"""Joins the rows of a table to images: by file, folder, or an identifier of an image, a series, a study, an examination or a patient."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from encoders.ingest.tables.file_finder import FileFinder, clean_path
from encoders.ingest.tables.table import Table, TableRow, first_values
from encoders.runtime.errors import InputError
from encoders.runtime.unknown_values import is_unknown
from encoders.store.patient_ids import normalise_id

SAMPLED_VALUES = 2000  # of another column, to find out whether it would match
MOST_COLUMNS = 40  # columns that are tried for the hint of an error
WORDS_OF_WAYS = {"patient": ("patient", "subject"), "study": ("study",), "series": ("series",), "accession": ("accession",)}

Match = tuple[dict[str, list[str]], dict[str, str], list[str]]  # value -> images; value -> why it has none; values that were guessed


@dataclass(frozen=True)
class JoinWay:
    """One way to join.  name: file, patient, ...  match: from values of a column to images.  examples: what images have here."""

    name: str
    match: Callable[[Sequence[str]], Match]
    examples: Sequence[str]


@dataclass
class JoinedRows:
    """The rows of every image that has any.

    way: the one that was used.  rows: image -> rows, in the order of the images.  unmatched: value -> its rows.
    reasons: value -> why it has no image, where that is more than that there is none.  notes: sentences for the user."""

    way: str
    rows: dict[str, list[TableRow]]
    unmatched: dict[str, list[TableRow]]
    reasons: dict[str, str]
    notes: list[str] = field(default_factory=list)


def by_file(finder: FileFinder) -> JoinWay:
    """Join on paths, file names, or names without suffix."""

    def match(values: Sequence[str]) -> Match:
        found = finder.match(values)
        return {value: [name] for value, name in found.files.items()}, found.reasons, found.by_end

    return JoinWay("file", match, finder.files)


def by_path(name: str, paths: Mapping[str, str]) -> JoinWay:
    """Join on paths that images have, several images on one path possible.  paths: image -> path; unknown ones join nothing."""
    images: dict[str, list[str]] = {}
    for image, path in paths.items():
        if not is_unknown(path):
            images.setdefault(path, []).append(image)
    finder = FileFinder(list(images))

    def match(values: Sequence[str]) -> Match:
        found = finder.match(values)
        return {value: images[path] for value, path in found.files.items()}, found.reasons, found.by_end

    return JoinWay(name, match, finder.files)


def by_folder(files: Sequence[str]) -> JoinWay:
    """Join on the path or the name of a folder, whose row holds for every image below it."""
    below: dict[str, list[str]] = {}
    for name in files:
        folder = name
        while "/" in folder:
            folder = folder.rpartition("/")[0]
            below.setdefault(folder, []).append(name)
    finder = FileFinder(list(below))

    def match(values: Sequence[str]) -> Match:
        found = finder.match([value.rstrip("/\\") for value in values])
        images = {value: below[name] for value in values if (name := found.files.get(value.rstrip("/\\"))) is not None}
        return images, {}, [value for value in images if value.rstrip("/\\") in found.by_end]

    return JoinWay("folder", match, list(below))


def by_identifier(name: str, identifiers: Mapping[str, str]) -> JoinWay:
    """Join on an identifier that images have.  identifiers: image -> identifier; unknown ones join nothing."""
    images: dict[str, list[str]] = {}
    for image, value in identifiers.items():
        if not is_unknown(value):
            images.setdefault(normalise_id(value), []).append(image)

    def match(values: Sequence[str]) -> Match:
        return {value: images[plain] for value in values if (plain := normalise_id(value)) in images}, {}, []

    return JoinWay(name, match, list(images))


def join_images(table: Table, column: str, images: Sequence[str], ways: Sequence[JoinWay], option: str, advice: str = "") -> JoinedRows:
    """The rows of every image. The way is the one that most values match; of equal ones, the one that the column is named after, otherwise
    the first of `ways`.

    column: whose values are matched.  option: of the command line, which names another column.  advice: a sentence for the error.
    Raises InputError with an example of each side if no value matches."""
    by_value: dict[str, list[TableRow]] = {}
    blank = 0
    for row in table.rows:
        if is_unknown(row[column]):
            blank += 1
        else:
            by_value.setdefault(row[column], []).append(row)
    matches = {way.name: way.match(list(by_value)) for way in ways}
    rank = {way.name: (len(matches[way.name][0]), is_named_after(column, way.name), -i) for i, way in enumerate(ways)}
    chosen = max(rank, key=lambda name: rank[name])
    found, reasons, guessed = matches[chosen]
    if not found:
        raise no_match_error(table, column, list(by_value), ways, option, next(iter(reasons.values()), ""), advice)
    rows: dict[str, list[TableRow]] = {image: [] for image in images}
    for value, names in found.items():
        for name in names:
            if name in rows:
                rows[name] += by_value[value]
    notes = []
    if blank:
        notes.append(f"{blank:,} rows have no value in column {column!r} and are left out")
    if guessed:
        target = found[guessed[0]][0]
        end = f"e.g. {clean_path(guessed[0])} is taken for {target}"
        notes.append(f"{len(guessed):,} values of {column!r} match only by the end of their path, {end}")
    if reasons:
        value, reason = next(iter(reasons.items()))
        notes.append(f"{len(reasons):,} values of {column!r} name no single image, e.g. {value!r}: {reason}")
    unmatched = {value: group for value, group in by_value.items() if value not in found}
    return JoinedRows(chosen, {image: group for image, group in rows.items() if group}, unmatched, reasons, notes)


def is_named_after(column: str, way: str) -> bool:
    """Whether the name of a column says which way it joins."""
    return any(word in column.lower() for key, words in WORDS_OF_WAYS.items() if key in way.lower() for word in words)


def no_match_error(
    table: Table, column: str, values: Sequence[str], ways: Sequence[JoinWay], option: str, reason: str, advice: str
) -> InputError:
    """The error for a column that matches no image: an example of each side, and the columns that would match."""
    have = "; ".join(f"{way.name} {first_values(way.examples, 1)}" for way in ways if way.examples) or "no images"
    message = f"none of the {len(values):,} values in column {column!r} of {table.source} matches an image: the table has e.g. "
    message += f"{first_values(values, 1)}, the images have e.g. {have}"
    if reason:
        message += f" ({reason})"
    others = list(list_matching_columns(table, column, ways))
    message += f"; name another column with {option}" + (f": {', '.join(others)}" if others else "")
    return InputError(message + (f". Note: {advice}" if advice else ""))


def list_matching_columns(table: Table, column: str, ways: Sequence[JoinWay]) -> Iterable[str]:
    """`NAME (12 of 20 values are a study)` for the columns that would match more than half of their values."""
    for name in [name for name in table.columns if name != column][:MOST_COLUMNS]:
        values = [value for value in dict.fromkeys(row[name] for row in table.rows) if not is_unknown(value)][:SAMPLED_VALUES]
        counts = {way.name: len(way.match(values)[0]) for way in ways}
        best = max(counts, key=lambda way: counts[way], default="")
        if best and 2 * counts[best] > len(values):
            yield f"{name} ({counts[best]:,} of {len(values):,} values are a {best})"
