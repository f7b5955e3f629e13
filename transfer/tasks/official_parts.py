"""The official part of every image of a store: from a column whose words are mapped to train, val and test, or from lists of names.

Shapes: N images of the store.
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from encoders.ingest.dicom.hidden_names import HiddenNames
from encoders.ingest.list_files import describe_bad_file
from encoders.ingest.tables.file_finder import FileFinder
from encoders.runtime.arrays import Array
from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.local_notes import show_key
from encoders.runtime.unknown_values import find_unknown
from transfer.tasks.labels import describe_read_error, path_basename
from transfer.tasks.split_words import describe_parts, describe_split_values, find_parts, unclear_split_error
from transfer.tasks.task import SplitRule, to_absolute_path

if TYPE_CHECKING:
    from encoders.store.store import Store

DATASET_COLUMN = "dataset"  # as a split column: the name of the data set of each store, for parts that were ingested one by one


def read_split_column(store: "Store", rule: SplitRule, messages: list[str] | None = None) -> Array | None:
    """(N,) the official part of every image: train, val, test, "" (excluded) or a text that means unknown; None for a random split.

    messages: receives a sentence about words that are not the names of their parts.
    Raises InputError for an unknown column, and for values of which it is not clear what they mean."""
    texts = read_split_texts(store, rule)
    if texts is None or rule.lists:
        return texts
    assert rule.column is not None
    unknown = find_unknown(texts, names=True)
    counts = Counter(text for text, hole in zip(texts.tolist(), unknown, strict=True) if not hole)
    others = [text for text in counts if text not in rule.names]
    if rule.column == DATASET_COLUMN and rule.names:  # a data set that the rule does not name is in no part
        part_of = dict.fromkeys(others, "")
    else:
        taken = {part for text in counts if (part := rule.names.get(text))}
        found = find_parts(others, taken, numbered="fold" not in rule.column.lower())
        if found is None:
            raise unclear_split_error(rule.column, counts)
        if messages is not None:
            messages += describe_parts(rule.column, {**found, **{text: rule.names[text] for text in counts if text in rule.names}})
        part_of = {**found}
    part_of |= rule.names
    return np.array([part_of.get(text, text) for text in texts.tolist()], dtype=object)


def read_split_texts(store: "Store", rule: SplitRule) -> Array | None:
    """(N,) what the store or the lists say about the part of every image, as text before any mapping; None for a random split."""
    if rule.source is None:
        return None
    if rule.lists:
        return match_official_lists(store, rule)
    assert rule.column is not None
    if rule.column == DATASET_COLUMN and not store.has_column(DATASET_COLUMN):
        return np.asarray(store.datasets).astype(object)
    if not store.has_column(rule.column):
        raise unknown_name_error("split column", rule.column, store.columns(), "(--split-column none: a random split by patient)")
    column = np.asarray(store.column(rule.column))
    texts = [f"{v:g}" for v in column] if column.dtype.kind in "fiu" else [str(v).strip() for v in column]
    if rule.pattern:
        matches = [re.search(rule.pattern, text) for text in texts]
        texts = [match.group(1) if match else "" for match in matches]
    return np.array(texts, dtype=object)


def match_official_lists(store: "Store", rule: SplitRule) -> Array:
    """(N,) the part whose list names the image, by its key, a path that ends like it, or its name; "" = none.

    Raises InputError for a list that cannot be read or matches no image, and for an image in two lists."""
    key = [str(k) for k in store.column("key")]
    part, finder, hidden = np.full(len(key), "", dtype=object), FileFinder(list(dict.fromkeys(key))), HiddenNames(store)
    for name, path in rule.lists.items():
        names = read_official_list(path)
        matches, _ = match_list(names, key, finder, hidden)
        if not matches.any():
            raise InputError(
                f"the {name} list {path} matches no image of the store: the list has names like {show_key(names[0])!r}, the store like "
                f"{show_key(key[0])!r}" + (f". Note: {advice}" if (advice := hidden.describe()) else "")
            )
        both = matches & (part != "")
        if both.any():
            raise InputError(
                f"{int(both.sum())} images are in the {name} list {path} and in another list, e.g. "
                f"{show_key(key[int(np.argmax(both))])!r}; an image may be in one list only"
            )
        part[matches] = name
    return part


def match_list(names: Sequence[str], key: Sequence[str], finder: FileFinder, hidden: HiddenNames) -> tuple[Array, list[str]]:
    """(N,) whether a list names each image, by its key, a path that ends like it, or its name; and the names that no image has.

    key: (N,).  finder: of the same keys.  hidden: of the same store; it finds names whose key is a hash."""
    listed, files = set(names), finder.match(names).files  # absolute and prefixed paths, names without suffix
    found, have = {*files.values()}, {*key, *map(path_basename, key)}
    matches = np.array([k in listed or path_basename(k) in listed or k in found for k in key])
    lost = []
    for name in [name for name in names if name not in have and name not in files]:
        if images := hidden.find(name):
            matches[images] = True
        else:
            lost.append(name)
    return matches, lost


def read_official_list(path: str) -> list[str]:
    """The lines of an official list. Raises InputError when it cannot be read or is empty."""
    whole = Path(to_absolute_path(path))
    if (problem := describe_bad_file(whole)) and not whole.is_fifo():
        raise InputError(f"cannot read the official list {path}, which {problem}")
    try:
        with whole.open(encoding="utf-8-sig") as file:
            names = [line.strip() for line in file if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the official list {path}: {describe_read_error(error)}") from error
    if not names:
        raise InputError(f"the official list {path} is empty; expected one image name per line")
    return names


def find_split_column(store: "Store") -> str | None:
    """`split` if the store has a column of that name with several values, else None; one value does not divide anything."""
    return "split" if len(count_split_values(store)) > 1 else None


def describe_unused_split(store: "Store") -> list[str]:
    """A sentence about a column `split` that divides nothing, because it holds one value; [] otherwise."""
    counts = count_split_values(store)
    return [f"column 'split' holds only {describe_split_values(counts)} and is not used"] if len(counts) == 1 else []


def count_split_values(store: "Store") -> Counter[str]:
    """The known values of the column `split` with their numbers of images; empty without that column."""
    texts = read_split_texts(store, SplitRule(column="split")) if store.has_column("split") else None
    return Counter() if texts is None else Counter(texts[~find_unknown(texts, names=True)].tolist())
