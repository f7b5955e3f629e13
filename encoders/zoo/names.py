"""Names of encoders: `BASE`, `BASE:key=value,...` for variants of built-in encoders, `runs/X@step`.

A variant has its own card and hash: `imagenet_resnet18:size=64`, `random_vit_tiny_patch16_224:seed=3,channels=1,model.depth=6`.
"""

from collections.abc import Mapping
from typing import NamedTuple

import yaml

from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.json_types import Json
from encoders.zoo.card import Preprocess

BUILTIN_PREFIXES = ("imagenet_", "random_", "timm_")
PREPROCESS_FIELDS = tuple(Preprocess.model_fields)
DEFAULT_PREPROCESS = Preprocess()


class EncoderName(NamedTuple):
    """A parsed name: the part before the colon, and the options after it."""

    base: str
    seed: int = 0
    preprocess: Mapping[str, Json] = {}
    model_args: Mapping[str, Json] = {}

    def __str__(self) -> str:
        """The canonical spelling: options in a fixed order, a seed of 0 left out."""
        options: dict[str, Json] = {"seed": self.seed} if self.seed else {}
        options |= {key: self.preprocess[key] for key in PREPROCESS_FIELDS if key in self.preprocess}
        options |= {f"model.{key}": value for key, value in sorted(self.model_args.items())}
        suffix = ",".join(f"{key}={_format_value(value)}" for key, value in options.items())
        return f"{self.base}:{suffix}" if suffix else self.base


def parse_name(text: str) -> EncoderName:
    """The parts of the name `text`. Raises InputError for an option that is unknown or has no value."""
    base, _, rest = text.partition(":")
    seed = 0
    preprocess: dict[str, Json] = {}
    model_args: dict[str, Json] = {}
    for option in filter(None, rest.split(",")):
        key, equals, value = option.partition("=")
        if not equals and key.isdigit():  # random_resnet18:3
            key, value = "seed", key
        elif not equals:
            raise InputError(f"{option!r} in {text!r} is not an option; write key=value, e.g. {base}:size=128")
        if key == "seed":
            seed = _parse_seed(value, text)
        elif key in PREPROCESS_FIELDS:
            preprocess[key] = _parse_value(value, key in ("mean", "std"))
        elif key.startswith("model."):
            model_args[key.removeprefix("model.")] = _parse_value(value)
        else:
            known = ["seed", *PREPROCESS_FIELDS, "model.<argument>"]
            raise unknown_name_error("option of an encoder's name", key, known, f"It is part of {text!r}.")
    return EncoderName(base, seed, preprocess, model_args)


def variant_name(base: str, preprocess: Mapping[str, Json], model_args: Mapping[str, Json], seed: int = 0) -> str:
    """The name of `base` with these options."""
    return str(EncoderName(base, seed, dict(preprocess), dict(model_args)))


def short_name(text: str) -> str:
    """The name without its options, for narrow tables: `imagenet_resnet18`."""
    return text.partition(":")[0]


def _parse_seed(value: str, text: str) -> int:
    if not value.isdigit():
        raise InputError(f"the seed in {text!r} is {value!r}, expected a whole number, 0 or larger")
    return int(value)


def _parse_value(value: str, several: bool = False) -> Json:
    """A YAML value.  several: for mean and std, numbers separated by slashes as in 0.5 or 0.485/0.456/0.406."""
    if several:
        return tuple(yaml.safe_load(part) for part in value.split("/"))
    parsed: Json = yaml.safe_load(value)
    return parsed


def _format_value(value: Json) -> str:
    """The inverse of `_parse_value`."""
    if isinstance(value, tuple | list):
        return "/".join(f"{number:g}" if round(number, 6) == float(f"{number:g}") else repr(number) for number in value)
    return {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
