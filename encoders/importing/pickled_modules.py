"""State dicts of pickled `torch.nn.Module` objects, found in their records."""

from torch import Tensor

from encoders.importing.inert_record import InertRecord, UnreadableCheckpoint
from encoders.importing.limits import MAX_DEPTH, MAX_PLACES, check_limit
from encoders.importing.rebuild_tensors import UNSUPPORTED_TENSORS

_MODULE_ATTRIBUTES = ("_parameters", "_buffers", "_modules")


def is_module(value: object) -> bool:
    """Whether a value is the record of a `torch.nn.Module`."""
    return isinstance(value, InertRecord) and isinstance(value.state, dict) and all(key in value.state for key in _MODULE_ATTRIBUTES)


def module_entries(module: InertRecord) -> dict[str, object]:
    """The parameters and persistent buffers of a pickled module under the names of its `state_dict()`, in its order.

    Raises UnreadableCheckpoint for a module that contains itself."""
    entries: dict[str, object] = {}
    pending: list[tuple[str, InertRecord, int]] = [("", module, 0)]
    visited = 0
    while pending:
        prefix, record, depth = pending.pop()
        visited += 1
        check_limit(depth, MAX_DEPTH, f"its modules are nested {depth} levels deep")
        check_limit(visited, MAX_PLACES, f"it has {visited:,} modules")
        fields = record.fields()
        hidden = fields.get("_non_persistent_buffers_set")
        skipped = {name for name in hidden if isinstance(name, str)} if isinstance(hidden, list) else set()
        for kind in ("_parameters", "_buffers"):
            for name, value in _named_values(fields.get(kind)):
                if value is not None and not (kind == "_buffers" and name in skipped):
                    entries[prefix + name] = value
        children = [(f"{prefix}{name}.", child, depth + 1) for name, child in _named_values(fields.get("_modules"))]
        pending.extend((p, c, d) for p, c, d in reversed(children) if isinstance(c, InertRecord))
    return entries


def _named_values(table: object) -> list[tuple[str, object]]:
    if not isinstance(table, dict):
        raise UnreadableCheckpoint("a module of it has no table of parameters, buffers or modules")
    return [(name, value) for name, value in table.items() if isinstance(name, str)]


def is_state_dict(value: object) -> bool:
    """Whether a value is a dict of names and, among others, tensors."""
    return isinstance(value, dict) and any(map(is_stored_tensor, value.values())) and all(isinstance(key, str) for key in value)


def is_stored_tensor(value: object) -> bool:
    """Whether a value is a tensor, or the record of one that cannot be read, e.g. of a quantised one."""
    return isinstance(value, Tensor) or (isinstance(value, InertRecord) and value.name in UNSUPPORTED_TENSORS)
