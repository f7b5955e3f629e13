"""Errors of a damaged HDF5 file, of its text and of its JSON as one sentence that names the file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from encoders.runtime.errors import InputError

# What h5py, NumPy and json raise for files whose bytes were changed. KeyError: an object is missing.
DAMAGE = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError, OverflowError, MemoryError, SystemError)


@contextmanager
def reading_hdf5(path: Path, what: str = "") -> Iterator[None]:
    """Raises InputError for any error inside the block that a missing, damaged or foreign file causes.  what: is read, as `index/key`."""
    place = f" in {what}" if what else ""
    try:
        yield
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"there is no store at {path}; `encoders ingest --help` shows how to create one") from None
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        raise InputError(f"{path} is not a readable store: {describe_damage(error)}{place}; copy it again, or ingest again") from error


def describe_damage(error: BaseException) -> str:
    """What is wrong with the file, in a few words."""
    if isinstance(error, KeyError):
        return f"it has no {error.args[0] if error.args else 'such object'}"
    if isinstance(error, OSError):
        return "not an HDF5 file, or cut off or damaged while it was copied"
    if isinstance(error, MemoryError):
        return "a size is larger than the memory"
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return f"damaged ({type(error).__name__}{f': {first}' if first else ''})"
