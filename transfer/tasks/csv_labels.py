"""Label columns of one or several tables (CSV, TSV, Excel, Parquet), joined to the images of a store.

Shapes: N images.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from encoders.ingest.dicom.header import PSEUDONYM_COLUMNS
from encoders.ingest.dicom.hidden_names import HiddenNames, add_hidden_names, add_pseudonyms
from encoders.ingest.label_table import ColumnRoles, find_join_column
from encoders.ingest.options import CombineMode
from encoders.ingest.row_filter import describe_filtered, filter_rows
from encoders.ingest.tables.combine import AGREEMENT_SUFFIX, CombineRule, combine_rows, find_reader_column
from encoders.ingest.tables.join_images import JoinWay, by_identifier, by_path, join_images
from encoders.ingest.tables.list_columns import ListColumn
from encoders.ingest.tables.load_tables import Labels, TableFile, load_tables
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.unknown_values import count_unknown, is_unknown
from transfer.tasks.labels import LabelColumn, encode_column
from transfer.tasks.task import to_absolute_path

if TYPE_CHECKING:
    from encoders.store.store import Store

IMAGE_COLUMNS = ("key", "file")  # the columns to join on that come first
IDENTIFIERS = ("study", "slide", "patient")  # columns of a store to join on, besides file names


def read_csv_labels(
    path: Labels,
    store: "Store",
    names: Sequence[str],
    join_column: str | None = None,
    on: Sequence[str] = (),
    combine: CombineMode = "error",
    reader: str | None = None,
    lists: ListColumn | None = None,
    derive: Sequence[str] = (),
    only: Sequence[str] = (),
) -> tuple[list[LabelColumn], list[str]]:
    """The label columns, and messages for the user about the join.

    path: a table, or several that are joined on the columns `on`.  join_column: the column with image names; by default `key`, `file` or
    one with a usual name.  combine, reader: what becomes of rows of one image that disagree, as in an ingest.
    lists: the lists of findings of a column, whose findings are then `names`.  derive: comparisons that become columns.  only: conditions
    on rows; images of the other rows have no label.

    Raises InputError for an unknown column, for a table that matches no image, and for rows of one image that disagree."""
    messages: list[str] = []
    table = load_tables(path, on, messages, derive=derive, lists=lists)
    every = len(table.rows)
    table = table.with_rows(filter_rows(table.columns, table.rows, list(only), messages))
    messages += describe_filtered(list(only), every - len(table.rows))
    header = table.columns
    for name in names:
        if name not in header:
            raise unknown_name_error(f"column of {table.source}", name, header)
    column = choose_join_column(table.source, header, join_column, names)
    advice = (hidden := HiddenNames(store)).describe()
    joined = join_images(table, column, [str(i) for i in range(len(store))], [*list_join_ways(store, hidden)], "--file-column", advice)
    roles = ColumnRoles(file=column, patient=None, split=None, study=None, slide=None, label=tuple(names), meta=())
    rule = CombineRule(combine, find_reader_column(header, reader))
    rows, _ = combine_rows(joined.rows, roles, rule, table.source, merged := [])
    at = np.array([int(image) for image in rows])  # the images with a row
    without_row = np.ones(len(store), dtype=bool)
    without_row[at] = False
    columns = []
    for name in names:
        texts = [row[name] for row in rows.values()]
        found = encode_column(name, texts)
        found.unknown_texts = count_unknown(texts, np.isnan(found.codes))
        codes = np.full(len(store), np.nan, dtype=np.float32)
        codes[at] = found.codes
        columns.append(LabelColumn(name, codes, found.classes, without_row.copy(), found.unknown_texts))
        if combine == "majority":
            shares = columns[-1].agreement = np.full(len(store), np.nan)
            shares[at] = [float(row[name + AGREEMENT_SUFFIX] or "nan") for row in rows.values()]
            n = int(np.isfinite(shares).sum())
            merged.append(f"{name}: mean agreement {np.nanmean(shares):.3f} over {n:,} images" if n else f"{name}: no known value")
    file, used = table.file_name, len({id(row) for group in joined.rows.values() for row in group})
    by = "" if joined.way in ("file", "source") else f", as {joined.way}"
    messages.append(f"{file}: {used} of {len(table.rows)} rows matched an image on `{column}`{by}")
    lines, images = len(table.rows) - used, int(without_row.sum())
    messages += [f"{lines} rows of {file} match no image of the store"] if lines else []
    messages += [f"{images} images have no row in {file} and are excluded"] if images else []
    messages += [f"note: {advice}"] if advice and lines and images else []
    return columns, [*messages, *joined.notes, *merged]


def choose_join_column(source: str, header: Sequence[str], named: str | None, labels: Sequence[str]) -> str:
    """The named column, or the first with a usual name. Raises InputError if there is none."""
    if named is not None and named not in header:
        raise unknown_name_error(f"column of {source}", named, header, "(--file-column names the column with image names)")
    column = (
        named or next((name for name in IMAGE_COLUMNS if name in header), None) or find_join_column([n for n in header if n not in labels])
    )
    if column is None:
        raise InputError(
            f"{source} has no column `key` or `file` to join on; name its column with image names with --file-column; "
            f"its columns: {', '.join(header)}"
        )
    return column


def list_join_ways(store: "Store", hidden: HiddenNames) -> Iterator[JoinWay]:
    """The columns of a store that rows can be joined on: key, source file, study, slide, patient, and pseudonyms of DICOM identifiers."""
    yield add_hidden_names(by_path("file", number_images(store, "key")), hidden)
    if store.has_column("source"):
        yield by_path("source", number_images(store, "source"))
    for name in IDENTIFIERS:
        if store.has_column(name):
            values = number_images(store, name)
            if name == "patient":  # an image without a patient is named by its key
                named = store.names_patient()
                values = {image: value for image, value in values.items() if named[int(image)]}
            yield add_pseudonyms(by_identifier(name, values), values, hidden.datasets)
    for name in ("uid", "series", "accession"):
        if store.has_column(column := PSEUDONYM_COLUMNS[name]):
            values = number_images(store, column)
            yield add_pseudonyms(by_identifier(name, values), values, hidden.datasets)


def number_images(store: "Store", column: str) -> dict[str, str]:
    """Number of each image -> its value of a column; unknown ones are left out."""
    return {str(i): str(value) for i, value in enumerate(store.column(column).tolist()) if not is_unknown(value)}


def as_labels(csv: str | Sequence[str], columns: Sequence[str] = ()) -> list[TableFile]:
    """The table or tables of a task, with absolute paths.  columns: names of the first ones, of a table without a line of names."""
    return [TableFile(Path(to_absolute_path(path)), tuple(columns)) for path in ([csv] if isinstance(csv, str) else csv)]
