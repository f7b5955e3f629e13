"""Names of encoders: `BASE`, `BASE:key=value,...` for variants, `runs/X@step`, and names made of several.

A variant has its own card and hash: `imagenet_resnet18:size=64`, `random_vit_tiny_patch16_224:seed=3,channels=1,model.depth=6`. The
option `stages=2/3/4` selects the stages of the network whose features are used, and works for every encoder.

`A+B` is made of the encoders A and B, whose features are concatenated. `A~statistics=B` is A with the running statistics of B, and
`A~weights=B` is A with the weights of B; see `recombine`. `+` separates more strongly than `~`, and `~` more strongly than the colon.
"""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, cast

import yaml

from encoders.runtime.errors import InputError, unknown_name_error
from encoders.runtime.json_types import Json
from encoders.runtime.limited_yaml import parse_yaml
from encoders.zoo.card import Preprocess, Stage

BUILTIN_PREFIXES = ("imagenet_", "random_", "timm_")
PREPROCESS_FIELDS = tuple(Preprocess.model_fields)
DEFAULT_PREPROCESS = Preprocess()
PIXELS = "pixels"  # the built-in encoder without weights
STORED_FEATURES = "features"  # source on the card of `features:FOLDER`, see encoders/zoo/stored_features.py
SWAPS = ("statistics", "weights")  # what A~...=B takes from B
EXPONENT_START = re.compile(r"[:,][^,=:]+=[-\d./]*\d[eE]$")  # the end of `model.x=1e`, so that the + of 1e+3 separates no encoders
DECIMAL = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
MAX_NAME_CHARACTERS = 4000
MAX_STAGE_DIGITS = 4
MAX_SEED_DIGITS = 18  # what fits in 64 bits
OPTION_OF_A_NAME = re.compile(r"[\w.]+=")  # `channels=1`, the continuation of `random_resnet18:size=32`


class EncoderName(NamedTuple):
    """A parsed name: the part before the colon, and the options after it."""

    base: str
    seed: int = 0
    preprocess: Mapping[str, Json] = {}
    model_args: Mapping[str, Json] = {}
    stages: tuple[Stage, ...] | None = None

    def __str__(self) -> str:
        """The canonical spelling: options in a fixed order, a seed of 0 left out."""
        options: dict[str, Json] = {"seed": self.seed} if self.seed else {}
        options |= {key: self.preprocess[key] for key in PREPROCESS_FIELDS if key in self.preprocess}
        options |= {f"model.{key}": value for key, value in sorted(self.model_args.items())}
        options |= {"stages": "/".join(map(str, self.stages))} if self.stages else {}
        suffix = ",".join(f"{key}={_format_value(value)}" for key, value in options.items())
        return f"{self.base}:{suffix}" if suffix else self.base


def require_readable(text: str) -> None:
    """Raises InputError for the name of an encoder that is empty, too long, or has characters that cannot be shown."""
    if not text.strip():
        raise InputError("the name of an encoder is empty; `encoders list` shows all names")
    if len(text) > MAX_NAME_CHARACTERS:
        raise InputError(f"the name of an encoder has {len(text):,} characters, at most {MAX_NAME_CHARACTERS:,} are read: {text[:40]!r}...")
    if control := next((char for char in text if unicodedata.category(char) in ("Cc", "Zl", "Zp")), None):
        raise InputError(f"{text!r:.80} is not the name of an encoder: it has the control character {control!r}")


def is_count(text: str) -> bool:
    """Whether a text is a whole number of the digits 0 to 9: Python also reads those of other scripts."""
    return text.isascii() and text.isdecimal()


def split_names(texts: Sequence[str]) -> list[str]:
    """The encoders of repeated options, each of which may name several with commas: ["a,b", "c:size=64,seed=1"] -> a, b, c:size=64,seed=1.

    A part that is `key=value` belongs to the name before it. The path of a file or folder that exists is one name."""
    found: list[str] = []
    for text in texts:
        first = len(found)
        for part in [text] if Path(text).exists() else filter(None, (part.strip() for part in text.split(","))):
            if len(found) > first and OPTION_OF_A_NAME.match(part):
                found[-1] += f",{part}"
            else:
                found.append(part)
    return found


def parse_name(text: str) -> EncoderName:
    """The parts of the name `text`, which is of one network. Raises InputError for an option that is unknown or has no value."""
    bare, stages = split_stages(text)
    base, _, rest = bare.partition(":")
    if ":" in rest:
        raise InputError(f"{text!r} has two colons: the options of an encoder's name are separated by commas, as in {base}:size=128,seed=1")
    seed = 0
    preprocess: dict[str, Json] = {}
    model_args: dict[str, Json] = {}
    for i, option in enumerate(filter(None, rest.split(","))):
        key, equals, value = option.partition("=")
        if not equals and is_count(key) and i == 0:  # random_resnet18:3
            key, value = "seed", key
        elif not equals:
            raise InputError(f"{option!r} in {text!r} is not an option; write key=value, e.g. {base}:size=128")
        if key == "seed":
            seed = _parse_seed(value, text)
        elif key in PREPROCESS_FIELDS:
            preprocess[key] = _parse_numbers(value, option, text) if key in ("mean", "std") else _parse_value(value, option, text)
        elif key.startswith("model."):
            model_args[key.removeprefix("model.")] = _parse_value(value, option, text)
        else:
            known = ["seed", *PREPROCESS_FIELDS, "stages", "model.<argument>"]
            raise unknown_name_error("option of an encoder's name", key, known, f"It is part of {text!r}.")
    return EncoderName(base, seed, preprocess, model_args, stages)


