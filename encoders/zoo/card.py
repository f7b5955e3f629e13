"""The card of an encoder: everything that defines its weights, its input and its features.

One card per weight file, except for an encoder made of parts: its card holds a complete card for each part.
"""

from pathlib import Path
from typing import Any, Literal, TypeAlias

import yaml
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from encoders.runtime.config import Config, read_yaml, validate_config
from encoders.runtime.errors import InputError
from encoders.runtime.files import atomic_write
from encoders.runtime.sealed_json import DIGEST_KEY, SEAL_DIGITS, digest_plain_json, remove_digest
from encoders.zoo.head_card import Head

MAX_INPUT_SIDE = 16_384  # pixels: larger inputs need more memory than any machine has
InputResize = Literal["crop", "pad", "squash"]
Interpolation = Literal["bilinear", "bicubic"]
Stage: TypeAlias = int | Literal["pooled"]
PositionRule = Literal["timm", "hf", "dino"]
# Left out where they are not set, so that the digest of a card without them stays what it was.
UNUSED_IF_NONE = (
    "stages",
    "parts",
    "position_resampling",
    "value_range",
    "network_canary",
    "pixel_canary",
    "source_check",
    "head",
)
# Not of a card that describes another encoder than the one that was checked, and whose head was calibrated.
NOT_OF_VARIANTS = {"canary": None, "network_canary": None, "pixel_canary": None, "source_check": None, "head": None}


class Preprocess(Config):
    """How an image in [0, 1] becomes the model's input. The store maps its own unit to [0, 1]; no other transform comes between."""

    size: int = Field(224, ge=8, le=MAX_INPUT_SIDE, description="side of the model's input, pixels")
    resize: InputResize = Field(
        "crop",
        description="crop: shorter side to `size`, centre crop; pad: longer side to `size`, black borders; squash: both sides to `size`",
    )
    interpolation: Interpolation = Field("bicubic", description="antialiased when shrinking")
    crop_pct: float = Field(1.0, gt=0.5, le=1.0, description="with crop: the fraction of the shorter side that is kept")
    channels: Literal[1, 3] = Field(3, description="input channels of the model; gray is replicated to 3, colour is reduced to luma for 1")
    value_range: tuple[float, float] | None = Field(
        None, description="values of black and white before mean and std, e.g. [-1024, 1024]; null: [0, 1]"
    )
    mean: tuple[float, ...] = Field((0.5, 0.5, 0.5), description="subtracted, one number per channel, on [0, 1] or the value range")
    std: tuple[float, ...] = Field((0.25, 0.25, 0.25), description="divided by, one number per channel, on [0, 1] or the value range")

    @model_validator(mode="after")
    def _one_number_per_channel(self) -> "Preprocess":
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean has {len(self.mean)} and std {len(self.std)} numbers, expected {self.channels}, one per channel")
        if min(self.std) <= 0:
            raise ValueError(f"std is {list(self.std)}, expected numbers above 0")
        if self.value_range is not None and not self.value_range[0] < self.value_range[1]:
            raise ValueError(f"value_range is {list(self.value_range)}, expected the value of black and a larger one of white")
        return self

    @property
    def unit_mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """mean and std on [0, 1], whatever the value range."""
        black, white = self.value_range or (0.0, 1.0)
        return tuple((m - black) / (white - black) for m in self.mean), tuple(s / (white - black) for s in self.std)

    @model_serializer(mode="wrap")
    def _without_unused_range(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None or key not in UNUSED_IF_NONE}


class SourceCheck(Config):
    """The comparison of an encoder with the module that its weights were trained in, on the same prepared tensors."""

    relative: float = Field(ge=0, description="largest difference of a feature, relative to the largest feature of the source")
    absolute: float = Field(ge=0, description="largest difference of a feature")
    tensors: int = Field(gt=0, description="prepared tensors compared")
    gray_levels: float | None = Field(None, description="largest difference of the prepared pixels, of 255; null: pixels not compared")
    software: str = Field(description="the source's module and libraries, as its answer states them")
    answer_sha256: str = Field(description="of the answer file")


