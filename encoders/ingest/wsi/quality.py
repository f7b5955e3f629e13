"""Quality of tiles: sharpness, and shares of pen, white and black. Measured on a small copy, which costs less than reading the tile.

Shapes: B tiles, h, w of the small copy of one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoders.ingest.wsi.glass import WHITE, Glass, glass_tables
from encoders.ingest.wsi.ink import find_local_ink
from encoders.ingest.wsi.settings import TilingSettings
from encoders.ingest.wsi.tile_geometry import SIZE_TOLERANCE
from encoders.runtime.arrays import BoolArray

if TYPE_CHECKING:
    from PIL import Image

QUALITY_MPP = 2.0  # micrometres per pixel of the small copy: blur from 2 um is visible, and a nucleus has four pixels
GLASS_MAX_SATURATION, GLASS_MIN_VALUE, DARK_MAX_VALUE = 20, 220, 40  # of 255, in HSV
INK_MIN_SATURATION = 80  # of 255: smallest saturation of a pen line
# Degrees of hue. Haematoxylin has 240 to 300, eosin 310 to 360. Other inks have the hue of a stain, or none; see `find_local_ink`.
GREEN_INK_HUES, BLUE_INK_HUES = (70, 170), (180, 225)


class TileQuality(NamedTuple):
    """Measures of one tile."""

    sharpness: float  # variance of the Laplacian, (gray levels of 255)^2 at QUALITY_MPP
    pen: float  # shares of the area; the larger of ink by hue and ink by neighbourhood
    white: float
    black: float

    def rejection_reason(self, limits: TilingSettings) -> str:
        """The first reason to reject the tile; "" if there is none."""
        if self.black > limits.max_black:
            return "black"
        if self.white > limits.max_white:
            return "white"
        if self.pen > limits.max_pen:
            return "pen"
        return "blurred" if self.sharpness < limits.min_sharpness else ""


def shrink_tile(image: "Image.Image", mpp: float) -> "Image.Image":
    """A Pillow tile of `mpp` micrometres per pixel, reduced to QUALITY_MPP; unchanged if it is coarser."""
    from PIL import Image

    factor = QUALITY_MPP / mpp
    if factor <= 1:
        return image
    if (
        abs(factor / round(factor) - 1) <= SIZE_TOLERANCE and min(image.size) >= 3 * factor
    ):  # averaging whole pixels takes a third of the time
        return image.reduce(round(factor))
    size = max(3, round(image.width / factor)), max(3, round(image.height / factor))
    return image.resize(size, Image.Resampling.BOX)


def measure_quality(images: Sequence["Image.Image"], glass: Glass | None = None) -> tuple[list[TileQuality], NDArray[np.uint8]]:
    """The quality of B tiles, and their gray values (B, h, w).

    images: small copies of the tiles, Pillow RGB images of one size. They are measured together, because a call costs more than the few
    pixels of one tile.  glass: of the slide, relative to which a pixel is colourless; None: white, with GLASS_MAX_SATURATION."""
    from PIL import Image

    width, height = images[0].size
    column = Image.new("RGB", (width, height * len(images)))
    for k, image in enumerate(images):
        column.paste(image, (0, k * height))
    gray = np.asarray(column.convert("L")).reshape(-1, height, width)
    hsv = np.asarray(column.convert("HSV")).reshape(len(images), -1, 3)
    hue, colour, value = hsv[..., 0], hsv[..., 1], hsv[..., 2]  # (B, h w) each, 0-255
    dark = value < DARK_MAX_VALUE
    hued = (colour > INK_MIN_SATURATION) & ~dark & (hue_in_range(hue, GREEN_INK_HUES) | hue_in_range(hue, BLUE_INK_HUES))
    most = min(GLASS_MAX_SATURATION, glass.threshold) if glass else GLASS_MAX_SATURATION
    plain = column
    if glass and glass.colour != WHITE.colour:
        plain = column.point(np.concatenate(glass_tables(glass.colour)).tolist())
        relative = np.asarray(plain.convert("HSV")).reshape(hsv.shape)
        white = (relative[..., 2] > GLASS_MIN_VALUE) & (relative[..., 1] < most)
    else:
        white = (value > GLASS_MIN_VALUE) & (colour < most)
    local = find_local_ink(np.asarray(plain).reshape(len(images), height, width, 3))
    hue_share, local_share, white_share, dark_share = (
        [np.count_nonzero(each) / each.size for each in where]  # faster than mean(axis=1)
        for where in (hued, local, white, dark)
    )
    shares = [list(map(max, hue_share, local_share)), white_share, dark_share]
    return [TileQuality(*each) for each in zip(measure_sharpness(gray).tolist(), *shares, strict=True)], gray


def hue_in_range(hue: NDArray[np.uint8], degrees: tuple[int, int]) -> BoolArray:
    """Whether the hue, 0-255, lies in the range of degrees."""
    low, high = (round(limit * 255 / 360) for limit in degrees)
    return (hue - np.uint8(low)) <= high - low  # unsigned: values below `low` wrap to large numbers


def measure_sharpness(gray: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(B,): variance of the 4-neighbour Laplacian of each image of (B, h, w), without the border.

    Source: Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy"."""
    g = gray.astype(np.int16)
    edges = g[:, :-2, 1:-1] + g[:, 2:, 1:-1] + g[:, 1:-1, :-2] + g[:, 1:-1, 2:] - 4 * g[:, 1:-1, 1:-1]
    return np.asarray(edges.reshape(len(g), -1).astype(np.float32).var(axis=1))
