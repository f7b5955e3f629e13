"""What happens to each image of a batch: parameters drawn as a pure function of (seed, position, view).

Each kind of draw has a purpose and fixed lanes of its own, so that turning one knob on or off leaves the draws of all others as they
were. A row that an operation was not drawn for carries the operation's identity (a factor of 1, a sigma of 0).

Shapes: B positions.
"""

import numpy as np
from numpy.typing import ArrayLike

from encoders.augment.config import Augment
from encoders.runtime.arrays import Array, FloatArray
from encoders.runtime.random import Purpose, normal, uniform

DrawnParams = dict[str, Array]

CROP_TRIES = 10  # as torchvision.transforms.RandomResizedCrop, before it falls back to the centre
ELASTIC_KNOTS = 6  # a side of the grid of an elastic warp


def draw_params(cfg: Augment, seed: int, position: ArrayLike, view: int, source: tuple[int, int]) -> DrawnParams:
    """The parameters of one view: arrays with first axis B, only of the operations that are on.

    position: (B,) places in the global order.  view: 0..65535.  source: (H, W) of the images."""
    where = np.atleast_1d(np.asarray(position))

    def lanes(purpose: Purpose, n: int) -> FloatArray:
        return uniform(seed, purpose, where, view, n).T  # (n, B)

    params = _draw_geometry(cfg, lanes, len(where), source)
    if cfg.elastic and cfg.elastic_px:
        knots = normal(seed, Purpose.ELASTIC, where, view, 2 * ELASTIC_KNOTS * ELASTIC_KNOTS) * cfg.elastic_px / 224
        picked = lanes(Purpose.SHIFT, 1)[0] < cfg.elastic
        params["elastic"] = (knots * picked[:, None]).reshape(-1, 2, ELASTIC_KNOTS, ELASTIC_KNOTS)
    return params | _draw_colour(cfg, lanes) | _draw_texture(cfg, lanes)


def _draw_geometry(cfg: Augment, lanes, n: int, source: tuple[int, int]) -> DrawnParams:
    params: DrawnParams = {"box": np.tile(np.array([0.0, 0.0, *source]), (n, 1)), "cubic": np.full(n, cfg.interpolation == "bicubic")}
    if cfg.crop is not None:
        params["box"] = crop_boxes(lanes(Purpose.CROP, 2 * CROP_TRIES + 2), cfg.crop, cfg.ratio, source)
    if cfg.flip or cfg.flip_vertical or cfg.turn:
        u = lanes(Purpose.FLIP, 4)
        params["flip"] = np.stack([u[0] < cfg.flip, u[1] < cfg.flip_vertical], axis=1)
        params["turn"] = np.where(u[2] < cfg.turn, 1 + (u[3] * 3).astype(np.int64), 0)
    if cfg.rotate or cfg.scale != (1.0, 1.0):
        u = lanes(Purpose.ROTATE, 3)
        params["angle"] = np.where(u[0] < cfg.rotate_p, uniform_between(u[1], -cfg.rotate, cfg.rotate), 0.0)
        params["zoom"] = log_uniform_between(u[2], cfg.scale)
    return params


def _draw_colour(cfg: Augment, lanes) -> DrawnParams:
    params: DrawnParams = {}
    if cfg.stain:
        u = lanes(Purpose.STAIN, 7)
        on = (u[0] < cfg.stain) * cfg.stain_sigma
        params["stain_factor"] = (1 + on * (2 * u[1:4] - 1)).T  # (B, 3): haematoxylin, eosin, DAB
        params["stain_shift"] = (on * (2 * u[4:7] - 1)).T  # (B, 3)
    if cfg.jitter or cfg.window or cfg.gamma or cfg.grayscale:
        u = lanes(Purpose.COLOUR, 11)
        on = u[0] < cfg.jitter
        for lane, name in enumerate(("brightness", "contrast", "saturation"), start=1):
            width = getattr(cfg, name)
            if cfg.jitter and width:
                params[name] = np.where(on, uniform_between(u[lane], max(0.0, 1 - width), 1 + width), 1.0)
        if cfg.jitter and cfg.hue:
            params["hue"] = np.where(on, uniform_between(u[4], -cfg.hue, cfg.hue), 0.0)
        if cfg.window:
            on = (u[5] < cfg.window) * cfg.window_width
            params["window"] = np.stack([on * u[6], 1 - on * u[7]], axis=1)  # (B, 2): black, white
        if cfg.gamma:
            params["gamma"] = np.where(u[8] < cfg.gamma, log_uniform_between(u[9], cfg.gamma_range), 1.0)
        if cfg.grayscale:
            params["grayscale"] = u[10] < cfg.grayscale
    return params


