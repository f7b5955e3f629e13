"""Names that any file system takes: not too long, and in valid Unicode."""

import hashlib
import os

# A file system takes 255 bytes; `atomic_write` adds a suffix, the name of the host (at most 64 bytes) and the process id (7 digits).
MAX_NAME_BYTES = 160
HASH_DIGITS = 12  # of 16: 48 bits, so that a million names have no two equal hashes


def shorten_file_name(name: str) -> str:
    """The name if its UTF-8 has at most MAX_NAME_BYTES, else its beginning with a hash of the whole name.

    Bytes that are not UTF-8 become U+FFFD."""
    raw = os.fsencode(name)
    if len(raw) <= MAX_NAME_BYTES and len(text := to_unicode(name).encode()) <= MAX_NAME_BYTES:
        return text.decode()
    return add_name_hash(name, raw)


def add_name_hash(name: str, content: bytes) -> str:
    """The name, cut between two characters where it is too long, with a hash of `content`."""
    cut = to_unicode(name).encode()[: MAX_NAME_BYTES - HASH_DIGITS - 1].decode(errors="ignore")
    return f"{cut}_{hashlib.sha256(content).hexdigest()[:HASH_DIGITS]}"


def to_unicode(text: str) -> str:
    """The text of a path in valid Unicode: U+FFFD stands for bytes that are not UTF-8, which Python keeps as surrogates."""
    return os.fsencode(text).decode("utf-8", "replace")
