"""The names of the methods, for those who need no more: `pretrain.methods` imports torch."""

import sys
from collections.abc import Collection

METHOD_NAMES = (
    "moco",
    "mae",
    "simclr",
    "byol",
    "simsiam",
    "barlowtwins",
    "vicreg",
    "mocov3",
    "dino",
    "dinov2",
    "lejepa",
    "simmim",
    "ijepa",
    "supcon",
    "spark",
)


def known_methods() -> Collection[str]:
    """The names in `METHODS` if that is imported, since a program may have added its own; else those of the shipped methods."""
    loaded = sys.modules.get("pretrain.methods")
    return METHOD_NAMES if loaded is None else list(loaded.METHODS)