def variant_name(
    base: str,
    preprocess: Mapping[str, Json],
    model_args: Mapping[str, Json],
    seed: int = 0,
    stages: tuple[Stage, ...] | None = None,
) -> str:
    """The name of `base` with these options."""
    return str(EncoderName(base, seed, dict(preprocess), dict(model_args), stages))


def split_parts(text: str, exists: Callable[[str], bool]) -> list[str]:
    """The names that `text` joins with `+`; [text] for a name without it.

    A `+` within the name of something that `exists` (the path of a card, a run) separates nothing, nor does that of a number such as 1e+3.
    Raises InputError for an empty name."""
    words = text.split("+")
    names: list[str] = []
    while words:
        taken = next((n for n in range(len(words), 1, -1) if exists("+".join(words[:n]))), 1)
        name, words = "+".join(words[:taken]), words[taken:]
        while words and words[0][:1].isdecimal() and EXPONENT_START.search(name):
            name, words = f"{name}+{words[0]}", words[1:]
        if not name.strip():
            raise InputError(f"{text!r} joins encoders with +, and the name of one is empty; write A+B")
        names.append(name.strip())
    return names


def split_swap(text: str) -> tuple[str, str, str] | None:
    """(A, what, B) of `A~what=B`; None for a name without `~what=`. Raises InputError if several are given or a name is empty."""
    pattern = re.compile(rf"~({'|'.join(SWAPS)})=")
    found = pattern.search(text)
    if found is None:
        return None
    own, what, other = text[: found.start()], found[1], text[found.end() :]
    if not own or not other or pattern.search(other):
        raise InputError(f"{text!r} is not the name of an encoder; write A~{what}=B with the names of two encoders")
    return own, what, other


def split_stages(text: str) -> tuple[str, tuple[Stage, ...] | None]:
    """The name without its option `stages`, and the stages in ascending order, `pooled` last; None without the option.

    Commas are accepted between the stages. Raises InputError for stages that are no indices."""
    base, _, rest = text.partition(":")
    options = rest.split(",")
    start = next((i for i, option in enumerate(options) if option.startswith("stages=")), None)
    if start is None:
        return text, None
    stop = start + 1
    while stop < len(options) and (is_count(options[stop]) or options[stop] == "pooled"):
        stop += 1
    words = [word for option in options[start:stop] for word in option.removeprefix("stages=").split("/")]
    wrong = [word for word in words if not (is_count(word) and len(word) <= MAX_STAGE_DIGITS) and word != "pooled"]
    if wrong or len(set(words)) < len(words):
        problem = f"{wrong[0]!r:.40} is no stage" if wrong else "a stage is named twice"
        raise InputError(f"{text!r}: {problem}; write the indices of stages from 0, or `pooled`, each once: {base}:stages=2/3/pooled")
    numbers = sorted(int(word) for word in words if word != "pooled")
    kept = ",".join(options[:start] + options[stop:])
    return f"{base}:{kept}" if kept else base, (*numbers, *(("pooled",) if "pooled" in words else ()))


def short_name(text: str) -> str:
    """The name without options, for narrow tables: `imagenet_resnet18`, and `a+b` for `a:size=64+b:size=96`."""
    return "".join(piece.partition(":")[0] for piece in re.split(r"([+~])", text))


def _parse_seed(value: str, text: str) -> int:
    if not is_count(value):
        raise InputError(f"the seed in {text!r} is {value!r}, expected a whole number, 0 or larger")
    if len(value) > MAX_SEED_DIGITS:
        raise InputError(f"the seed in {text!r} has {len(value)} digits, expected at most {MAX_SEED_DIGITS}")
    return int(value)


def _parse_value(value: str, option: str, text: str) -> Json:
    """A YAML value of an option in the name `text`: a number, a word, true, false or a list."""
    try:
        parsed = cast("Json", parse_yaml(value)) if value.strip() else _NOTHING
    except yaml.YAMLError:
        parsed = _NOTHING
    if parsed is _NOTHING:
        raise InputError(f"{option!r} in {text!r} has no value that can be read; write a number, a word, true or false: size=128")
    if isinstance(parsed, int) and not isinstance(parsed, bool) and str(parsed) != value.strip():  # YAML has other bases: 0100 is 64
        raise InputError(f"{option!r} in {text!r} would be read as {parsed:,}; write the number without leading zeros, signs and marks")
    return parsed


_NOTHING: Json = []  # a value of its own, compared by identity


def _parse_numbers(value: str, option: str, text: str) -> tuple[float, ...]:
    """The numbers of a mean or std, separated by slashes as in 0.5 or 0.485/0.456/0.406."""
    parts = value.split("/")
    numbers = tuple(map(float, parts)) if all(map(DECIMAL.fullmatch, parts)) else ()
    if not numbers or not all(map(math.isfinite, numbers)):
        raise InputError(f"{option!r} in {text!r} is no list of numbers; separate them by slashes, as in mean=0.485/0.456/0.406")
    return numbers


def _format_value(value: Json) -> str:
    """The inverse of `_parse_value`."""
    if isinstance(value, tuple | list) and all(isinstance(number, int | float) for number in value):
        return "/".join(f"{number:g}" if round(number, 6) == float(f"{number:g}") else repr(number) for number in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else str(value)
