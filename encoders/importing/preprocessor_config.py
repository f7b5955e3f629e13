"""The input that a description of timm or transformers states: side, resizing, channels, mean and std."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from encoders.runtime.errors import InputError
from encoders.runtime.json_types import Json

RESAMPLING: dict[object, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic", "bilinear": "bilinear", "bicubic": "bicubic"}
RESIZE_OF_TIMM: dict[object, Literal["crop", "squash", "pad"]] = {"center": "crop", "squash": "squash", "border": "pad"}
RESIZE_OF_OPEN_CLIP: dict[object, Literal["crop", "squash", "pad"]] = {"shortest": "crop", "squash": "squash", "longest": "pad"}
# Processors whose `size` was a number before it was a mapping: the shorter side; all others resized both sides.
SHORTEST_EDGE = ("CLIP", "Bit", "ConvNext", "Deit", "Chinese", "LeViT", "Levit", "PoolFormer", "Poolformer", "RegNet")


@dataclass(frozen=True)
class InputDescription:
    """Fields of `encoders.zoo.card.Preprocess`; None: not stated."""

    size: int | None = None
    resize: Literal["crop", "squash", "pad"] | None = None
    interpolation: Literal["bilinear", "bicubic"] | None = None
    crop_pct: float | None = None
    channels: int | None = None
    value_range: tuple[float, float] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def stated(self) -> dict[str, Json]:
        """The fields that are stated."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}


def read_timm_input(record: Mapping[str, Any], channels: int | None) -> tuple[InputDescription, tuple[str, ...]]:
    """The input in timm's `pretrained_cfg` (or open_clip's `preprocess_cfg`), and what a card cannot state."""
    size, notes = record.get("input_size", record.get("size")), []
    if isinstance(size, list | tuple) and len(size) == 3:
        channels, size = channels or size[0], list(size[1:])
    side = _square(size, "input_size")
    given = record.get("interpolation")
    interpolation = RESAMPLING.get(given)
    if given is not None and interpolation is None:
        notes.append(f"interpolation {given!r} is not one of bilinear and bicubic; pass --interpolation")
    mode, open_clip = record.get("crop_mode"), record.get("resize_mode")
    resize = RESIZE_OF_TIMM.get(mode) if mode else RESIZE_OF_OPEN_CLIP.get(open_clip)
    if (mode or open_clip) and resize is None:
        notes.append(f"resizing {mode or open_clip!r} is not known; pass --resize")
    mean, std = _numbers(record.get("mean")), _numbers(record.get("std"))
    fraction = record.get("crop_pct")
    crop = float(fraction) if isinstance(fraction, int | float) and side is not None else None
    if crop is not None and not 0.5 < crop <= 1:
        notes.append(f"crop_pct {crop:g} is not above 0.5 and at most 1; pass --crop-pct")
        crop = None
    return InputDescription(side, resize, interpolation, crop, channels, None, mean, std), tuple(notes)


def read_preprocessor(config: object, file: Path) -> tuple[InputDescription, tuple[str, ...]]:
    """The input in transformers' preprocessor_config.json, and what a card cannot state.

    Raises InputError for a file of another form, and for images that are not made square."""
    if not isinstance(config, dict):
        raise InputError(f"{file} holds no mapping, so it describes no input")
    notes: list[str] = []
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    crop = _crop_side(config.get("crop_size"), file) if config.get("do_center_crop") else None
    size, resize, crop_pct = _read_size(config, kind, crop, file, notes)
    if not config.get("do_resize", True):
        raise InputError(f"{file}: images are not resized (do_resize is false), so the input has no fixed size; pass --size and --resize")
    resample = config.get("resample", 2)
    interpolation = RESAMPLING.get(resample)
    if interpolation is None:
        notes.append(f"resample {resample} is not one of 2 (bilinear) and 3 (bicubic); pass --interpolation")
    value_range, mean, std = _read_values(config, file)
    channels = len(mean) if mean is not None and len(mean) in (1, 3) else None
    return InputDescription(size, resize, interpolation, crop_pct, channels, value_range, mean, std), tuple(notes)


