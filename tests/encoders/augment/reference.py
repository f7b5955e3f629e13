"""A slow reference of the augmentations, one image at a time, from Pillow, torchvision, SciPy and formulas.

An image is float32 (H, W, C) in [0, 1]; `one` holds a single row of the drawn parameters.
"""

import numpy as np
import torch
import torchvision.transforms.functional as T
from PIL import Image
from scipy import ndimage

from encoders.augment.noise import noise_window


def augment_view(image, one, size):
    """The view (S, S, C) of one image, all operations in their documented order."""
    view = apply_geometry(image, one, size)
    colour = image.shape[2] == 3
    if "stain_map" in one and colour:
        view = map_optical_density(view, one["stain_map"])
    if "stain_factor" in one and colour:
        view = jitter_stain(view, one["stain_factor"], one["stain_shift"])
    view = torch.from_numpy(np.ascontiguousarray(view, dtype=np.float32)).permute(2, 0, 1)
    for name, adjust in (
        ("brightness", T.adjust_brightness),
        ("contrast", T.adjust_contrast),
        ("saturation", T.adjust_saturation),
        ("hue", T.adjust_hue),
    ):
        if name in one and (colour or name in ("brightness", "contrast")):
            view = adjust(view, float(one[name]))
    if "window" in one:
        black, white = one["window"]
        view = ((view - black) / (white - black)).clip(0, 1)
    if "gamma" in one:
        view = T.adjust_gamma(view, float(one["gamma"]))
    if one.get("clahe"):
        view = torch.from_numpy(equalise_tiles_slowly(view.permute(1, 2, 0).numpy(), float(one["clahe"]))).permute(2, 0, 1)
    if "grayscale" in one and one["grayscale"] and colour:
        view = T.rgb_to_grayscale(view, num_output_channels=3)
    if "blur" in one and one["blur"] > 0:
        side = 2 * int(np.ceil(3 * one["blur"])) + 1
        view = T.gaussian_blur(view, [side, side], [float(one["blur"])] * 2)
    if "solarise" in one and one["solarise"] <= 1:
        view = torch.where(view >= one["solarise"], 1 - view, view)
    view = view.permute(1, 2, 0).numpy().copy()
    if one.get("noise"):
        for c in range(view.shape[2]):
            field = noise_window(torch.empty(view.shape[:2]), one["noise_at"][c]).numpy()
            view[..., c] = np.clip(view[..., c] + one["noise"] * field, 0, 1)
    if "cutout" in one and one["cutout"][2]:
        top, left, high, wide = (round(float(share) * size) for share in one["cutout"])
        view[top : top + high, left : left + wide] = view.mean(axis=(0, 1))
    return view


def equalise_tiles_slowly(view, limit):
    """Zuiderveld's method pixel by pixel, with a count that is shared between two levels: (S, S, C) -> (S, S, C)."""
    size, colour = len(view), view.shape[2] == 3
    gray = view @ np.array([0.299, 0.587, 0.114], np.float32) if colour else view[..., 0]
    side = int(np.ceil(size / 8))
    curve = np.zeros((8, 8, 257))
    for row in range(8):
        for column in range(8):
            count = np.zeros(257)
            for y in range(row * side, (row + 1) * side):
                for x in range(column * side, (column + 1) * side):
                    level = 255 * gray[mirror(y, size), mirror(x, size)]
                    low = min(int(level), 254)
                    count[low] += 1 - (level - low)
                    count[low + 1] += level - low
            most = limit * side**2 / 256
            excess = sum(max(n - most, 0) for n in count[:256])
            curve[row, column, :256] = np.cumsum([min(n, most) + excess / 256 for n in count[:256]]) / side**2
    new = np.zeros_like(gray)
    for y in range(size):
        for x in range(size):
            level = 255 * gray[y, x]
            low = min(int(level), 254)
            for tile_row, near_row in neighbours(y, side):
                for tile_column, near_column in neighbours(x, side):
                    own = curve[tile_row, tile_column]
                    new[y, x] += near_row * near_column * (own[low] + (level - low) * (own[low + 1] - own[low]))
    return np.clip(view + (new - gray)[..., None], 0, 1).astype(np.float32)


