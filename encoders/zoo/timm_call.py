"""The Python call that loads an exported weight file with timm alone."""

from pathlib import Path

from encoders.runtime.json_types import Json
from encoders.zoo import backbone
from encoders.zoo.card import Card


def timm_call(card: Card, file: Path) -> str:
    """`timm.create_model(...)` with the arguments of the card's network and its weight file."""
    p = card.preprocess
    args: dict[str, Json] = {"num_classes": 0, "in_chans": p.channels, **card.model_args}
    if backbone.has_fixed_size(card.arch):
        args.setdefault("img_size", p.size)
    options = ", ".join(f"{key}={value!r}" for key, value in args.items())
    return f"timm.create_model({card.arch!r}, {options}, checkpoint_path={str(file)!r})"
