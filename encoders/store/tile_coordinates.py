"""Files with the corners of the tiles of a slide, as CLAM, TRIDENT, STAMP and `encoders embed` write them. What is not stated is unknown.

- CLAM's `coords` (create_patches_fp.py) are level-0 pixels; the attributes are `patch_size` (pixels of `patch_level`) and the `downsample`
  of that level.
- CLAM's older bags hold `imgs` too, whose attributes these are. Their `coords` are pixels of the level, which may have been reduced
  further, by `level_dim` / `downsampled_level_dim` (wsi_core/WholeSlideImage.py, `_getPatchGenerator`).
- TRIDENT's `coords` are level-0 pixels, with `patch_size_level0`, `level0_magnification`, `target_magnification`, `level0_width` and
  `level0_height`.
- STAMP's `coords` are micrometres (attribute `unit`, or `tile_size_um` alone in versions before 2), from the resolution of the slide.

Shapes: N tiles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np

from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.errors import InputError
from encoders.runtime.hdf5_heaps import check_global_heaps
from encoders.runtime.read_errors import READ_ERRORS, describe_reason
from encoders.store.part import StorePart

Pair = tuple[float, float]  # along x and y
LEVEL0_SIDE_COLUMN = "patch_size_level0"  # of /index, with TRIDENT's name: level-0 pixels of the side of a tile, NaN: unknown
MICRON_UNITS = ("um", "\u00b5m", "\u03bcm", "micrometer", "micrometre", "micrometers", "micrometres", "micron", "microns")
SIDE_TOLERANCE = 0.01  # relative; two statements of one size differ by less, as magnifications and downsamples are rounded


@dataclass(frozen=True)
class TileScale:
    """What the attributes of a file state about its tiles; None: nothing.

    side: level-0 pixels of a tile.  patch_size: pixels of `level`.  level: of the slide, from which tiles were read.
    dimensions: of the slide at level 0.  factor: level-0 pixels per unit of the coordinates; None: not pixels."""

    side: Pair | None
    patch_size: float | None
    level: int | None
    dimensions: Pair | None
    factor: Pair | None
    microns: bool = False  # the coordinates are micrometres
    side_um: float | None = None  # micrometres of a tile

    @property
    def square_side(self) -> float:
        """The level-0 side of a square tile, in whole pixels; NaN if it is not stated, or if its two sides differ."""
        if self.side is None or round(self.side[0]) != round(self.side[1]):
            return float("nan")
        return float(round(self.side[0]))

    def side_on(self, downsamples: Sequence[float]) -> Pair | None:
        """The level-0 side of a tile, for a slide with these levels: some files name the level only.

        Raises InputError if it has no such level."""
        if self.side or self.patch_size is None or self.level is None:
            return self.side
        if self.level >= len(downsamples):
            raise InputError(f"patch_level is {self.level}, and the slide has {len(downsamples)} levels")
        return self.patch_size * downsamples[self.level], self.patch_size * downsamples[self.level]


def slide_mpp(part: StorePart) -> Pair | None:
    """Micrometres per level-0 pixel of the slide of a store, along x and y; None if the store does not know them."""
    facts = part.attrs.get("slide")
    if not isinstance(facts, dict) or "mpp" not in facts:
        return None
    return float(facts["mpp"][0]), float(facts["mpp"][1])


def read_scale(file: h5py.File, coords: str = "coords", pixels: int | None = None) -> TileScale:
    """What the attributes of the file, of its images and of the coordinates state.

    pixels: side of the images in the file, if it has any.  Raises InputError for sizes that contradict each other."""
    attributes: dict[str, object] = {**file.attrs}
    older = False
    for name in ("imgs", "features", coords):
        if name in file:
            own = {**file[name].attrs}
            older = "patch_level" in own if name == "imgs" else older and "patch_level" not in own
            attributes |= own
    level, downsample = single_number(attributes, "patch_level"), number_pair(attributes, "downsample")
    reduced = reduction(attributes)
    patch_size = single_number(attributes, "patch_size") or (float(pixels) if pixels and level is not None else None)
    if downsample is None and level == 0:
        downsample = 1.0, 1.0
    sides = []
    if (own_side := number_pair(attributes, "patch_size_level0")) is not None:
        sides.append(own_side)
    if patch_size and downsample and level is not None:
        sides.append((patch_size * downsample[0] * reduced[0], patch_size * downsample[1] * reduced[1]))
    have, want = (single_number(attributes, f"{name}_magnification") for name in ("level0", "target"))
    if patch_size and have and want and not sides:
        sides.append((patch_size * have / want, patch_size * have / want))
    if len(sides) == 2 and any(abs(a / b - 1) > SIDE_TOLERANCE for a, b in zip(*sides, strict=True)):
        both = f"patch_size_level0 is {sides[0][0]:g}, and patch_size and downsample give {sides[1][0]:g}"
        raise InputError(f"its attributes contradict each other: {both}")
    width, height = (single_number(attributes, f"level0_{name}") for name in ("width", "height"))
    dimensions = (width, height) if width and height else None
    level_dim = number_pair(attributes, "level_dim")
    if dimensions is None and level_dim and downsample:
        dimensions = level_dim[0] * downsample[0], level_dim[1] * downsample[1]
    factor: Pair | None = (1.0, 1.0)
    unit = str(attributes.get("unit", "")).lower()
    microns = unit in MICRON_UNITS or (not unit and "tile_size_um" in attributes)
    if microns or unit not in ("", "px", "pixel", "pixels"):
        factor = None
    elif older and not exceeds_level(file, coords, attributes):
        factor = (downsample[0] * reduced[0], downsample[1] * reduced[1]) if downsample else None
    side_um = (single_number(attributes, "tile_size_um") or single_number(attributes, "tile_size") or None) if microns else None
    side = sides[0] if sides else None
    return TileScale(side, patch_size, None if level is None else int(level), dimensions, factor, microns, side_um)


def exceeds_level(file: h5py.File, coords: str, attributes: Mapping[str, object]) -> bool:
    """Whether coordinates are larger than the level of their tiles, so that they are level-0 pixels in spite of CLAM's older layout."""
    size = number_pair(attributes, "downsampled_level_dim") or number_pair(attributes, "level_dim")
    if size is None or coords not in file or not len(file[coords]):
        return False
    return bool((np.asarray(file[coords]).reshape(-1, file[coords].shape[-1])[:, :2].max(axis=0) >= size).any())


