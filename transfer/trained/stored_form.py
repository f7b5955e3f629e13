"""How the images of a task were stored: what a head remembers, so that files which were never ingested are prepared in the same way."""

import math
from typing import Any, get_args

from encoders.ingest.options import HairMethod, ResizeRule, StainMethod
from encoders.store.part import StorePart
from encoders.store.store import Store, read_unit_map
from encoders.zoo.head_card import StoredImages
from transfer.trained.slide_input import describe_tiling

FULL_RANGE = 65535.0


def describe_stored_images(store: Store) -> tuple[StoredImages, ...]:
    """How the images of each file of a store were stored, equal ones once."""
    forms: list[StoredImages] = []
    for part in store.parts:
        form = _describe_part(part)
        forms += [] if form in forms else [form]
    return tuple(forms)


def _describe_part(part: StorePart) -> StoredImages:
    geometry: dict[str, Any] = part.attrs.get("geometry") or {}
    recipe: dict[str, Any] = part.attrs.get("recipe") or {}
    offset, scale = read_unit_map(part)
    rule = geometry.get("resize") if geometry.get("resize") in get_args(ResizeRule) else "none"
    size = geometry.get("size") or [0]
    window, borders = recipe.get("window"), recipe.get("crop_borders")
    return StoredImages(
        command=str(recipe.get("command", "unknown")),
        channels=3 if part.attrs["channels"] == 3 else 1,
        dtype="uint16" if part.dtype.name == "uint16" else "uint8",
        codec="jpeg" if part.codec == "jpeg" else "raw",
        scale=scale,
        offset=offset,
        size=0 if rule == "none" else int(size[0]),
        resize=rule or "none",
        bits=recipe.get("bits") or _count_bits(part, scale),
        normalise=geometry.get("normalise") if geometry.get("normalise") in get_args(StainMethod) else None,
        remove_hair=geometry.get("remove_hair") if geometry.get("remove_hair") in get_args(HairMethod) else None,
        voi=recipe.get("voi") or "auto",
        window=window if isinstance(window, dict) else None,
        crop_borders=bool(borders),
        tiling=describe_tiling(recipe),
    )


def _count_bits(part: StorePart, scale: float) -> int | None:
    """The bits that 16-bit files were declared to use; None: all, or the files have 8."""
    return round(math.log2(scale + 1)) if part.dtype.name == "uint16" and scale != FULL_RANGE else None