class Card(Config):
    """One set of weights: the network, its preprocessing, its origin, and its expected output for the canary images."""

    name: str
    arch: str = Field(description="timm name of the network; with parts: their names, joined by +")
    model_args: dict[str, Any] = Field({}, description="arguments of the network, e.g. {pad_type: same} or {global_pool: avg}")
    dim: int = Field(gt=0, description="width D of the pooled features")
    preprocess: Preprocess = Field(
        description="with parts: the images in [0, 1] from which fine-tuning makes the input of each part; features use the parts' own"
    )
    stages: tuple[Stage, ...] | None = Field(
        None,
        description="the features are the pooled outputs of these stages, each L2-normalised: timm's indices of feature maps or blocks "
        "from 0, and `pooled` for the network's own pooled features; null: only the latter, not normalised",
    )
    parts: tuple["Card", ...] | None = Field(
        None, description="the encoders whose features, each L2-normalised, are concatenated; null for an encoder of one network"
    )
    position_resampling: PositionRule | None = Field(
        None,
        description="how position embeddings are resampled to another size, always bicubic: timm, antialiased; hf, not antialiased; dino, "
        "not antialiased and by a factor with 0.1 added to the size; null: timm",
    )
    modality: str | None = Field(None, description="cxr, histology, ...; null if the encoder is for any modality")
    method: str | None = Field(None, description="moco, mae, supervised, random, ...")
    steps: int | None = Field(None, description="optimizer steps of its pretraining")
    config: dict[str, Any] | None = Field(None, description="resolved recipe of its pretraining")
    lineage: dict[str, Any] = Field({}, description="the weights it was initialised from, and how it was trained")
    corpus: dict[str, Any] | None = Field(None, description="geometry, unit, fingerprints and data set of its pretraining images")
    licence: str = "unknown"
    sha256: str | None = Field(None, description="of model.safetensors, 64 hex digits")
    versions: dict[str, str] = Field({}, description="library versions that wrote it")
    canary: list[float] | None = Field(None, description="its output for the canary images (encoders/zoo/canary.py), CPU, float32")
    network_canary: list[float] | None = Field(None, description="its output for fixed prepared tensors: of the network alone")
    pixel_canary: list[float] | None = Field(None, description="values of the prepared canary images: of the preprocessing alone")
    source_check: SourceCheck | None = Field(None, description="its comparison with its source; null: never compared")
    source: str | None = Field(None, description="where the weights come from: a hub id, `random`, or a file name")
    probe_history: list[dict[str, Any]] = Field([], description="online k-NN or probe scores during pretraining")
    head: Head | None = Field(None, description="what it predicts, if it was fine-tuned on a task; null: features only")

    @model_validator(mode="after")
    def _parts_are_complete(self) -> "Card":
        if self.parts is not None and (len(self.parts) < 2 or any(part.parts for part in self.parts)):
            raise ValueError("parts are two or more encoders without parts of their own")
        if self.parts is not None and (self.stages or self.dim != sum(part.dim for part in self.parts)):
            raise ValueError("an encoder with parts has the sum of their widths as dim, and no stages of its own")
        if self.stages is not None and (not self.stages or len(set(self.stages)) < len(self.stages)):
            raise ValueError(f"stages are {list(self.stages)}, expected one or more, each once")
        if self.head is not None and self.parts is not None:
            raise ValueError("an encoder with parts has no head")
        return self

    @model_serializer(mode="wrap")
    def _without_unused_keys(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in serialize(self).items() if value is not None or key not in UNUSED_IF_NONE}

    @classmethod
    def read(cls, path: str | Path) -> "Card":
        """The card in a YAML file; timm's spelling `license` is read as `licence`.

        Raises InputError when the file is missing or malformed, lacks a key, or was changed after it was written."""
        raw = read_yaml(path)
        if "license" in raw and "licence" not in raw:
            raw["licence"] = raw.pop("license")
        intact = remove_digest(raw)
        card = validate_config(cls, raw, str(path))
        if intact is False:
            raise InputError(
                f"{path} was changed after it was written (its digest does not match), so its values cannot be believed; undo the change, "
                f"or, if you made it on purpose, remove the line `{DIGEST_KEY}`"
            )
        return card

    def write(self, path: str | Path) -> None:
        """Writes the card as YAML, atomically, without the keys whose value is unknown, and with a digest of all others."""
        with atomic_write(path) as part:
            part.write_text(self.to_yaml())

    def to_yaml(self) -> str:
        """The card as YAML, short lists on one line. The key `digest` shows whether the others were changed, or the end was cut off.

        So it is the first one, before keys that every card has: damage that takes all of it, and more, takes one of these too."""
        content = self.model_dump(mode="json", exclude_none=True)
        digest = {DIGEST_KEY: digest_plain_json(content, SEAL_DIGITS)}
        return yaml.safe_dump(digest | content, sort_keys=False, width=120, default_flow_style=None)

    def replace(self, **fields: object) -> "Card":
        """A validated copy with other values. Raises InputError for a value that a card does not accept."""
        return validate_config(Card, {**self.model_dump(), **fields}, f"card {self.name}")


def list_trained_labels(card: Card) -> list[str]:
    """`pneumonia (positives, 945 images)` for each label that the weights, or those that they start from, were pretrained with."""
    lines = []
    for column in (card.lineage.get("labels") or {}).get("columns", []):
        images = sum(n for what, n in column["images"].items() if what.startswith("labeled"))
        lines.append(f"{column['column']} ({column['role']}, {images:,} images)")
    return [*lines, *card.lineage.get("labels_of_init", [])]
