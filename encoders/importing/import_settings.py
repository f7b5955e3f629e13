"""What is said about a file to import, by options, by a config beside it, or by its family."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from encoders.importing.family_data import PooledFeature
from encoders.zoo.card import InputResize, Interpolation, PositionRule


@dataclass(frozen=True)
class ImportSettings:
    """None: not said, so the file and its family decide."""

    family: str | None = None
    network: str | None = None  # role of the network in the file, e.g. student
    prefix: str | None = None  # PREFIX or PLACE:PREFIX of its tensors
    arch: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    feature: PooledFeature | None = None
    position_resampling: PositionRule | None = None
    size: int | None = None
    channels: int | None = None
    resize: InputResize | None = None
    interpolation: Interpolation | None = None
    crop_pct: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    value_range: tuple[float, float] | None = None
    modality: str | None = None
    licence: str | None = None
    source: str | None = None
    resample: bool = False  # patch kernels and relative positions of another size
    drop: tuple[str, ...] = ()  # expressions for tensors of the network that are left out

    def or_else(self, other: "ImportSettings") -> "ImportSettings":
        """These settings, and where nothing is said those of `other`; arguments of the network are merged."""
        missing = {f.name: getattr(other, f.name) for f in fields(self) if getattr(self, f.name) in (None, (), False)}
        return replace(self, **{**missing, "model_args": {**other.model_args, **self.model_args}})
