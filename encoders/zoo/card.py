"""What must be known about a set of weights before a number made with them can be believed: one card for each."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from encoders.runtime.config import Config, read_yaml, validate_config
from encoders.runtime.files import atomic_write


class Preprocess(Config):
    """How an image in [0, 1] becomes the model's input. The store maps its own unit to [0, 1]; nothing else may stand between."""

    size: int = Field(224, ge=8, description="side of the model's input, pixels")
    resize: Literal["crop", "pad", "squash"] = Field(
        "crop",
        description="crop: shorter side to `size`, centre kept; pad: longer side to `size`, black around; squash: both sides to `size`",
    )
    interpolation: Literal["bilinear", "bicubic"] = Field("bicubic", description="antialiased when shrinking")
    crop_pct: float = Field(1.0, gt=0.5, le=1.0, description="with crop: the share of the shorter side that is kept")
    channels: Literal[1, 3] = Field(3, description="input channels of the model; gray images are replicated to 3, colour weighed to 1")
    mean: tuple[float, ...] = Field((0.5, 0.5, 0.5), description="subtracted, one number a channel, on [0, 1]")
    std: tuple[float, ...] = Field((0.25, 0.25, 0.25), description="divided by, one number a channel, on [0, 1]")

    @model_validator(mode="after")
    def _one_number_a_channel(self) -> "Preprocess":
        if not len(self.mean) == len(self.std) == self.channels:
            raise ValueError(f"mean has {len(self.mean)} and std {len(self.std)} numbers, expected {self.channels}, one for each channel")
        if min(self.std) <= 0:
            raise ValueError(f"std is {list(self.std)}, expected numbers above 0")
        return self


class Card(Config):
    """One set of weights: the network, its input, where it came from, and what it must answer."""

    name: str
    arch: str = Field(description="timm name of the network")
    model_args: dict[str, Any] = Field({}, description="part of the network, e.g. {pad_type: same} or {global_pool: avg}")
    dim: int = Field(gt=0, description="width D of the pooled features")
    preprocess: Preprocess
    modality: str | None = Field(None, description="cxr, histology, ...; null where it was made for none")
    method: str | None = Field(None, description="moco, mae, supervised, random, ...")
    steps: int | None = Field(None, description="optimizer steps of its pretraining")
    config: dict[str, Any] | None = Field(None, description="resolved recipe of its pretraining")
    lineage: dict[str, Any] = Field({}, description="what it started from, and how it was made")
    corpus: dict[str, Any] | None = Field(None, description="geometry, unit, fingerprints and data set of what it was trained on")
    licence: str = "unknown"
    sha256: str | None = Field(None, description="of model.safetensors, 64 hex digits")
    versions: dict[str, str] = Field({}, description="of the libraries that made it")
    canary: list[float] | None = Field(None, description="its answer to the built-in images (encoders/canary.py), CPU, float32")
    source: str | None = Field(None, description="how the weights are had: a hub id, `random`, a file's name")
    probe_history: list[dict[str, Any]] = Field([], description="online k-NN or probe scores during pretraining")

    @classmethod
    def read(cls, path: str | Path) -> "Card":
        """The card in a YAML file. Raises InputError when it is missing, malformed, or lacks a key."""
        return validate_config(cls, read_yaml(path), str(path))

    def write(self, path: str | Path) -> None:
        """Writes the card as YAML, atomically; what is not known is left out."""
        with atomic_write(path) as part:
            part.write_text(self.text())

    def text(self) -> str:
        """The card as YAML, short lists on one line."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False, width=120, default_flow_style=None)

    def changed(self, **fields: Any) -> "Card":
        """A copy with other values, checked again."""
        return validate_config(Card, {**self.model_dump(), **fields}, f"card {self.name}")
