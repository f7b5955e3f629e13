"""Whether the content of a checkpoint is finite and shallow, so that what walks over it ends."""

from torch import Tensor

from encoders.importing.inert_record import InertRecord, UnreadableCheckpoint
from encoders.importing.limits import MAX_DEPTH, MAX_NODES, check_limit


def check_structure(tree: object) -> None:
    """Raises UnreadableCheckpoint if the plain containers of a tree are too deep, too many, or contain themselves.

    A value that stands in several places counts once for each: a list of a list of a list, each of ten times the same one, has a thousand
    values. Records may refer to each other in circles, as modules and their parents do; each is checked on its own."""
    sizes: dict[int, tuple[int, int]] = {}  # of each container: its values, and its height
    records: dict[int, InertRecord] = {}
    pending: list[object] = [tree]
    while pending:
        root = pending.pop()
        for record in _measure(root, sizes):
            if id(record) not in records:
                records[id(record)] = record
                pending.extend((record.args, record.state, record.items, record.elements))


def _measure(root: object, sizes: dict[int, tuple[int, int]]) -> list[InertRecord]:
    """Measures the containers of `root`, children first, without recursion; returns the records that it refers to."""
    found: list[InertRecord] = []
    open_ids: set[int] = set()
    stack: list[tuple[object, bool]] = [(root, False)]
    while stack:
        node, children_done = stack.pop()
        if isinstance(node, InertRecord):
            found.append(node)
        if not isinstance(node, dict | list | tuple) or id(node) in sizes:
            continue
        if children_done:
            open_ids.discard(id(node))
            inner = [sizes.get(id(child), (1, 0)) for child in children_of(node)]
            size, height = 1 + sum(n for n, _ in inner), 1 + max((h for _, h in inner), default=0)
            check_limit(size, MAX_NODES, f"its content has {size:,} values when each reference is followed")
            check_limit(height, MAX_DEPTH, f"its content is nested {height} levels deep")
            sizes[id(node)] = size, height
            continue
        if id(node) in open_ids:
            raise UnreadableCheckpoint(f"a {type(node).__name__} of its content contains itself")
        open_ids.add(id(node))
        stack.append((node, True))
        stack.extend((child, False) for child in children_of(node) if isinstance(child, dict | list | tuple | InertRecord))
    return found


def children_of(node: object) -> list[object]:
    """The values in a container; a record and a tensor have none."""
    if isinstance(node, Tensor | InertRecord):
        return []
    return list(node.values()) if isinstance(node, dict) else list(node) if isinstance(node, list | tuple) else []
