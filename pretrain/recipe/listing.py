"""What `pretrain methods` and `pretrain settings` print, from a file: the methods and augmentations themselves import torch, which takes
seconds. `make tables` writes `listing.json`; a test compares it with the code.
"""

import json
import sys
from pathlib import Path
from typing import NamedTuple, TypedDict

LISTING = Path(__file__).with_name("listing.json")


class SettingRow(NamedTuple):
    """A setting as it is listed."""

    key: str
    default: str
    text: str


class ListedMethod(TypedDict):
    """A method as it is listed."""

    summary: str
    traits: list[list[str]]  # label and text
    settings: list[list[str]]  # of `SettingRow`


class Listing(TypedDict):
    """The methods by name, and the settings of a recipe that are no method's."""

    methods: dict[str, ListedMethod]
    settings: list[list[str]]


def read_listing() -> Listing:
    """The listing of the shipped methods; built anew if methods are loaded, as a program may have added its own."""
    if "pretrain.methods" in sys.modules:
        return build_listing()
    listing: Listing = json.loads(LISTING.read_text(encoding="utf-8"))
    return listing


def build_listing() -> Listing:
    """The listing from the code."""
    from encoders.augment.config import Augment
    from pretrain.methods import METHODS
    from pretrain.recipe.auxiliary_config import AuxiliaryTarget
    from pretrain.recipe.config import describe_settings

    settings = [*describe_settings(), *describe_settings(Augment, "augment."), *describe_settings(AuxiliaryTarget, "auxiliary.NAME.")]
    return {
        "methods": {
            name: {
                "summary": method.summary,
                "traits": [list(row) for row in method.traits.rows()],
                "settings": [list(row) for row in describe_settings(method.Config, "method.")],
            }
            for name, method in METHODS.items()
        },
        "settings": [list(row) for row in settings],
    }


def format_listing(listing: Listing) -> str:
    """The text of the file."""
    return json.dumps(listing, indent=1, ensure_ascii=False) + "\n"
