"""The colour of the glass of a slide, and how much every pixel differs from it.

Stain absorbs light, so glass is the brightest mode of the colours of a slide. Pixels are divided by it: the glass of a tinted slide gets
saturation 0, and a pale core is judged by its own stain, whatever stronger stain the slide holds elsewhere.

Shapes: H, W of the overview.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import BoolArray

MIN_GLASS_VALUE, MAX_GLASS_SATURATION = 170, 45  # of 255, in HSV: darker or more saturated pixels are not glass
UNSCANNED_VALUE = 254  # brighter pixels are overexposed glass, or fill of areas that were never scanned; both have no tint
MIN_MODE_SHARE = 0.005  # of the overview: fewer pixels are no mode
MODE_HALF_WIDTH = 3  # gray levels around the centre of a mode
# A mode of more saturation, or one beside white fill, is glass only if neighbouring pixels differ by less: tissue has texture.
PALE_SATURATION, MAX_STEP, MAX_STEP_BESIDE_WHITE = 16, 4.0, 1.5  # of 255; upper quartile of the steps, gray levels
NOISE_FLOOR, NOISE_CEILING, NOISE_FACTOR = 8, 20, 6.0  # of 255; the factor multiplies the standard deviation of the glass
# JPEG bleeds colour into the glass beside stain: up to this share of its saturation, over this many pixels. Gaps that this leaves in tissue
# are closed later.
BLEED_SHARE, BLEED_REACH = 0.25, 2
MIN_STAINED_PIXELS = 4  # that touch; fewer are noise, which closing would join to the tissue
DARK_SHARE = 0.93  # of the glass: a darker channel is something on the glass
ROBUST_STD = 1.4826  # standard deviation of a normal distribution per median absolute deviation


@dataclass(frozen=True)
class Glass:
    """The background of one slide."""

    colour: tuple[int, int, int]  # RGB
    threshold: int  # of 255: saturation relative to the glass above which a pixel is stained


WHITE = Glass((255, 255, 255), NOISE_FLOOR)


def find_glass(image: NDArray[np.uint8], threshold: int | None = None) -> Glass:
    """The colour of the glass in an overview (H, W, 3), white if none is seen, and the threshold of stain.

    threshold: given by the user; None: NOISE_FACTOR standard deviations of the glass above its median, at least NOISE_FLOOR."""
    colour = next((tuple(mode) for mode in bright_modes(image)), WHITE.colour)
    if threshold is None:
        values = relative_saturation(image, colour)
        near = (np.abs(image.astype(np.int16) - colour).max(axis=2) <= 2 * MODE_HALF_WIDTH) & (values <= MAX_GLASS_SATURATION)
        threshold = noise_limit(values[near]) if near.any() else NOISE_FLOOR
    return Glass((int(colour[0]), int(colour[1]), int(colour[2])), threshold)


def noise_limit(values: NDArray[np.uint8]) -> int:
    """The saturation that noise of the glass does not reach.  values: (N,) saturation of glass."""
    middle = float(np.median(values))
    spread = ROBUST_STD * float(np.median(np.abs(values - middle)))
    return int(np.clip(np.ceil(middle + NOISE_FACTOR * spread), NOISE_FLOOR, NOISE_CEILING))


def bright_modes(image: NDArray[np.uint8]) -> Iterator[tuple[int, ...]]:
    """The colours of bright unsaturated modes that can be glass, the brightest first."""
    high, saturation = image.max(axis=2), relative_saturation(image, WHITE.colour)
    white = image.min(axis=2) >= UNSCANNED_VALUE
    candidate = (high >= MIN_GLASS_VALUE) & (saturation <= MAX_GLASS_SATURATION) & ~white
    beside_white = white.mean() >= MIN_MODE_SHARE
    step = local_step(image)
    gray = image.mean(axis=2).round().astype(np.uint8)
    counts = np.bincount(gray[candidate], minlength=256)
    width = 2 * MODE_HALF_WIDTH + 1
    around = np.convolve(counts, np.ones(width, np.int64), "same")
    for level in range(255, MODE_HALF_WIDTH, -1):
        peak = around[max(0, level - width) : level + width].max()
        if around[level] < MIN_MODE_SHARE * gray.size or around[level] < peak:
            continue
        own = candidate & (np.abs(gray.astype(np.int16) - level) <= MODE_HALF_WIDTH)
        roughness = float(np.percentile(step[own], 75))
        pale = float(np.median(saturation[own])) <= PALE_SATURATION
        if roughness <= MAX_STEP_BESIDE_WHITE or (not beside_white and (pale or roughness <= MAX_STEP)):
            yield tuple(int(value) for value in np.median(image[own], axis=0))


def local_step(image: NDArray[np.uint8]) -> NDArray[np.int16]:
    """(H, W): the largest difference of any channel to the right and to the lower neighbour, in gray levels."""
    wide = np.pad(image.astype(np.int16), ((0, 1), (0, 1), (0, 0)), "edge")
    right, down = np.abs(wide[:-1, 1:] - wide[:-1, :-1]), np.abs(wide[1:, :-1] - wide[:-1, :-1])
    return np.asarray(np.maximum(right, down).max(axis=2))


def divide_by_glass(image: NDArray[np.uint8], colour: tuple[int, ...]) -> NDArray[np.uint8]:
    """The image (..., 3) with `colour` mapped to white, clipped: nothing is brighter than glass."""
    return np.stack([table[image[..., c]] for c, table in enumerate(glass_tables(colour))], axis=-1)


def glass_tables(colour: tuple[int, ...]) -> list[NDArray[np.uint8]]:
    """(256,) for each channel: the value after division by the glass."""
    values = np.arange(256, dtype=np.float64)
    return [np.rint(np.minimum(values * 255 / max(1, c), 255)).astype(np.uint8) for c in colour]


def relative_saturation(image: NDArray[np.uint8], colour: tuple[int, ...]) -> NDArray[np.uint8]:
    """(H, W): saturation, 0-255, of the image divided by the colour of the glass.

    It is 255 (1 - 10^-d), where d is the difference between the largest and the smallest optical density of the channels."""
    return hsv_saturation(divide_by_glass(image, colour))


def hsv_saturation(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W): 255 (max - min) / max over the channels, as in HSV; 0 for black."""
    high, low = image.max(axis=2).astype(np.uint16), image.min(axis=2)
    return np.asarray(((high - low) * 255 // np.maximum(high, 1)).astype(np.uint8))


def stained_mask(image: NDArray[np.uint8], glass: Glass) -> BoolArray:
    """(H, W): pixels that are more saturated than the glass, more than the bleed of what is stained beside them, and not noise."""
    from scipy import ndimage

    values = relative_saturation(image, glass.colour)
    bleed = BLEED_SHARE * ndimage.maximum_filter(values, 2 * BLEED_REACH + 1).astype(np.float32)
    mask = values > np.maximum(glass.threshold, bleed)
    labels, count = ndimage.label(mask, np.ones((3, 3)))
    return np.asarray(mask & (np.bincount(labels.ravel(), minlength=count + 1) >= MIN_STAINED_PIXELS)[labels])


def non_glass_mask(image: NDArray[np.uint8], glass: Glass) -> BoolArray:
    """(H, W): pixels that differ from the glass in saturation or darkness, stained or not, without single pixels."""
    from scipy import ndimage

    plain = divide_by_glass(image, glass.colour)
    other = (hsv_saturation(plain) > glass.threshold) | (plain.min(axis=2) < DARK_SHARE * 255)
    return np.asarray(ndimage.binary_opening(other, np.ones((2, 2), bool)))
