"""The picture of an explained image: the image as the network saw it, the map, and both, with what was predicted.

Shapes: K channels, S side of the input.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from encoders.runtime.arrays import FloatArray
from encoders.zoo.card import Preprocess

COLOURS = "inferno"
WIDE, HIGH, PANEL = 9.6, 3.75, 2.85  # inches, of a picture and of one of its three panels
STRONGEST = 0.65  # opacity of the largest value in the overlay
PATIENT_MARK, SYNTHETIC_MARK = "image of a patient: do not share", "synthetic image"


class PictureText(NamedTuple):
    """What a picture says. number: of the image in the folder, which is not its key.  decision: of the label.

    cells: side of the grid on which the method knows the map."""

    number: int
    label: str
    probability: float
    decision: str
    method: str
    cells: int
    mark: str


def to_picture(x: Tensor, preprocess: Preprocess) -> FloatArray:
    """(S, S) gray or (S, S, 3) in [0, 1], of prepared input (K, S, S)."""
    mean, std = (np.array(values)[:, None, None] for values in preprocess.unit_mean_std)
    image = np.clip(x.double().cpu().numpy() * std + mean, 0, 1)
    gray = len(image) == 1 or np.allclose(image[0], image[1:], atol=1e-6)
    return np.asarray(image[0] if gray else np.moveaxis(image, 0, -1))


def write_overlay(path: Path, picture: FloatArray, values: FloatArray, text: PictureText) -> None:
    """Writes the PNG.  picture: of `to_picture`.  values: (S, S), the map."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    largest = float(values.max())
    share = values / largest if largest > 0 else values
    colour = colormaps[COLOURS](share)[..., :3]
    opacity = STRONGEST * share[..., None]
    base = picture if picture.ndim == 3 else np.repeat(picture[..., None], 3, axis=2)
    figure = Figure(figsize=(WIDE, HIGH))  # with places of its own: an automatic layout takes most of the time of a picture
    for left, shown, title in zip(
        (0.05, 3.0, 5.95),
        (base, share, base * (1 - opacity) + colour * opacity),
        ("image as the network saw it", f"map of {text.cells} x {text.cells} cells" if largest > 0 else "no evidence for it", "overlay"),
        strict=True,
    ):
        panel = figure.add_axes((left / WIDE, 0.3 / HIGH, PANEL / WIDE, PANEL / HIGH))
        panel.imshow(shown, cmap=COLOURS, vmin=0, vmax=1, interpolation="nearest")
        panel.set_title(title, fontsize=9)
        panel.set_xticks([])
        panel.set_yticks([])
    beside = figure.add_axes((8.9 / WIDE, 0.45 / HIGH, 0.12 / WIDE, (PANEL - 0.3) / HIGH))
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), COLOURS), cax=beside)
    bar.set_label(f"share of the largest value, {largest:.3g}", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    figure.suptitle(
        f"{text.number}: evidence for {text.label}, calibrated probability {text.probability:.3f}, {text.decision}; {text.method}",
        fontsize=10,
        y=0.985,
    )
    mark = f"{text.mark}; the map says what the network used, not where a disease is"
    figure.text(0.5, 0.03, mark, fontsize=7.5, color="#a3231b", ha="center")
    figure.savefig(path, format="png", dpi=100, metadata={"Software": None})