def reduction(attributes: Mapping[str, object]) -> Pair:
    """How many times tiles of CLAM were reduced after they were read."""
    whole, reduced = number_pair(attributes, "level_dim"), number_pair(attributes, "downsampled_level_dim")
    if whole is None or reduced is None:
        return 1.0, 1.0
    return float(max(1, round(whole[0] / reduced[0]))), float(max(1, round(whole[1] / reduced[1])))


def number_pair(attributes: Mapping[str, object], name: str) -> Pair | None:
    """Two positive numbers, or one for both axes; None if the attribute is missing, or -1 for unknown."""
    try:
        values = np.asarray(attributes[name], np.float64).reshape(-1)
    except (KeyError, ValueError, TypeError):
        return None
    if len(values) not in (1, 2) or not np.isfinite(values).all() or not (values > 0).all():
        return None
    return float(values[0]), float(values[-1])


def single_number(attributes: Mapping[str, object], name: str) -> float | None:
    """A number that is not negative; None if the attribute is missing."""
    try:
        value = float(np.asarray(attributes[name], np.float64).reshape(-1)[0])
    except (KeyError, ValueError, TypeError, IndexError):
        return None
    return value if np.isfinite(value) and value >= 0 else None


def read_corners(data: Array, factor: Pair, whole: bool = True) -> Array:
    """(N, 2) int64: x, y of the tiles in level-0 pixels.  factor: level-0 pixels per unit.

    Raises InputError for another shape, and if `whole`, for numbers that are not whole."""
    values = np.asarray(data)
    values = values[0] if values.ndim == 3 and len(values) == 1 else values  # (1, N, 2) of a batch of one slide
    if values.ndim != 2 or values.shape[1] != 2 or values.dtype.kind not in "uif":
        raise InputError(f"`coords` has shape {np.shape(data)} and type {values.dtype}; expected (N, 2) numbers, x before y")
    numbers: FloatArray = values.astype(np.float64)
    wrong = (~np.isfinite(numbers) | ((np.rint(numbers) != numbers) & whole)).any(axis=1)
    if wrong.any():
        odd = numbers[wrong][0]
        raise InputError(f"`coords` has ({odd[0]:g}, {odd[1]:g}); expected {'whole pixels' if whole else 'numbers'}")
    return np.rint(numbers * factor).astype(np.int64)


def read_coordinate_file(path: Path, mpp: Pair | None = None) -> tuple[Array, TileScale]:
    """The corners (N, 2) of the tiles of a slide in level-0 pixels, in the order of the file, and what it states about their size.

    mpp: micrometres per pixel of the slide, for coordinates in micrometres; None: these are refused.
    Raises InputError with the reason if the file cannot be read, or does not hold such coordinates."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            check_global_heaps(file, path)
            data = file.get("coords")
            if not isinstance(data, h5py.Dataset):
                raise InputError(f"it has no dataset `coords`, but {', '.join(sorted(file)) or 'nothing'}")
            images = file.get("imgs")
            scale = read_scale(file, "coords", images.shape[1] if isinstance(images, h5py.Dataset) and images.ndim >= 3 else None)
            if scale.microns and mpp:
                side = None if scale.side_um is None else (scale.side_um / mpp[0], scale.side_um / mpp[1])
                return read_corners(data[()], (1 / mpp[0], 1 / mpp[1]), whole=False), replace(scale, side=side)
            if scale.factor is None:
                raise InputError("its coordinates are not level-0 pixels: micrometres, as of STAMP, or of a level without `downsample`")
            return read_corners(data[()], scale.factor), scale
    except InputError:
        raise
    except READ_ERRORS as error:
        raise InputError(f"it is not a readable HDF5 file: {describe_reason(error)}") from error
