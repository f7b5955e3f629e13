"""The families of published encoders, as data: encoders/zoo/families.yaml, validated."""

from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import Field

from encoders.runtime.config import Config, validate_config
from encoders.runtime.errors import unknown_name_error
from encoders.zoo.card import PositionRule

PooledFeature = Literal["cls", "mean", "cls+mean", "map"]


class NetworkPath(Config):
    """One network that a file of the family may hold."""

    role: str
    path: str = Field(description="expression for PLACE:NAME; what it matches is removed from the names")


class TensorLayout(Config):
    """How a source names the tensors of a network, and which networks of timm have them."""

    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    drop: dict[str, str] = Field({})
    rename: tuple[tuple[str, str], ...] = ()
    steps: tuple[str, ...] = ()
    by_order: bool = False
    network: str | tuple[str, ...] = Field(description="a rule of network_shapes.py, or candidate networks of timm")
    args: dict[str, Any] = Field({})


class EncoderFamily(Config):
    """The files of one source."""

    title: str
    source: str
    licence: str
    access: str
    evidence: Literal["V", "R"] = Field(description="V: equal to the source's module in the tests; R: read in the source")
    by_name: bool = False
    networks: tuple[NetworkPath, ...]
    requires: tuple[str, ...] = ()
    shape: dict[str, tuple[int, int]] = Field(
        {}, description="last two sides of tensors; without --family, files of other sides are not of it"
    )
    layouts: tuple[str, ...] = ()
    args: dict[str, dict[str, Any]] = Field({}, description="arguments by the rule of the layout, e.g. {vit: {num_heads: 12}}")
    pixels: dict[str, Any] = Field({})
    pixels_at: str | None = Field(None, description="place in the file of a mean and std, which replace those of `pixels`")
    modality: str | None = None
    feature: PooledFeature | None = None
    position_resampling: PositionRule = "timm"
    note: str | None = None


class RefusedFamily(Config):
    """Files whose network timm does not have, and why."""

    title: str
    has: tuple[str, ...] = ()
    shape: dict[str, tuple[int, int]] = Field({})
    reason: str


class FamilyBook(Config):
    """The content of families.yaml."""

    layouts: dict[str, TensorLayout]
    pixels_of_imagenet: dict[str, Any]
    families: dict[str, EncoderFamily]
    refused: dict[str, RefusedFamily]


@cache
def family_book() -> FamilyBook:
    """The families that are known."""
    path = files("encoders.zoo") / "families.yaml"
    return validate_config(FamilyBook, yaml.safe_load(path.read_text()), "families.yaml")


def find_family(name: str) -> EncoderFamily:
    """The family of that name. Raises InputError with the nearest names."""
    known = family_book().families
    if name not in known:
        raise unknown_name_error("family", name, known, "`encoders families` lists them.")
    return known[name]