def crop_fraction(size: int, target: int) -> float:
    """The crop_pct with which a shorter side of `target` pixels is cropped to `size`, exact when it is divided again."""
    fraction = size / target
    while int(size / fraction) < target:
        fraction = math.nextafter(fraction, 0)
    return fraction


def _read_size(
    config: Mapping[str, Any], kind: str, crop: int | None, file: Path, notes: list[str]
) -> tuple[int, Literal["crop", "squash"], float]:
    size = config.get("size")
    if isinstance(size, int | float):
        shortest = crop is not None or kind.startswith(SHORTEST_EDGE)
        size = {"shortest_edge": int(size)} if shortest else {"height": int(size), "width": int(size)}
    if not isinstance(size, dict):
        raise InputError(f"{file} states the size {size!r}, expected a number, shortest_edge, or height and width")
    if "shortest_edge" in size and "longest_edge" not in size:
        target = int(size["shortest_edge"])
        if kind.startswith("ConvNext") and crop is None:  # resizes to size / crop_pct and crops, below 384 pixels
            fraction = float(config.get("crop_pct") or 224 / 256)
            return (target, "crop", fraction) if target < 384 else (target, "squash", 1.0)
        if crop is None:
            notes.append("the source does not crop images that are not square; here their centre is cropped")
            return target, "crop", 1.0
        if crop > target or crop <= target / 2:
            raise InputError(f"{file}: a crop of {crop} pixels from a shorter side of {target} cannot be stated on a card; pass --size")
        return crop, "crop", crop_fraction(crop, target)
    side = _square([size.get("height"), size.get("width")], f"size in {file}")
    if side is None:
        raise InputError(f"{file} states the size {size}, expected shortest_edge, or height and width; pass --size and --resize")
    if crop is not None and crop != side:
        if crop > side or crop <= side / 2:
            raise InputError(f"{file}: a crop of {crop} pixels from {side} x {side} cannot be stated on a card; pass --size and --resize")
        raise InputError(f"{file}: both sides are resized to {side}, then cropped to {crop}, which a card cannot state; pass --size")
    return side, "squash", 1.0


def _read_values(
    config: Mapping[str, Any], file: Path
) -> tuple[tuple[float, float] | None, tuple[float, ...] | None, tuple[float, ...] | None]:
    """Value range, mean and std. Pixels are 0 to 255 before `rescale_factor`."""
    factor = float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0
    white = factor * 255
    offset = -1.0 if config.get("rescale_offset") else 0.0
    value_range = None if abs(white - 1) < 1e-6 and not offset else (offset, white + offset)
    if not config.get("do_normalize", True):
        return value_range, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    mean, std = _numbers(config.get("image_mean")), _numbers(config.get("image_std"))
    if mean is None or std is None or len(mean) != len(std):
        raise InputError(f"{file} states image_mean {config.get('image_mean')} and image_std {config.get('image_std')}, expected numbers")
    return value_range, mean, std


def _crop_side(value: object, file: Path) -> int:
    side = _square([value.get("height"), value.get("width")] if isinstance(value, dict) else value, f"crop_size in {file}")
    if side is None:
        raise InputError(f"{file} states the crop {value!r}, expected a number, or height and width")
    return side


def _square(value: object, what: str) -> int | None:
    """The side; None if it is not stated. Raises InputError for sides that differ."""
    if isinstance(value, list | tuple) and len(value) == 2:
        if value[0] != value[1]:
            raise InputError(f"{what} is {list(value)}; only square inputs are supported")
        value = value[0]
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _numbers(value: object) -> tuple[float, ...] | None:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (float(value),)
    if isinstance(value, list | tuple) and value and all(isinstance(v, int | float) for v in value):
        return tuple(float(v) for v in value)
    return None