def mirror(place, size):
    """A place beyond the last pixel, mirrored at it."""
    return place if place < size else max(2 * (size - 1) - place, 0)


def neighbours(place, side):
    """The two tiles whose centres are before and after a place, with their weights."""
    distance = place / side - 0.5
    before = int(np.floor(distance))
    return [(min(max(before, 0), 7), before + 1 - distance), (min(max(before + 1, 0), 7), distance - before)]


def apply_geometry(image, one, size):
    """Pillow's crop and resize where the axes are independent; otherwise a look-up pixel by pixel. Then quarter turns."""
    bent = one.get("angle", 0) != 0 or one.get("zoom", 1) != 1 or np.any(one.get("elastic", 0))
    view = resample_by_lookup(image, one, size) if bent else resize_crop(image, one, size)
    return np.rot90(view, one.get("turn", 0))


def resize_crop(image, one, size):
    top, left, high, wide = (int(v) for v in one["box"])
    kernel = Image.Resampling.BICUBIC if one["cubic"] else Image.Resampling.BILINEAR
    planes = [Image.fromarray(image[top : top + high, left : left + wide, c]).resize((size, size), kernel) for c in range(image.shape[2])]
    view = np.clip(np.stack([np.asarray(p) for p in planes], axis=2), 0, 1)
    across, down = one.get("flip", (False, False))
    return view[:: -1 if down else 1, :: -1 if across else 1]


def resample_by_lookup(image, one, size):
    """For every output pixel: undo the flip, bend, stretch to the crop, turn and magnify about its centre, look up linearly."""
    top, left, high, wide = one["box"]
    bend = np.zeros((2, size, size))
    if "elastic" in one:
        knots = torch.from_numpy(one["elastic"].astype(np.float32))[None]
        bend = torch.nn.functional.interpolate(knots, size=(size, size), mode="bicubic", align_corners=True)[0].numpy()
    across, down = one.get("flip", (False, False))
    angle, zoom = np.deg2rad(one.get("angle", 0.0)), one.get("zoom", 1.0)
    places = np.zeros((2, size, size))
    for row in range(size):
        for column in range(size):
            u = ((column + 0.5) / size - 0.5) * (-1 if across else 1) + bend[0, row, column]
            v = ((row + 0.5) / size - 0.5) * (-1 if down else 1) + bend[1, row, column]
            x, y = u * wide / zoom, v * high / zoom
            places[0, row, column] = top + high / 2 - 0.5 + x * np.sin(angle) + y * np.cos(angle)
            places[1, row, column] = left + wide / 2 - 0.5 + x * np.cos(angle) - y * np.sin(angle)
    return np.stack([ndimage.map_coordinates(image[..., c], places, order=1, mode="grid-constant") for c in range(image.shape[2])], axis=2)


def map_optical_density(view, matrix):
    """Optical densities of red, green and blue, as a row vector, times a matrix: in float64, pixel by pixel."""
    out = np.empty_like(view, dtype=np.float64)
    for place in np.ndindex(view.shape[:2]):
        out[place] = np.exp(np.log(np.maximum(view[place].astype(np.float64), 1e-6)) @ matrix)
    return np.clip(out, 0, 1)


def jitter_stain(view, factor, shift):
    """Separation into haematoxylin, eosin and DAB by Ruifrok and Johnston's densities, jitter, and back: in float64, pixel by pixel."""
    stains = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])
    out = np.empty_like(view, dtype=np.float64)
    for place in np.ndindex(view.shape[:2]):
        amounts = np.linalg.solve(stains.T, -np.log(np.maximum(view[place].astype(np.float64), 1e-6)))  # density = stains^T amounts
        out[place] = np.exp(-stains.T @ (amounts * factor + shift))
    return np.clip(out, 0, 1)
