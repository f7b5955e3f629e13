"""Pictures of views, for previews: normalised views as pictures, what was drawn for each in words, and the outline of its crop.

Shapes: n images, C channels, H, W pixels.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from encoders.runtime.arrays import Array
from encoders.zoo.card import Preprocess

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def to_pictures(views: Tensor, prep: Preprocess) -> Array:
    """Normalised views (n, C, H, W) as pictures (n, H, W, C) in [0, 1]."""
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (prep.mean, prep.std))
    black, white = prep.value_range or (0.0, 1.0)
    pictures: Array = ((views.float() * std + mean - black) / (white - black)).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return pictures


def split_params(params: Mapping[str, Any], n: int) -> list[dict[str, Any]]:
    """What was drawn for each of n images.  params: of all of them."""
    return [{name: value[row] for name, value in params.items()} for row in range(n)]


def draw_image(ax: "Axes", image: Array, title: str = "") -> None:
    """Draws an image (H, W, C) in [0, 1], gray for C = 1."""
    ax.imshow(image.squeeze(-1) if image.shape[2] == 1 else image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title, fontsize=6)


def draw_crop_outline(ax: "Axes", params: Mapping[str, Any], colour: str) -> None:
    """Draws the border of a view's crop on the stored image, with its rotation and magnification."""
    top, left, height, width = params["box"]
    angle, zoom = np.deg2rad(params.get("angle", 0.0)), params.get("zoom", 1.0)
    x, y = np.array([-1, 1, 1, -1, -1]) * width / 2 / zoom, np.array([-1, -1, 1, 1, -1]) * height / 2 / zoom
    across = left + width / 2 - 0.5 + x * np.cos(angle) - y * np.sin(angle)
    down = top + height / 2 - 0.5 + x * np.sin(angle) + y * np.cos(angle)
    limits = ax.get_xlim(), ax.get_ylim()
    ax.plot(across, down, color=colour, linewidth=1)
    ax.set_xlim(limits[0])
    ax.set_ylim(limits[1])


def describe_augmentation(params: Mapping[str, Any]) -> str:
    """The augmentation drawn for one view of one image, in a few words; operations without effect are left out."""
    words = []
    if params.get("flip", (False, False))[0]:
        words.append("flip")
    if params.get("flip", (False, False))[1]:
        words.append("upside down")
    if params.get("turn", 0):
        words.append(f"turn {90 * int(params['turn'])}")
    if params.get("angle", 0):
        words.append(f"{params['angle']:+.0f} deg")
    for name, idle, word in (
        ("zoom", 1, "zoom x{:.2f}"),
        ("brightness", 1, "brightness x{:.2f}"),
        ("contrast", 1, "contrast x{:.2f}"),
        ("saturation", 1, "saturation x{:.2f}"),
        ("hue", 0, "hue {:+.2f}"),
        ("gamma", 1, "gamma {:.2f}"),
        ("blur", 0, "blur {:.1f} px"),
        ("noise", 0, "noise {:.3f}"),
    ):
        if params.get(name, idle) != idle:
            words.append(word.format(params[name]))
    for name, on in (
        ("elastic", np.any(params.get("elastic", 0))),
        ("stain", np.any(params.get("stain_factor", 1) != 1)),
        ("stain mixed", np.any(params.get("stain_map", np.eye(3)) != np.eye(3))),
        ("clahe", params.get("clahe", 0) > 0),
        ("window", "window" in params and tuple(params["window"]) != (0.0, 1.0)),
        ("grayscale", params.get("grayscale", False)),
        ("solarised", params.get("solarise", 2) <= 1),
        ("cutout", "cutout" in params and params["cutout"][2] > 0),
    ):
        if on:
            words.append(name)
    lines = [", ".join(words[i : i + 2]) for i in range(0, len(words), 2)]
    return "\n".join(lines) or "crop only"
