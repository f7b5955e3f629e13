"""Damage that a decoder or a checksum reports: the item is quarantined, or with --accept-damaged stored as it is decoded, and counted.

A damaged image that is stored has the words of the decoder in the column `damage`.
"""

from encoders.ingest.source import Remark, Unreadable

DAMAGE_ACCEPTED = "damaged, and stored as decoded (--accept-damaged)"
DAMAGE_COLUMN = "damage"


def report_damage(words: str, accepted: bool, decodable: bool = True) -> Remark:
    """The remark on a damaged image that is stored.  decodable: whether anything of it can be decoded.

    Raises Unreadable with the words of the decoder unless damage is accepted and the image is decodable."""
    if not decodable:
        raise Unreadable(f"is broken: {words}")
    if not accepted:
        raise Unreadable(f"is broken: {words}; pass --accept-damaged to store it as it is decoded")
    return Remark(DAMAGE_ACCEPTED, words)
