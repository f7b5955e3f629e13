"""The SHA-256 of files that rarely change, computed once for each state of a file.

A state is known by path, size, inode and the times of change; every write changes one of them. A cache that cannot be written only means
that the file is read again.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write, sha256_file
from encoders.runtime.paths import cache_dir

SHA256_TEXT_DIGITS = 64


def sha256_of_state(path: Path) -> str:
    """The SHA-256 of a file's bytes, from the cache if the file is in a state that was read before. Raises OSError."""
    known = _state_file(path)
    with suppress(OSError, UnicodeDecodeError):
        text = known.read_text()
        if len(text) == 2 * SHA256_TEXT_DIGITS and text[SHA256_TEXT_DIGITS:] == _seal(text[:SHA256_TEXT_DIGITS]):
            return text[:SHA256_TEXT_DIGITS]
    digest = sha256_file(path)
    if _state_file(path) == known:  # it was not changed meanwhile
        with suppress(OSError, InputError), atomic_write(known) as part:
            part.write_text(digest + _seal(digest))
    return digest


def _state_file(path: Path) -> Path:
    """The file of the cache for a state."""
    real = path.resolve()
    facts = os.stat(real)
    state = f"{real} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}"
    return cache_dir() / "sha256" / hashlib.sha256(os.fsencode(state)).hexdigest()[:32]


def _seal(digest: str) -> str:
    """Shows whether the cached text is whole."""
    return hashlib.sha256(digest.encode()).hexdigest()
