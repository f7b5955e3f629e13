"""Pseudonyms of identifiers, and the secret that keeps others from computing them."""

import hashlib
from pathlib import Path

from encoders.runtime.errors import InputError

PSEUDONYM_DIGITS = 16  # hex, 64 bits: probability 3e-8 that any two of a million patients share a pseudonym
MIN_SALT_CHARACTERS = 16


def pseudonym(dataset: str, value: str, salt: str = "") -> str:
    """16 hex digits for an identifier of this data set; always the same for the same input."""
    return hashlib.sha256(f"{salt}{dataset}:{value}".encode()).hexdigest()[:PSEUDONYM_DIGITS]


def read_salt(path: str | Path | None) -> str:
    """The secret in a file; "" without a file. Raises InputError if it cannot be read or is too short."""
    if path is None:
        return ""
    try:
        salt = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read the salt in {path}: {error}") from error
    if len(salt) < MIN_SALT_CHARACTERS:
        raise InputError(
            f"the salt in {path} has {len(salt)} characters, expected at least {MIN_SALT_CHARACTERS}; create one with "
            f"`openssl rand -hex 32 > {path}`"
        )
    return salt
