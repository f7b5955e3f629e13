"""The normalisation of pixels that some sources store beside their weights."""

from encoders.importing.checkpoint import Checkpoint
from encoders.importing.inert_record import InertRecord


def read_stored_pixels(checkpoint: Checkpoint, place: str) -> dict[str, tuple[float, ...]]:
    """`mean` and `std` at a place of the file, e.g. `lightly_train/normalize_args`; empty unless both are there as numbers.

    place: keys and names of attributes, separated by `/`; the last may be a dict or an object."""
    node: object = checkpoint.tree
    for key in place.split("/"):
        node = _stored_fields(node).get(key)
    stored = {key: _channel_numbers(_stored_fields(node).get(key)) for key in ("mean", "std")}
    mean, std = stored["mean"], stored["std"]
    return {"mean": mean, "std": std} if mean and std and len(mean) == len(std) else {}


def _stored_fields(node: object) -> dict[str, object]:
    if isinstance(node, InertRecord):
        fields = node.fields()
        inner = fields.get("__dict__")  # of pydantic
        node = inner if isinstance(inner, dict) else fields
    return node if isinstance(node, dict) else {}


def _channel_numbers(value: object) -> tuple[float, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(x, int | float) and not isinstance(x, bool) for x in value):
        return ()
    return tuple(map(float, value))
