"""Limits of the reader of checkpoints: a file beyond one of them is refused, whatever it claims about itself."""

from encoders.importing.inert_record import UnreadableCheckpoint

MAX_OPCODES = 10_000_000  # of one pickle; a state dict needs about 40 per tensor
MAX_VALUE_BYTES = 2**30  # of one string, bytes object or line of a pickle
MAX_INT_BYTES = 1024  # of one integer, 2,466 decimal digits
MAX_DEPTH = 200  # containers and objects within each other
MAX_NODES = 10_000_000  # values in the content, a value that is referred to twice counted twice
MAX_PLACES = 1_000_000  # containers visited in the search for state dicts
MAX_ZIP_RATIO = 100  # uncompressed bytes per byte of an archive
MAX_VIEW_RATIO = 16  # bytes of all tensors per byte of all storages
SMALL_BYTES = 64 * 2**20  # up to here the two ratios do not count
MAX_DIMENSIONS = 64


def check_limit(value: float, limit: int, what: str) -> None:
    """Raises UnreadableCheckpoint, which states the limit, if `value` exceeds it."""
    if value > limit:
        raise UnreadableCheckpoint(f"{what}, and the limit of the reader is {limit:,}")
