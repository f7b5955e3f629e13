"""What options of `transfer tasks add` mean: comma lists, PART=FILE and PART=VALUE."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from encoders.runtime.cli import split_commas
from encoders.runtime.errors import InputError
from transfer.tasks.options import PARTS


def drop_none(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the user gave."""
    return {name: value for name, value in values.items() if value is not None}


def parse_classes(texts: list[str] | None) -> list[str] | None:
    """The classes of --order, --keep or --finding: one option is divided at commas, of several each is one class."""
    return split_commas(texts[0]) if texts and len(texts) == 1 else texts


def parse_findings(column: str | None, findings: list[str], separator: str | None, label: list[str] | None) -> dict[str, Any]:
    """The labels and the column of lists that --list-column, --finding and --list-separator name; {} without any of them.

    A recipe may name what is not given here. Raises InputError for --label beside --finding."""
    if findings and label:
        raise InputError("--label names columns and --finding findings of --list-column; give one of them")
    where = drop_none({"column": column, "separator": separator and separator.replace("\\n", "\n").replace("\\t", "\t")})
    return drop_none({"labels": parse_classes(findings) or label, "findings": where or ({} if findings else None)})


def parse_split_lists(texts: list[str]) -> dict[str, str] | None:
    """`train=FILE` as {"train": "FILE"}."""
    from transfer.tasks.task import to_portable_path

    pairs = [text.partition("=") for text in texts]
    if any(not equals or not path for _, equals, path in pairs):
        raise InputError(f"--split-list is {texts}; expected PART=FILE, e.g. --split-list test=test_list.txt")
    return {part: to_portable_path(path) for part, _, path in pairs} or None


def parse_split_values(texts: list[str]) -> dict[str, str] | None:
    """`test=valid` as {"valid": "test"}; `exclude=unused` as {"unused": ""}."""
    pairs = [text.partition("=") for text in texts]
    if any(not equals or part not in (*PARTS, "exclude") for part, equals, _ in pairs):
        raise InputError(
            f"--split-value is {texts}; expected PART=VALUE with PART train, val, test or exclude, e.g. --split-value test=valid"
        )
    return {value.strip(): "" if part == "exclude" else part for part, _, value in pairs} or None


def require_table(tables: Sequence[Path] | None, recipe: str | None, options: Mapping[str, Sequence[str]]) -> None:
    """Raises InputError for options about a table of labels without one, and for names of columns of several."""
    given = [f"--{key.removeprefix('csv_').replace('columns', 'column-names')}" for key, value in options.items() if value]
    if given and not tables and recipe is None:
        raise InputError(f"{given[0]} is about a table of labels; name it with --labels FILE.csv")
    if options["csv_columns"] and tables and len(tables) > 1:
        raise InputError(f"--column-names names the columns of one table, and --labels names {len(tables)}")
