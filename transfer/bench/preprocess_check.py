"""Warnings about differences between an encoder's pretraining images and a task's images that make a comparison unfair.

The store maps stored values to [0, 1], and the card maps [0, 1] to the model's input. If the two stores differ in unit, geometry, stain or
modality, the encoder receives other values than in pretraining. See docs/architecture.md, Preprocessing.
"""

from collections.abc import Mapping
from typing import TypeAlias

from encoders.zoo.card import Card

Attribute: TypeAlias = object  # a value of the attributes of a store: a number, text or a mapping


def list_preprocess_mismatches(card: Card, modality: str | None, attrs: Mapping[str, Attribute]) -> list[str]:
    """Differences between the images that an encoder was pretrained on and those of a task's store."""
    messages = []
    if card.modality and modality and card.modality != modality:
        messages.append(f"{card.name} was pretrained on {card.modality}, the task is {modality}")
    corpus = card.corpus or {}
    if corpus.get("unit") is not None and not same_unit(corpus["unit"], attrs.get("unit")):
        pretrained_on, stored = describe_unit(corpus["unit"]), describe_unit(attrs.get("unit"))
        messages.append(f"{card.name} was pretrained on intensities in {pretrained_on}, the task's store has {stored}")
    pretraining, task = _as_mapping(corpus.get("geometry")), _as_mapping(attrs.get("geometry"))
    stains = [g.get("normalise", "unchanged") for g in (pretraining, task)]
    if pretraining and task and stains[0] != stains[1]:
        messages.append(f"{card.name} was pretrained with stain {stains[0]}, the task's store has stain {stains[1]}")
    hairs = [g.get("remove_hair", "not removed") for g in (pretraining, task)]
    if pretraining and task and hairs[0] != hairs[1]:
        messages.append(f"{card.name} was pretrained on images with hairs {hairs[0]}, the task's store has hairs {hairs[1]}")
    for key in ("resize", "mpp"):
        a, b = pretraining.get(key), task.get(key)
        if a is not None and b is not None and not nearly_equal(a, b):
            messages.append(f"{card.name} was pretrained with {key} {a}, the task's store has {key} {b}")
    return messages


def same_unit(a: Attribute, b: Attribute) -> bool:
    """Whether two unit attributes are equivalent: both map the values of 0 and 1 to the same physical meaning."""
    one, other = _as_mapping(a), _as_mapping(b)
    if not one or not other:
        return bool(a == b)
    # The bit depth alone (255 or 65535) makes no difference, because both are mapped to [0, 1]. The meaning of 0 and 1 does.
    return bool(one.get("meaning") == other.get("meaning"))


def nearly_equal(a: Attribute, b: Attribute) -> bool:
    """Equal, or numbers within 10 % (0.25 and 0.2529 micrometres per pixel are the same magnification)."""
    if isinstance(a, int | float) and isinstance(b, int | float):
        return abs(a - b) <= 0.1 * max(abs(a), abs(b))
    return bool(a == b)


def describe_unit(unit: Attribute) -> str:
    """The meaning of a unit attribute, or the attribute itself when it has none."""
    mapping = _as_mapping(unit)
    return str(mapping.get("meaning") or mapping or unit)


def _as_mapping(value: Attribute) -> Mapping[str, Attribute]:
    return value if isinstance(value, Mapping) else {}
