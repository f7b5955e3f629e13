"""Seeded changes of bytes, of lines of text and of trees (JSON, YAML). Each returns what it changed, in a few words."""

import copy
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

LONGEST_RANGE = 64
SIZES = [0, 1, 2, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1]  # as a damaged length may be
ODD_TEXTS = [
    "",
    " ",
    "nan",
    "NaN",
    "inf",
    "-inf",
    "1e400",
    "-0",
    "²",
    "١٢",  # digits of Arabic
    "é",
    "e\u0301",
    "\u202e",
    "\ufeff",
    "\x00",
    "\x1b[31m",
    "a\nb",
    "a,b",
    "a\tb",
    '"',
    "'",
    "=1+1",
    "../x",
    "/etc/hosts",
    "-rf",
    "null",
    "true",
    "None",
    "{}",
    "[",
    "x" * 5000,
    "\ud800",
]
ODD_VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63),
    10**30,
    0.5,
    -0.0,
    float("nan"),
    float("inf"),
    float("-inf"),
    1e308,
    [],
    [[]],
    {},
    {"a": 1},
    [None],
    [1, "a"],
    *ODD_TEXTS,
]


def mutate_file(path: Path, rng: Random) -> str:
    """Changes bytes of a file in place: one, two or eight of the changes of `mutate_bytes`."""
    data, change = mutate_bytes(path.read_bytes(), rng)
    path.write_bytes(data)
    return change


def mutate_bytes(data: bytes, rng: Random) -> tuple[bytes, str]:
    """(changed bytes, what was changed): bits, bytes, sizes, ranges zeroed, copied, doubled, left out; the end cut off."""
    changed, changes = bytearray(data), []
    for _ in range(rng.choice([1, 1, 1, 2, 8])):
        if not changed:
            break
        change: Callable[[bytearray, Random], str] = rng.choice(BYTE_CHANGES)
        changes.append(change(changed, rng))
    return bytes(changed), ", ".join(changes)


def mutate_text(text: str, rng: Random) -> tuple[str, str]:
    """(changed text, what was changed): an odd text put in, a line left out, doubled or moved, a character changed."""
    lines = text.split("\n")
    i, kind = rng.randrange(len(lines)), rng.randrange(6)
    line = lines[i]
    if kind == 0:
        j, odd = rng.randint(0, len(line)), rng.choice(ODD_TEXTS)
        lines[i] = line[:j] + odd + line[j:]
        return "\n".join(lines), f"{odd[:20]!r} put into line {i + 1}"
    if kind == 1:
        del lines[i]
        return "\n".join(lines), f"line {i + 1} left out"
    if kind == 2:
        lines.insert(i, line)
        return "\n".join(lines), f"line {i + 1} doubled"
    if kind == 3:
        lines.insert(rng.randrange(len(lines)), lines.pop(i))
        return "\n".join(lines), f"line {i + 1} moved"
    if kind == 4:
        lines[i] = line[: rng.randint(0, len(line))]
        return "\n".join(lines), f"line {i + 1} cut off"
    j, char = rng.randrange(len(line) + 1), rng.choice(",;\t\"'{}[]:-#&*!|>%@` 0a")
    lines[i] = line[:j] + char + line[j + 1 :]
    return "\n".join(lines), f"{char!r} at column {j + 1} of line {i + 1}"


def mutate_text_file(path: Path, rng: Random) -> str:
    """Changes the text of a file as `mutate_text` does. Returns what was changed."""
    text, change = mutate_text(path.read_text(), rng)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return change


def keep_one_file(folder: Path, rng: Random) -> Path:
    """One of the files of a folder; the others are deleted."""
    path = rng.choice(sorted(folder.iterdir()))
    for other in folder.iterdir():
        if other != path:
            other.unlink()
    return path


