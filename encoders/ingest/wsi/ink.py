"""Black, gray and red ink, by the colours of a neighbourhood instead of those of a pixel.

A single dark or red pixel may be a nucleus, pigment or a blood cell. In a neighbourhood of 24 um tissue has bright gaps and a changing
colour, ink covers everything evenly. Densities are optical densities, -log10 of the share of light that passes, relative to glass.

Black and gray: the smallest density of the three channels, as low as anywhere in the neighbourhood, is at least NEUTRAL_SHARE of the mean
density. Haematoxylin lets blue pass, eosin and DAB let red pass. Red: green and blue are absorbed everywhere, red hardly, and blue as much
as green; eosin lets more blue pass.

Shapes: B tiles, h, w of the small copy of one.
"""

import numpy as np
from numpy.typing import NDArray

from encoders.runtime.arrays import BoolArray

WINDOW = 6  # pixels of half the resolution of the copy, 24 um: wider than nuclei and blood cells, narrower than any pen
NEUTRAL_DENSITY, NEUTRAL_SHARE = 0.15, 0.8  # gray ink lets at most 71 % of the light pass; shares in tissue: at most 0.78, see docs/data.md
RED_DENSITY, RED_LEAK, RED_BALANCE = 0.4, 0.2, 0.8  # of green and blue; density of red per that; density of blue per that of green
DENSITY = -np.log10((np.arange(256, dtype=np.float32) + 1) / 256)  # of the values 0-255
DARKEST_NEUTRAL, DARKEST_RED = (int(256 * 10**-limit) for limit in (NEUTRAL_DENSITY, RED_DENSITY))  # values of 255: less light is ink

Channels = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]  # (B, h, w) each


def find_local_ink(tiles: NDArray[np.uint8]) -> BoolArray:
    """(B, h // 2, w // 2): pixels in a square of WINDOW that is all black, gray or red ink, at half the resolution.

    tiles: (B, h, w, 3), divided by the colour of the glass. Tiles with a side below 2 WINDOW have none."""
    channels = _halve(tiles)
    red, green, blue = channels
    found = np.zeros(red.shape, bool)
    if min(red.shape[1:]) < WINDOW:
        return found
    absorb_least = np.maximum(green, blue)  # the brightest of the channels that the ink absorbs
    for bright, limit, rule in ((np.maximum(red, absorb_least), DARKEST_NEUTRAL, _is_neutral), (absorb_least, DARKEST_RED, _is_red)):
        chosen = np.flatnonzero(np.count_nonzero(bright <= limit, axis=(1, 2)) >= WINDOW**2)  # few tiles: the filters are slow
        if len(chosen):
            found[chosen] |= _grow(rule((red[chosen], green[chosen], blue[chosen]), _least_density(bright[chosen])))
    return found


def _halve(tiles: NDArray[np.uint8]) -> Channels:
    """The channels, averaged over 2 x 2 pixels: noise and the rims of cells are no gaps in ink."""
    height, width = (side // 2 * 2 for side in tiles.shape[1:3])

    def halved(channel: int) -> NDArray[np.uint8]:
        plane = tiles[:, :height, :width, channel].astype(np.uint16)
        return ((plane[:, ::2, ::2] + plane[:, 1::2, ::2] + plane[:, ::2, 1::2] + plane[:, 1::2, 1::2] + 2) >> 2).astype(np.uint8)

    return halved(0), halved(1), halved(2)


def _least_density(bright: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(B, h, w): the smallest density in the square around each pixel.  bright: (B, h, w) values of the channel that absorbs least."""
    from scipy import ndimage

    return np.asarray(DENSITY[ndimage.maximum_filter(bright, (1, WINDOW, WINDOW), mode="nearest")])


def _mean_density(values: NDArray[np.float32]) -> NDArray[np.float32]:
    from scipy import ndimage

    return np.asarray(ndimage.uniform_filter(values, (1, WINDOW, WINDOW), mode="nearest"))


def _is_neutral(channels: Channels, least: NDArray[np.float32]) -> BoolArray:
    red, green, blue = (DENSITY[channel] for channel in channels)
    return (least > NEUTRAL_DENSITY) & (3 * least > NEUTRAL_SHARE * _mean_density(red + green + blue))


def _is_red(channels: Channels, least: NDArray[np.float32]) -> BoolArray:
    red, green, blue = (_mean_density(DENSITY[channel]) for channel in channels)
    return (least > RED_DENSITY) & (red < RED_LEAK * least) & (blue > RED_BALANCE * green)


def _grow(centres: BoolArray) -> BoolArray:
    """The squares around the centres."""
    from scipy import ndimage

    # The square of an even side is asymmetric: moved by one pixel, it covers what _least_density looked at.
    return np.asarray(ndimage.maximum_filter(centres, (1, WINDOW, WINDOW), mode="constant", origin=(0, -1, -1)))
