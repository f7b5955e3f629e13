"""JSON files whose content has a digest: what was changed after it was written is refused and not believed.

The digest is the entry `digest` of the file. A file without one, of an earlier version, is read as it is.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from encoders.runtime.errors import InputError
from encoders.runtime.files import prepared_text, read_json

DIGEST_KEY = "digest"
SEAL_DIGITS = 32


def write_sealed_json(path: Path, content: Mapping[str, object]) -> None:
    """Writes `content` with its digest, atomically. Raises ValueError for NaN, which is not JSON."""
    plain = {key: value for key, value in content.items() if key != DIGEST_KEY}
    stored = json.loads(json.dumps(plain, sort_keys=True, allow_nan=False))  # as it is read: tuples are lists, keys are texts
    sealed = {DIGEST_KEY: digest_plain_json(stored, SEAL_DIGITS), **stored}  # first, before an entry that every file has
    with prepared_text(path, json.dumps(sealed, indent=1, allow_nan=False) + "\n"):
        pass


def read_sealed_json(path: Path, advice: str, known: Collection[str] | None = None, always: str = "") -> dict[str, Any]:
    """The content of a file without its digest.

    known: the entries that files without a digest can have; None: any. The digest of a file with another entry may have lost its name.
    always: the first entry of every file; a file without it may have lost its digest too.
    Raises InputError, which ends with `advice`, if it is missing, no JSON object, or was changed after it was written."""
    try:
        content = read_json(path)
    except InputError as error:
        raise InputError(f"{error}; {advice}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}, expected a JSON object; {advice}")
    intact = remove_digest(content)
    strange = intact is None and known is not None and (not set(content) <= set(known) or (always and always not in content))
    if strange or intact is False:
        raise InputError(f"{path} was changed after it was written (its digest does not match); {advice}")
    return content


def remove_digest(content: dict[str, Any], digits: int = SEAL_DIGITS) -> bool | None:
    """Removes the entry `digest`: whether it is that of all other entries; None for content without the entry, of an earlier version.

    A digest that is null, empty or no text is that of nothing."""
    return matches_digest(content, content.pop(DIGEST_KEY), digits) if DIGEST_KEY in content else None


def matches_digest(content: object, digest: object, digits: int = SEAL_DIGITS) -> bool:
    """Whether the digest is that of the content; False also for content that has none, such as NaN."""
    with suppress(ValueError, TypeError, RecursionError):
        return digest == digest_plain_json(content, digits)
    return False


def digest_plain_json(value: object, digits: int) -> str:
    """The first hex digits of the SHA-256 of a JSON value: equal values have equal digests. Raises ValueError for NaN."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