def _draw_texture(cfg: Augment, lanes) -> DrawnParams:
    params: DrawnParams = {}
    if cfg.blur:
        u = lanes(Purpose.BLUR, 2)
        params["blur"] = np.where(u[0] < cfg.blur, uniform_between(u[1], *cfg.blur_sigma), 0.0)
    if cfg.solarise:
        params["solarise"] = np.where(lanes(Purpose.SOLARISE, 1)[0] < cfg.solarise, cfg.solarise_threshold, 2.0)  # 2: above any value
    if cfg.noise:
        u = lanes(Purpose.NOISE, 8)
        params["noise"] = np.where(u[0] < cfg.noise, uniform_between(u[1], *cfg.noise_std), 0.0)
        params["noise_at"] = u[2:].T.reshape(-1, 3, 2)  # (B, channel, 2): where in the field of noise, as shares
    if cfg.cutout:
        u = lanes(Purpose.CUTOUT, 5)
        area, ratio = uniform_between(u[1], *cfg.cutout_area), log_uniform_between(u[2], (1 / 3, 3.0))
        high, wide = (np.minimum(np.sqrt(side), 1.0) for side in (area / ratio, area * ratio))
        hole = np.stack([u[3] * (1 - high), u[4] * (1 - wide), high, wide], axis=1)
        params["cutout"] = hole * (u[0] < cfg.cutout)[:, None]  # (B, 4): top, left, height, width as shares of the view
    return params


def crop_boxes(u: FloatArray, area: tuple[float, float], ratio: tuple[float, float], source: tuple[int, int]) -> FloatArray:
    """Crops (B, 4) as top, left, height, width in whole pixels, distributed as torchvision's RandomResizedCrop.

    u: (2 TRIES + 2, B) uniform numbers: the areas, the ratios, and the place."""
    height, width = source
    target = uniform_between(u[:CROP_TRIES], *area) * height * width  # (TRIES, B)
    aspect = log_uniform_between(u[CROP_TRIES : 2 * CROP_TRIES], ratio)
    wide, high = np.rint(np.sqrt(target * aspect)), np.rint(np.sqrt(target / aspect))
    fits = (wide > 0) & (wide <= width) & (high > 0) & (high <= height)
    first, column = fits.argmax(axis=0), np.arange(u.shape[1])
    high, wide, found = high[first, column], wide[first, column], fits.any(axis=0)
    central = _central_crop_size(ratio, source)
    high, wide = np.where(found, high, central[0]), np.where(found, wide, central[1])
    room = np.stack([height - high, width - wide])  # (2, B): how far the crop's corner can move
    corner = np.where(found, np.minimum(np.floor(u[2 * CROP_TRIES :] * (room + 1)), room), np.floor(room / 2))
    return np.stack([corner[0], corner[1], high, wide], axis=1)


def _central_crop_size(ratio: tuple[float, float], source: tuple[int, int]) -> tuple[float, float]:
    """(height, width) of the largest central crop with a permitted ratio, for images too long for any other."""
    height, width = source
    if width / height < ratio[0]:
        return float(min(height, max(1, round(width / ratio[0])))), float(width)
    if width / height > ratio[1]:
        return float(height), float(min(width, max(1, round(height * ratio[1]))))
    return float(height), float(width)


def uniform_between(u: FloatArray, low: float, high: float) -> FloatArray:
    """Uniform numbers in [low, high) from uniform numbers in [0, 1)."""
    return low + u * (high - low)


def log_uniform_between(u: FloatArray, ends: tuple[float, float]) -> FloatArray:
    """Numbers in [ends[0], ends[1]) whose logarithm is uniform."""
    return np.exp(uniform_between(u, np.log(ends[0]), np.log(ends[1])))
