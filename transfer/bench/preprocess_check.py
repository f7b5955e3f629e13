"""Warnings about differences between an encoder's pretraining images and a task's images that make a comparison unfair.

The store maps stored values to [0, 1], and the card maps [0, 1] to the model's input. If the two stores differ in unit, geometry, stain or
modality, the encoder receives other values than in pretraining. See docs/architecture.md, Preprocessing.
"""

from collections.abc import Mapping
from typing import Any

from encoders.zoo.card import Card


def list_preprocess_mismatches(card: Card, modality: str | None, attrs: Mapping[str, Any]) -> list[str]:
    """What differs between the images that an encoder was pretrained on and those of a task's store."""
    said = []
    if card.modality and modality and card.modality != modality:
        said.append(f"{card.name} was pretrained on {card.modality}, the task is {modality}")
    corpus = card.corpus or {}
    if corpus.get("unit") is not None and not same_unit(corpus["unit"], attrs.get("unit")):
        said.append(
            f"{card.name} saw intensities as {describe_unit(corpus['unit'])}, the task's store has {describe_unit(attrs.get('unit'))}"
        )
    theirs, ours = _as_mapping(corpus.get("geometry")), _as_mapping(attrs.get("geometry"))
    stained = [g.get("normalise", "as it is") for g in (theirs, ours)]
    if theirs and ours and stained[0] != stained[1]:
        said.append(f"{card.name} was pretrained with stain {stained[0]}, the task's store has stain {stained[1]}")
    for key in ("resize", "mpp"):
        a, b = theirs.get(key), ours.get(key)
        if a is not None and b is not None and not nearly_equal(a, b):
            said.append(f"{card.name} was pretrained with {key} {a}, the task's store has {key} {b}")
    return said


def same_unit(a: Any, b: Any) -> bool:
    """Whether two unit attributes mean the same: scale, offset, and what 0 and 1 stand for."""
    one, other = _as_mapping(a), _as_mapping(b)
    if not one or not other:
        return a == b
    # Depth alone (255 or 65535) is no difference: both end up in [0, 1]. What 0 and 1 mean is.
    return one.get("meaning") == other.get("meaning")


def nearly_equal(a: Any, b: Any) -> bool:
    """Equal, or numbers within 10 % (0.25 and 0.2529 micrometres a pixel are the same magnification)."""
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b) <= 0.1 * max(abs(a), abs(b))
    return a == b


def describe_unit(unit: Any) -> str:
    found = _as_mapping(unit)
    return str(found.get("meaning") or found or unit)


def _as_mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
