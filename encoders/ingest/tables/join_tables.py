"""Several tables of one data set become one: their rows are joined on columns that they share, such as a study."""

from collections.abc import Sequence
from functools import reduce
from itertools import chain

from encoders.ingest.tables.table import Table, TableRow, first_values
from encoders.runtime.errors import InputError, unknown_name_error

MAX_ROWS_OF_A_KEY = 1000  # rows of one key in each of two tables; more would be a product, not a join


def join_tables(tables: Sequence[Table], on: Sequence[str] = ()) -> Table:
    """The first table with the columns of the others added, row by row.

    on: columns that have equal values in rows that belong together; empty: all columns that two tables share. A row of the first table
    that has no partner keeps empty cells; both kinds of rows without a partner are counted in the notes. If a key stands in several rows of
    a table, every pair of rows becomes a row.

    Raises InputError for tables without a common column or a common value, and for other shared columns that contradict each other."""
    for name in on:
        if not any(name in table.columns for table in tables):
            raise unknown_name_error("column", name, list(dict.fromkeys(chain.from_iterable(t.columns for t in tables))), "(for --on)")
    return reduce(lambda left, right: join_two(left, right, on), tables)


def join_two(left: Table, right: Table, on: Sequence[str]) -> Table:
    """The rows of `left` with the columns that only `right` has."""
    shared = [name for name in left.columns if name in right.columns]
    keys = [name for name in on if name in shared] if on else shared
    if not keys:
        asked = f"of --on {', '.join(on)} none is in both" if on else "they have no column in common"
        raise InputError(
            f"cannot join {right.source} to {left.source}: {asked}; columns: {', '.join(left.columns)} and {', '.join(right.columns)}; "
            "give both a column with the same name and name it with --on"
        )
    others = [name for name in shared if name not in keys]
    added = [name for name in right.columns if name not in shared]
    partners: dict[tuple[str, ...], list[TableRow]] = {}
    for row in right.rows:
        partners.setdefault(tuple(row[name] for name in keys), []).append(row)
    rows, used, alone = [], set[tuple[str, ...]](), 0
    for row in left.rows:
        key = tuple(row[name] for name in keys)
        found = pick_partners(row, partners.get(key, []), others, left, right, keys) if any(key) else []
        if not found:
            alone += 1
            rows.append({**row, **dict.fromkeys(added, "")})
            continue
        used.add(key)
        rows += [{**row, **{name: row[name] or other[name] for name in others}, **{name: other[name] for name in added}} for other in found]
    name = " + ".join(keys)
    if not used:
        there, here = (first_values([row[keys[0]] for row in table.rows]) for table in (right, left))
        raise InputError(
            f"no row of {right.source} belongs to a row of {left.source}: in {name} the values are e.g. {there} and {here}; "
            "choose the column with --on"
        )
    unused = sum(len(found) for key, found in partners.items() if key not in used)
    joined = f"{len(left.rows) - alone:,} of {len(left.rows):,} rows have a row"
    note = f"{right.file_name} joined to {left.file_name} on {name}: {joined}"
    note += f"; {unused:,} of {len(right.rows):,} rows of {right.file_name} belong to none" if unused else ""
    return Table(f"{left.source} + {right.source}", [*left.columns, *added], rows, [*left.notes, *right.notes, note])


def pick_partners(
    row: TableRow, found: list[TableRow], others: list[str], left: Table, right: Table, keys: Sequence[str]
) -> list[TableRow]:
    """The rows of `right` with the key of `row` that also agree with it in the other shared columns, where both state a value.

    Raises InputError if rows with this key exist and all of them contradict `row`, and for a key that stands in too many rows."""
    if not others:
        agreeing = found
    else:
        agreeing = [other for other in found if all(not row[n] or not other[n] or row[n] == other[n] for n in others)]
    if found and not agreeing:
        name = next(n for n in others if row[n] and found[0][n] and row[n] != found[0][n])
        raise InputError(
            f"{left.source} and {right.source} contradict each other in column {name!r}: {row[name]!r} and {found[0][name]!r}, for "
            f"{', '.join(f'{key} = {row[key]!r}' for key in keys)}; add the column to --on, or rename it in one table"
        )
    if len(agreeing) > MAX_ROWS_OF_A_KEY:
        raise InputError(
            f"{right.source} has {len(agreeing):,} rows with {', '.join(f'{key} = {row[key]!r}' for key in keys)}; "
            "name a column with --on that tells the rows apart"
        )
    return agreeing