def mutate_tree(tree: Any, rng: Random) -> tuple[Any, str]:
    """(changed copy, what was changed) of lists and mappings inside each other: a value replaced by an odd one, a key left out, renamed,
    an element doubled or left out."""
    changed = copy.deepcopy(tree)
    places = list(_list_places(changed, ()))
    if not places:
        odd = rng.choice(ODD_VALUES)
        return odd, f"all replaced by {odd!r}"[:60]
    parent, key, path = rng.choice(places)
    where, kind = ".".join(map(str, path)), rng.randrange(6)
    if kind == 0:
        del parent[key]
        return changed, f"{where} left out"
    if kind == 1 and isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
        return changed, f"{where} doubled"
    if kind == 1:
        parent[new := rng.choice([*ODD_TEXTS, str(key) + "x"])] = parent.pop(key)
        return changed, f"{where} renamed to {new[:20]!r}"
    if kind == 2 and isinstance(parent[key], int | float) and not isinstance(parent[key], bool):
        parent[key] = rng.choice([-parent[key], parent[key] * 1000, parent[key] + 1, parent[key] / 3, str(parent[key])])
        return changed, f"{where} is {parent[key]!r}"
    odd = copy.deepcopy(rng.choice(ODD_VALUES))
    parent[key] = odd
    return changed, f"{where} is {odd!r}"[:80]


def _list_places(tree: Any, path: tuple[Any, ...]) -> list[tuple[Any, Any, tuple[Any, ...]]]:
    """(parent, key, path) of every value in a tree."""
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree))) if isinstance(tree, list) else []
    return [place for key in keys for place in [(tree, key, (*path, key)), *_list_places(tree[key], (*path, key))]]


def _flip_bit(data: bytearray, rng: Random) -> str:
    i = rng.randrange(len(data))
    data[i] ^= 1 << rng.randrange(8)
    return f"a bit flipped at {i}"


def _set_byte(data: bytearray, rng: Random) -> str:
    i = rng.randrange(len(data))
    data[i] = rng.choice([0, 0xFF, rng.randrange(256)])
    return f"a byte at {i}"


def _set_size(data: bytearray, rng: Random) -> str:
    i, width, order = rng.randrange(len(data)), rng.choice([2, 4, 8]), rng.choice(["little", "big"])
    value = rng.choice(SIZES) % 2 ** (8 * width)
    new = value.to_bytes(width, "little" if order == "little" else "big")[: len(data) - i]
    data[i : i + len(new)] = new
    return f"the {order}-endian number {value} at {i}"


def _zero_range(data: bytearray, rng: Random) -> str:
    i, n = rng.randrange(len(data)), rng.choice([LONGEST_RANGE, 4096])
    end = min(i + rng.randint(1, n), len(data))
    data[i:end] = bytes(end - i)
    return f"zeros from {i} to {end}"


def _copy_range(data: bytearray, rng: Random) -> str:
    i, j, n = rng.randrange(len(data)), rng.randrange(len(data)), rng.randint(1, LONGEST_RANGE)
    piece = data[j : j + n][: len(data) - i]
    data[i : i + len(piece)] = piece
    return f"{len(piece)} bytes of {j} at {i}"


def _double_range(data: bytearray, rng: Random) -> str:
    i, n = rng.randrange(len(data)), rng.randint(1, LONGEST_RANGE)
    data[i:i] = data[i : i + n]
    return f"{n} bytes doubled at {i}"


def _drop_range(data: bytearray, rng: Random) -> str:
    i, n = rng.randrange(len(data)), rng.randint(1, 4 * LONGEST_RANGE)
    del data[i : i + n]
    return f"{n} bytes left out at {i}"


def _cut_off(data: bytearray, rng: Random) -> str:
    end = rng.randrange(len(data))
    del data[end:]
    return f"cut off at {end}"


BYTE_CHANGES = [_flip_bit, _flip_bit, _set_byte, _set_size, _zero_range, _copy_range, _double_range, _drop_range, _cut_off]
